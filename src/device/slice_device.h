// A part of another device.
#pragma once

#include "device/block_device.h"

#include <memory>
#include <string>

namespace uext4 {

class SliceDevice final : public BlockDevice {
public:
    // EINVAL if the slice does not lie within the base.
    static Result<std::unique_ptr<SliceDevice>> make(std::shared_ptr<BlockDevice> base, std::uint64_t offset,
                                                     std::uint64_t length);

    std::uint64_t size() const override { return length_; }
    Result<void> read(std::uint64_t offset, Bytes out) override;
    Result<void> write(std::uint64_t offset, ConstBytes in) override;
    Result<void> readv(std::uint64_t offset, std::span<const Bytes> parts) override;
    Result<void> writev(std::uint64_t offset, std::span<const ConstBytes> parts) override;
    Result<void> write_fua(std::uint64_t offset, ConstBytes in) override;
    Result<void> flush() override;
    Result<void> discard(std::uint64_t offset, std::uint64_t length) override;
    bool read_only() const override { return base_->read_only(); }
    Result<void> read_from_medium(std::uint64_t offset, Bytes out) override;
    std::string name() const override;

private:
    SliceDevice(std::shared_ptr<BlockDevice> base, std::uint64_t offset, std::uint64_t length)
        : base_(std::move(base)), offset_(offset), length_(length) {}

    std::shared_ptr<BlockDevice> base_;
    std::uint64_t offset_;
    std::uint64_t length_;
};

}  // namespace uext4
