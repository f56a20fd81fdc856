// Condition variables over Mutex. Wakeups may be spurious: wait in a loop, or pass the predicate.
#pragma once

#include "sync/mutex.h"

#include <chrono>
#include <condition_variable>
#include <cstdint>

namespace uext4 {

class CondVar {
public:
    explicit CondVar(const char* name = "condition") : name_(name) {}
    ~CondVar();
    CondVar(const CondVar&) = delete;
    CondVar& operator=(const CondVar&) = delete;

    // Releases the mutex while waiting. The caller holds nothing inner to the mutex and, unless the mutex is of rank
    // Device (a wait for a device request), nothing else of rank Journal, Device or Leaf.
    void wait(Mutex& mutex, SourceLocation where = SourceLocation::current()) UEXT4_REQUIRES(mutex) {
        wait(mutex, HeldResource(), where);
    }

    // The same where the condition stands for a lock: waits for what somebody holds (sync/resource_tracking.h, or with
    // a rank).
    void wait(Mutex& mutex, const HeldResource& wanted, SourceLocation where = SourceLocation::current())
        UEXT4_REQUIRES(mutex);

    // False if the time has passed without a notification. Virtual time under a scheduler.
    bool wait_for(Mutex& mutex, std::chrono::nanoseconds timeout, SourceLocation where = SourceLocation::current())
        UEXT4_REQUIRES(mutex);

    // Waits until the predicate, called with the mutex held, is true.
    template <class Predicate>
        requires requires(Predicate& p) { static_cast<bool>(p()); }
    void wait(Mutex& mutex, Predicate predicate, SourceLocation where = SourceLocation::current())
        UEXT4_REQUIRES(mutex) {
        while (!predicate()) wait(mutex, where);
    }

    // As above with a limit; the value of the predicate at the end.
    template <class Predicate>
        requires requires(Predicate& p) { static_cast<bool>(p()); }
    bool wait_for(Mutex& mutex, std::chrono::nanoseconds timeout, Predicate predicate,
                  SourceLocation where = SourceLocation::current()) UEXT4_REQUIRES(mutex) {
        const std::chrono::nanoseconds start = monotonic_now();
        while (!predicate()) {
            const std::chrono::nanoseconds passed = monotonic_now() - start;
            if (passed >= timeout || !wait_for(mutex, timeout - passed, where)) return predicate();
        }
        return true;
    }

    void notify_one(SourceLocation where = SourceLocation::current());
    void notify_all(SourceLocation where = SourceLocation::current());

private:
    bool wait_scheduled(Scheduler& s, Mutex& mutex, const HeldResource& wanted, const std::chrono::nanoseconds* timeout,
                        SourceLocation where);

    std::condition_variable native_;
    const char* name_;
};

}  // namespace uext4
