// A device to which, at times, nobody may write.
#pragma once

#include "device/block_device.h"

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>

namespace uext4::explore {

class WatchedDevice final : public BlockDevice {
public:
    // `met` is told of each write or discard that is under way while they are forbidden.
    WatchedDevice(std::shared_ptr<BlockDevice> base, std::function<void(const std::string&)> met)
        : base_(std::move(base)), met_(std::move(met)) {}

    void forbid_writes(bool on) { forbidden_.store(on); }

    std::uint64_t size() const override { return base_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override { return base_->read(offset, out); }
    Result<void> write(std::uint64_t offset, ConstBytes in) override {
        return watched("write", offset, in.size(), [&] { return base_->write(offset, in); });
    }
    Result<void> write_fua(std::uint64_t offset, ConstBytes in) override {
        return watched("durable write", offset, in.size(), [&] { return base_->write_fua(offset, in); });
    }
    Result<void> flush() override { return base_->flush(); }
    Result<void> discard(std::uint64_t offset, std::uint64_t length) override {
        return watched("discard", offset, length, [&] { return base_->discard(offset, length); });
    }
    bool read_only() const override { return base_->read_only(); }
    std::string name() const override { return base_->name(); }

private:
    template <class Request>
    Result<void> watched(const char* what, std::uint64_t offset, std::uint64_t length, Request request) {
        tell(what, offset, length);
        Result<void> done = request();
        tell(what, offset, length);  // it may have been forbidden meanwhile
        return done;
    }
    void tell(const char* what, std::uint64_t offset, std::uint64_t length) {
        if (forbidden_.load()) met_(fmt::format("a {} of {} bytes at {}", what, length, offset));
    }

    std::shared_ptr<BlockDevice> base_;
    std::function<void(const std::string&)> met_;
    std::atomic<bool> forbidden_{false};
};

}  // namespace uext4::explore
