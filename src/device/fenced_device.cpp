#include "device/fenced_device.h"

namespace uext4 {

void FencedDevice::close(const Error& why) {
    MutexLock guard(lock_);
    if (closed_.load()) return;
    why_ = why;
    closed_.store(true);
}

Result<void> FencedDevice::open() const {
    if (!closed_.load()) return {};
    MutexLock guard(lock_);
    return fail(why_);
}

Result<void> FencedDevice::write(std::uint64_t offset, ConstBytes in) {
    TRY(open());
    return base().write(offset, in);
}

Result<void> FencedDevice::writev(std::uint64_t offset, std::span<const ConstBytes> parts) {
    TRY(open());
    return base().writev(offset, parts);
}

Result<void> FencedDevice::write_fua(std::uint64_t offset, ConstBytes in) {
    TRY(open());
    return base().write_fua(offset, in);
}

Result<void> FencedDevice::flush() {
    TRY(open());
    return base().flush();
}

Result<void> FencedDevice::discard(std::uint64_t offset, std::uint64_t length) {
    TRY(open());
    return base().discard(offset, length);
}

}  // namespace uext4
