#include "device/flush_order_device.h"

#include "base/seam.h"
#include "sync/resource_tracking.h"

#include <cerrno>

namespace uext4 {

bool FlushOrderDevice::enter(std::uint64_t seen, SourceLocation where) {
    if (!try_enter()) {
        MutexLock guard(lock_, where);
        waiting_.fetch_add(1);
        bool entered = false;
        while (over_.load() <= seen && !(entered = try_enter()))
            changed_.wait(lock_, {&busy_, "flush of the device"}, where);
        waiting_.fetch_sub(1);
        // (A flush may have ended between the two looks: who has entered has to leave again.)
        if (!entered) return false;
    }
    note_held({&busy_, "flush of the device"}, where);
    return true;
}

void FlushOrderDevice::leave() {
    note_released(&busy_);
    busy_.store(false);
    // Who comes to wait now finds it free; who waits already is counted.
    if (waiting_.load() == 0) return;
    MutexLock guard(lock_);
    changed_.notify_all();
}

Result<void> FlushOrderDevice::flush() {
    // One that begins from now on has everything that was written before this call.
    const std::uint64_t seen = UEXT4_SEAM(flushes_begin_later) ? begun_.load() : over_.load();
    if (!enter(seen, SourceLocation::current())) {
        MutexLock guard(lock_);
        return failed_ > seen ? Result<void>(fail(failure_)) : Result<void>();
    }
    const Turn turn{*this};
    const std::uint64_t number = begun_.fetch_add(1) + 1;
    Result<void> flushed = base().flush();
    if (!flushed) {
        lost_.store(true);
        MutexLock guard(lock_);
        failed_ = number;
        failure_ = flushed.error();
    }
    over_.store(number);
    return flushed;
}

Result<void> FlushOrderDevice::write_fua(std::uint64_t offset, ConstBytes in) {
    // No flush covers what is still to be written.
    constexpr std::uint64_t never = ~std::uint64_t{0};
    (void)enter(never, SourceLocation::current());
    const Turn turn{*this};
    Result<void> written = base().write_fua(offset, in);
    if (!written) lost_.store(true);
    return written;
}

Result<void> flush_completed_writes(BlockDevice& device) {
    TRY(device.flush());
    if (UEXT4_SEAM(flushes_ask_for_others) && device.has_lost_writes())
        return fail(EIO, "{}: what was written may be gone: an earlier flush failed", device.name());
    return {};
}

}  // namespace uext4
