// A device whose writes can be stopped for good, at any moment: another host has taken it over.
#pragma once

#include "device/forwarding_device.h"
#include "sync/mutex.h"

#include <atomic>

namespace uext4 {

class FencedDevice final : public ForwardingDevice {
public:
    explicit FencedDevice(std::shared_ptr<BlockDevice> base) : ForwardingDevice(std::move(base)) {}

    // Every write, flush and discard that begins after this fails with `why`.
    void fence(const Error& why);

    Result<void> write(std::uint64_t offset, ConstBytes in) override;
    Result<void> writev(std::uint64_t offset, std::span<const ConstBytes> parts) override;
    Result<void> write_fua(std::uint64_t offset, ConstBytes in) override;
    Result<void> flush() override;
    Result<void> discard(std::uint64_t offset, std::uint64_t length) override;

private:
    Result<void> check_not_fenced() const;

    std::atomic<bool> fenced_{false};
    mutable Mutex lock_{Rank::Leaf, "FencedDevice"};
    Error reason_{};
};

}  // namespace uext4
