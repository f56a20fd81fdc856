// An image file, a block device, or a descriptor that was passed in (/dev/fd/N).
#pragma once

#include "device/block_device.h"
#include "device/partition.h"

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace uext4 {

struct FileDeviceOptions {
    bool writable = true;
    std::uint64_t offset = 0;    // where the view starts
    std::uint64_t length = 0;    // 0: to the end
    bool lock = true;            // keep other users of the library out, or refuse
    bool refuse_mounted = true;  // EBUSY if the kernel has it mounted (writable opens only)
    std::string name;            // of the image, for messages; empty: the path
    // How long it waits for another user of the image before it is EBUSY. Not for this process.
    std::chrono::milliseconds lock_timeout{0};
    // Called once, after a second of that, with a sentence that says what it waits for.
    std::function<void(const std::string& sentence)> on_wait;
};

class FileDevice final : public BlockDevice {
public:
    // Errors: EBUSY in use by another process or mounted by the kernel; EROFS writable asked of a read-only device;
    // EINVAL neither a regular file nor a block device, or a view outside of it; what open(2) says.
    static Result<std::unique_ptr<FileDevice>> open(const std::string& path, const FileDeviceOptions& options = {});

    // Takes over a descriptor. It is read-only if the descriptor is.
    static Result<std::unique_ptr<FileDevice>> adopt(int fd, std::string name, const FileDeviceOptions& options = {});

    ~FileDevice() override;
    FileDevice(const FileDevice&) = delete;
    FileDevice& operator=(const FileDevice&) = delete;

    std::uint64_t size() const override { return length_; }
    Result<void> read(std::uint64_t offset, Bytes out) override;
    Result<void> write(std::uint64_t offset, ConstBytes in) override;
    Result<void> readv(std::uint64_t offset, std::span<const Bytes> parts) override;
    Result<void> writev(std::uint64_t offset, std::span<const ConstBytes> parts) override;
    Result<void> write_fua(std::uint64_t offset, ConstBytes in) override;
    Result<void> flush() override;
    Result<void> discard(std::uint64_t offset, std::uint64_t length) override;
    bool read_only() const override { return !writable_; }
    Result<void> read_from_medium(std::uint64_t offset, Bytes out) override;
    void request_lease() override;
    // From now on it only reads, and lets others read the image. (Files behind loop devices stay locked.)
    void downgrade_to_read_only();
    std::string name() const override { return name_; }

    // Stays owned by the device.
    int descriptor() const { return fd_; }
    std::uint64_t partition_offset() const { return offset_; }
    bool is_block_device() const { return block_device_; }
    // Of an image that is all of the file or block device; else null. To be used before the file system is.
    PartitionTable* partition_table() { return table_.get(); }

private:
    class LockTimeout;
    FileDevice(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}
    void unlock_backing_files();
    Result<void> prepare(const FileDeviceOptions& options, LockTimeout& patience);
    Result<void> lock_image(const FileDeviceOptions& options, LockTimeout& patience);

    int fd_;
    std::vector<int> backing_files_;  // files under loop devices, locked
    std::string name_;
    std::uint64_t offset_ = 0;
    std::uint64_t length_ = 0;
    std::uint64_t locked_length_ = 0;  // 0: to the end
    bool locked_ = false;
    bool writable_ = false;
    bool block_device_ = false;
    bool leased_ = false;
    std::unique_ptr<PartitionTable> table_;  // prepared, and read only if it is asked for
};

}  // namespace uext4
