#include "volume/freeze_gate.h"

#include <utility>

namespace uext4 {

void FreezeGate::enter() {
    MutexLock guard(lock_);
    while (state_ != State::open) changed_.wait(lock_);
    come_in();
}

void FreezeGate::enter_inner() {
    MutexLock guard(lock_);
    while (state_ == State::sealed || state_ == State::frozen) changed_.wait(lock_);
    come_in();
}

bool FreezeGate::try_enter() {
    MutexLock guard(lock_);
    if (state_ != State::open) return false;
    come_in();
    return true;
}

bool FreezeGate::enter_unless_frozen() {
    MutexLock guard(lock_);
    while (state_ == State::closed || state_ == State::sealed) changed_.wait(lock_);
    if (state_ == State::frozen) return false;
    come_in();
    return true;
}

void FreezeGate::come_in() {
    ++inside_;
    if (std::exchange(watched_, false)) [[unlikely]]
        entered_.notify_all();
}

void FreezeGate::end_watch() {
    MutexLock guard(lock_);
    watch_ended_ = true;
    watched_ = false;
    entered_.notify_all();
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

void FreezeGate::seal() {
    MutexLock guard(lock_);
    state_ = State::sealed;
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
