// A device whose requests are served by the embedding program.
#pragma once

#include "device/block_device.h"

#include <functional>
#include <string>

namespace uext4 {

// Each function returns 0 or an errno value, positive or negative, and may be called from several threads at once.
// `write`, `flush`, `write_fua` and `discard` may be empty: then the device is read-only, needs no flush, flushes
// after a write, or cannot discard.
struct DeviceCallbacks {
    std::function<int(std::uint64_t offset, void* out, std::size_t length)> read;
    std::function<int(std::uint64_t offset, const void* in, std::size_t length)> write;
    std::function<int()> flush;
    std::function<int(std::uint64_t offset, const void* in, std::size_t length)> write_fua;
    std::function<int(std::uint64_t offset, std::uint64_t length)> discard;
    std::function<void()> close;  // called once, by the destructor
};

class CallbackDevice final : public BlockDevice {
public:
    // Without `read` every read is ENOTSUP.
    CallbackDevice(std::uint64_t size, DeviceCallbacks callbacks, std::string name = "callbacks");
    ~CallbackDevice() override;

    std::uint64_t size() const override { return size_; }
    Result<void> read(std::uint64_t offset, Bytes out) override;
    Result<void> write(std::uint64_t offset, ConstBytes in) override;
    // Small parts go together, so that a device for which each request counts meets few.
    Result<void> readv(std::uint64_t offset, std::span<const Bytes> parts) override;
    Result<void> writev(std::uint64_t offset, std::span<const ConstBytes> parts) override;
    Result<void> write_fua(std::uint64_t offset, ConstBytes in) override;
    Result<void> flush() override;
    Result<void> discard(std::uint64_t offset, std::uint64_t length) override;
    bool read_only() const override { return !callbacks_.write; }
    std::string name() const override { return name_; }

private:
    std::uint64_t size_;
    DeviceCallbacks callbacks_;
    std::string name_;
};

}  // namespace uext4
