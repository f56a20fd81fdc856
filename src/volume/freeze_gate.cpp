#include "volume/freeze_gate.h"

#include "sync/resource_tracking.h"

#include <utility>

namespace uext4 {

void FreezeGate::enter(SourceLocation where) {
    rank_checker::check_rank(Rank::Freeze, this, "freeze gate", 0, where);
    MutexLock guard(lock_, where);
    while (state_ != State::open) changed_.wait(lock_, opening_resource(), where);
    count_entry(0, where);
}

void FreezeGate::enter_inner(SourceLocation where) {
    rank_checker::check_rank(Rank::Freeze, this, "freeze gate", 1, where);
    MutexLock guard(lock_, where);
    while (state_ == State::sealed || state_ == State::frozen) changed_.wait(lock_, opening_resource(), where);
    count_entry(1, where);
}

bool FreezeGate::try_enter(SourceLocation where) {
    MutexLock guard(lock_, where);
    if (state_ != State::open) return false;
    count_entry(0, where);
    return true;
}

bool FreezeGate::enter_unless_frozen(SourceLocation where) {
    rank_checker::check_rank(Rank::Freeze, this, "freeze gate", 0, where);
    MutexLock guard(lock_, where);
    while (state_ == State::closed || state_ == State::sealed) changed_.wait(lock_, opening_resource(), where);
    if (state_ == State::frozen) return false;
    count_entry(0, where);
    return true;
}

void FreezeGate::count_entry(std::uint64_t order, SourceLocation where) {
    rank_checker::push_rank(Rank::Freeze, entries_resource(), order, false, where);
    ++inside_;
    if (std::exchange(activity_awaited_, false)) [[unlikely]]
        entered_.notify_all(where);
}

void FreezeGate::stop_waiting_for_activity() {
    MutexLock guard(lock_);
    activity_wait_stopped_ = true;
    activity_awaited_ = false;
    entered_.notify_all();
}

void FreezeGate::leave() {
    const SourceLocation where = rank_checker::taken_at(this);
    rank_checker::pop_rank(Rank::Freeze, this);
    MutexLock guard(lock_, where);
    if (--inside_ == 0 && state_ != State::open) changed_.notify_all(where);
}

void FreezeGate::close(SourceLocation where) {
    MutexLock guard(lock_, where);
    note_held(opening_resource(), where);
    state_ = State::closed;
    while (inside_ > 0) changed_.wait(lock_, entries_resource(), where);
}

void FreezeGate::close_inner(SourceLocation where) {
    MutexLock guard(lock_, where);
    state_ = State::sealed;
    while (inside_ > 0) changed_.wait(lock_, entries_resource(), where);
}

void FreezeGate::set_frozen() {
    MutexLock guard(lock_);
    state_ = State::frozen;
    changed_.notify_all();
}

void FreezeGate::open() {
    MutexLock guard(lock_);
    note_released(&changed_);
    state_ = State::open;
    changed_.notify_all();
}

bool FreezeGate::is_closed() const {
    MutexLock guard(lock_);
    return state_ != State::open;
}

}  // namespace uext4
