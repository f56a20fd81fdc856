#include "sync/condition.h"

namespace uext4 {

namespace {

// A limit so large that adding it to a clock would overflow is no limit.
constexpr std::chrono::nanoseconds longest_wait = std::chrono::hours(24 * 365);

}  // namespace

CondVar::~CondVar() {
    if (Scheduler* s = scheduler()) [[unlikely]]
        s->forget(this);
}

void CondVar::wait(Mutex& mutex, const HeldResource& wanted, SourceLocation where) UEXT4_NO_THREAD_SAFETY_ANALYSIS {
    if (Scheduler* s = scheduler_here()) [[unlikely]] {
        wait_scheduled(*s, mutex, wanted, nullptr, where);
        return;
    }
    const std::uint64_t order = rank_checker::pop_rank(mutex.rank_, &mutex);
    rank_checker::check_wait(mutex.rank_, &mutex, mutex.name_, where);
    rank_checker::check_rank(mutex.rank_, &mutex, mutex.name_, order, where);
    // A thread of a scheduler may wait for this mutex too.
    if (Scheduler* s = scheduler()) [[unlikely]]
        s->wake(&mutex);
    std::unique_lock<std::mutex> native(mutex.native_, std::adopt_lock);
    native_.wait(native);
    native.release();
    rank_checker::push_rank(mutex.rank_, mutex.holdable(), order, false, where);
}

bool CondVar::wait_for(Mutex& mutex, std::chrono::nanoseconds timeout,
                       SourceLocation where) UEXT4_NO_THREAD_SAFETY_ANALYSIS {
    if (timeout < std::chrono::nanoseconds::zero()) timeout = std::chrono::nanoseconds::zero();
    if (timeout > longest_wait) timeout = longest_wait;
    if (Scheduler* s = scheduler_here()) [[unlikely]]
        return wait_scheduled(*s, mutex, {}, &timeout, where);
    const std::uint64_t order = rank_checker::pop_rank(mutex.rank_, &mutex);
    rank_checker::check_wait(mutex.rank_, &mutex, mutex.name_, where);
    rank_checker::check_rank(mutex.rank_, &mutex, mutex.name_, order, where);
    if (Scheduler* s = scheduler()) [[unlikely]]
        s->wake(&mutex);
    std::unique_lock<std::mutex> native(mutex.native_, std::adopt_lock);
    const bool notified = native_.wait_for(native, timeout) == std::cv_status::no_timeout;
    native.release();
    rank_checker::push_rank(mutex.rank_, mutex.holdable(), order, false, where);
    return notified;
}

// Between the release of the mutex and the block no other managed thread runs, so no notification is missed; that is
// why the release is not a scheduling point.
bool CondVar::wait_scheduled(Scheduler& s, Mutex& mutex, const HeldResource& wanted,
                             const std::chrono::nanoseconds* timeout,
                             SourceLocation where) UEXT4_NO_THREAD_SAFETY_ANALYSIS {
    s.point(Point::Wait, this, name_, where);
    const std::uint64_t order = rank_checker::pop_rank(mutex.rank_, &mutex);
    rank_checker::check_wait(mutex.rank_, &mutex, mutex.name_, where);
    rank_checker::check_rank(mutex.rank_, &mutex, mutex.name_, order, where);
    mutex.native_.unlock();
    s.wake(&mutex);
    bool notified = true;
    if (timeout) notified = s.wait_timed(this, name_, wanted, *timeout, where);
    else s.block(this, name_, wanted, where);
    while (!mutex.native_.try_lock()) s.block(&mutex, mutex.name_, mutex.holdable(), where);
    rank_checker::push_rank(mutex.rank_, mutex.holdable(), order, false, where);
    return notified;
}

// Both kinds of waiters are told: threads of a scheduler, and those it does not manage.
void CondVar::notify_one(SourceLocation where) {
    native_.notify_one();
    Scheduler* s = scheduler();
    if (!s) [[likely]]
        return;
    s->wake_one(this);
    if (s->manages_this_thread()) s->point(Point::Notify, this, name_, where);
}

void CondVar::notify_all(SourceLocation where) {
    native_.notify_all();
    Scheduler* s = scheduler();
    if (!s) [[likely]]
        return;
    s->wake(this);
    if (s->manages_this_thread()) s->point(Point::Notify, this, name_, where);
}

}  // namespace uext4
