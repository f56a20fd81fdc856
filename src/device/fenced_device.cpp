#include "device/fenced_device.h"

namespace uext4 {

void FencedDevice::fence(const Error& why) {
    MutexLock guard(lock_);
    if (fenced_.load()) return;
    reason_ = why;
    fenced_.store(true);
}

Result<void> FencedDevice::check_not_fenced() const {
    if (!fenced_.load()) return {};
    MutexLock guard(lock_);
    return fail(reason_);
}

Result<void> FencedDevice::write(std::uint64_t offset, ConstBytes in) {
    TRY(check_not_fenced());
    return base().write(offset, in);
}

Result<void> FencedDevice::writev(std::uint64_t offset, std::span<const ConstBytes> parts) {
    TRY(check_not_fenced());
    return base().writev(offset, parts);
}

Result<void> FencedDevice::write_fua(std::uint64_t offset, ConstBytes in) {
    TRY(check_not_fenced());
    return base().write_fua(offset, in);
}

Result<void> FencedDevice::flush() {
    TRY(check_not_fenced());
    return base().flush();
}

Result<void> FencedDevice::discard(std::uint64_t offset, std::uint64_t length) {
    TRY(check_not_fenced());
    return base().discard(offset, length);
}

}  // namespace uext4
