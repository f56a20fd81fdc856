// A device in memory, sparse: pages exist once something was written to them.
#pragma once

#include "device/block_device.h"
#include "device/sparse_pages.h"

#include <atomic>
#include <memory>
#include <string>

namespace uext4 {

class MemoryDevice final : public BlockDevice {
public:
    explicit MemoryDevice(std::uint64_t size, std::string name = "memory");

    // Two devices over the same content: as two hosts on one disk.
    MemoryDevice(std::shared_ptr<SparsePages> content, std::uint64_t size, std::string name = "memory");

    // A copy of an image file's content, holes kept as holes.
    static Result<std::unique_ptr<MemoryDevice>> load(const std::string& path);

    // An independent copy of the content as it is now; costs memory only where either is written afterwards.
    std::unique_ptr<MemoryDevice> clone() const;

    // Writes the content to a file (created or replaced), sparsely.
    Result<void> save(const std::string& path) const;

    std::shared_ptr<SparsePages> content() const { return content_; }
    void set_read_only(bool read_only) { read_only_.store(read_only); }

    std::uint64_t size() const override { return size_; }
    Result<void> read(std::uint64_t offset, Bytes out) override;
    Result<void> write(std::uint64_t offset, ConstBytes in) override;
    Result<void> write_fua(std::uint64_t offset, ConstBytes in) override;
    Result<void> flush() override;
    Result<void> discard(std::uint64_t offset, std::uint64_t length) override;
    bool read_only() const override { return read_only_.load(); }
    std::string name() const override { return name_; }

private:
    std::shared_ptr<SparsePages> content_;
    std::uint64_t size_;
    std::string name_;
    std::atomic<bool> read_only_{false};
};

}  // namespace uext4
