// A device before another one, to which everything goes that a derived class does not take up.
#pragma once

#include "device/block_device.h"

#include <memory>

namespace uext4 {

class ForwardingDevice : public BlockDevice {
public:
    std::uint64_t size() const override { return base_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override { return base_->read(offset, out); }
    Result<void> readv(std::uint64_t offset, std::span<const Bytes> parts) override {
        return base_->readv(offset, parts);
    }
    Result<void> read_from_medium(std::uint64_t offset, Bytes out) override {
        return base_->read_from_medium(offset, out);
    }
    Result<void> write(std::uint64_t offset, ConstBytes in) override { return base_->write(offset, in); }
    Result<void> writev(std::uint64_t offset, std::span<const ConstBytes> parts) override {
        return base_->writev(offset, parts);
    }
    Result<void> write_fua(std::uint64_t offset, ConstBytes in) override { return base_->write_fua(offset, in); }
    Result<void> flush() override { return base_->flush(); }
    Result<void> discard(std::uint64_t offset, std::uint64_t length) override { return base_->discard(offset, length); }
    bool has_lost_writes() const override { return base_->has_lost_writes(); }
    bool read_only() const override { return base_->read_only(); }
    void request_lease() override { base_->request_lease(); }
    std::string name() const override { return base_->name(); }

protected:
    explicit ForwardingDevice(std::shared_ptr<BlockDevice> base) : base_(std::move(base)) {}
    BlockDevice& base() const { return *base_; }

private:
    std::shared_ptr<BlockDevice> base_;
};

}  // namespace uext4
