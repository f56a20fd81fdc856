#include "volume/freeze_gate.h"

namespace uext4 {

void FreezeGate::enter() {
    MutexLock guard(lock_);
    while (state_ != State::open) changed_.wait(lock_);
    ++inside_;
}

bool FreezeGate::try_enter() {
    MutexLock guard(lock_);
    if (state_ != State::open) return false;
    ++inside_;
    return true;
}

bool FreezeGate::enter_unless_frozen() {
    MutexLock guard(lock_);
    while (state_ == State::closed) changed_.wait(lock_);
    if (state_ == State::frozen) return false;
    ++inside_;
    return true;
}

void FreezeGate::leave() {
    MutexLock guard(lock_);
    if (--inside_ == 0 && state_ != State::open) changed_.notify_all();
}

void FreezeGate::close() {
    MutexLock guard(lock_);
    state_ = State::closed;
    while (inside_ > 0) changed_.wait(lock_);
}

void FreezeGate::all_is_durable() {
    MutexLock guard(lock_);
    state_ = State::frozen;
    changed_.notify_all();
}

void FreezeGate::open() {
    MutexLock guard(lock_);
    state_ = State::open;
    changed_.notify_all();
}

bool FreezeGate::closed() const {
    MutexLock guard(lock_);
    return state_ != State::open;
}

}  // namespace uext4
