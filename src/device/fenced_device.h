// A device whose writes can be stopped for good, at any moment: another host has taken it over.
#pragma once

#include "device/block_device.h"
#include "sync/mutex.h"

#include <atomic>
#include <memory>

namespace uext4 {

class FencedDevice final : public BlockDevice {
public:
    explicit FencedDevice(std::shared_ptr<BlockDevice> base) : base_(std::move(base)) {}

    // Every write, flush and discard that begins after this fails with `why`.
    void close(const Error& why);

    std::uint64_t size() const override { return base_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override { return base_->read(offset, out); }
    Result<void> readv(std::uint64_t offset, std::span<const Bytes> parts) override {
        return base_->readv(offset, parts);
    }
    Result<void> read_from_medium(std::uint64_t offset, Bytes out) override {
        return base_->read_from_medium(offset, out);
    }
    Result<void> write(std::uint64_t offset, ConstBytes in) override;
    Result<void> writev(std::uint64_t offset, std::span<const ConstBytes> parts) override;
    Result<void> write_fua(std::uint64_t offset, ConstBytes in) override;
    Result<void> flush() override;
    Result<void> discard(std::uint64_t offset, std::uint64_t length) override;
    bool has_lost() const override { return base_->has_lost(); }
    bool read_only() const override { return base_->read_only(); }
    std::string name() const override { return base_->name(); }

private:
    Result<void> open() const;

    std::shared_ptr<BlockDevice> base_;
    std::atomic<bool> closed_{false};
    mutable Mutex lock_{Rank::Leaf, "FencedDevice"};
    Error why_{};
};

}  // namespace uext4
