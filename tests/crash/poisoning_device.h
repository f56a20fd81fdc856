// Forgets what it is told to forget: a discard writes a pattern over what is there, as any other write. What is still
// read of it, or shows after a cut, was discarded too early.
#pragma once

#include "device/block_device.h"
#include "tests/crash/poisoned_file.h"

#include <memory>
#include <string>

namespace uext4::crash {

class PoisoningDevice final : public BlockDevice {
public:
    explicit PoisoningDevice(std::shared_ptr<BlockDevice> base) : base_(std::move(base)) {}

    std::uint64_t size() const override { return base_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override { return base_->read(offset, out); }
    Result<void> write(std::uint64_t offset, ConstBytes in) override { return base_->write(offset, in); }
    Result<void> write_fua(std::uint64_t offset, ConstBytes in) override { return base_->write_fua(offset, in); }
    Result<void> flush() override { return base_->flush(); }
    // Only what does not hold the pattern yet is written.
    Result<void> discard(std::uint64_t offset, std::uint64_t length) override;
    bool read_only() const override { return base_->read_only(); }
    Result<void> read_from_medium(std::uint64_t offset, Bytes out) override {
        return base_->read_from_medium(offset, out);
    }
    std::string name() const override { return base_->name(); }

private:
    std::shared_ptr<BlockDevice> base_;
};

}  // namespace uext4::crash
