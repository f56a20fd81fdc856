#include "volume/freeze_gate.h"

namespace uext4 {

void FreezeGate::enter() {
    MutexLock guard(lock_);
    while (closers_ > 0) changed_.wait(lock_);
    ++inside_;
}

bool FreezeGate::try_enter() {
    MutexLock guard(lock_);
    if (closers_ > 0) return false;
    ++inside_;
    return true;
}

void FreezeGate::leave() {
    MutexLock guard(lock_);
    if (--inside_ == 0 && closers_ > 0) changed_.notify_all();
}

void FreezeGate::close() {
    MutexLock guard(lock_);
    ++closers_;
    while (inside_ > 0) changed_.wait(lock_);
}

void FreezeGate::open() {
    MutexLock guard(lock_);
    --closers_;
    changed_.notify_all();
}

bool FreezeGate::closed() const {
    MutexLock guard(lock_);
    return closers_ > 0;
}

}  // namespace uext4
