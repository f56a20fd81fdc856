// The hook by which a test runs the real code one thread at a time. In normal life there is no scheduler and each
// primitive of this folder pays one predictable branch.
//
// Contract. While a scheduler is set, at most one of the threads it manages runs; every other one is inside one of the
// functions below. A primitive changes its state by operations that never block (try_lock), and when it cannot go on
// calls block(); whoever changes the state calls wake() on the same resource. Because only one managed thread runs,
// nothing can come between a failed attempt and block(), so no wakeup is lost. wake() never switches threads, block()
// and point() may. A wakeup may be spurious: callers loop.
//
// Threads that the scheduler does not manage (of a library, say) use the native primitives; their wake() and notify
// calls still reach the scheduler, which must accept wake() from any thread.
#pragma once

#include "sync/held_resource.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <source_location>
#include <string>

namespace uext4 {

// Points at which another thread may be chosen although this one could go on.
enum class Point : std::uint8_t {
    Lock,        // before a lock is attempted
    TryLock,     // before a lock is tried
    Unlock,      // after a lock was released
    Wait,        // before a condition is waited for (its mutex still held)
    Notify,      // after a condition was notified
    Spawn,       // after a thread was created
    Yield,       // this_thread::yield
    IoStart,     // before a device request
    IoComplete,  // after a device request
    Fault,       // a page fault is delivered, or served
    Access,      // a load or store of mapped memory
    Custom,
};
const char* point_name(Point kind);

class Scheduler {
public:
    virtual ~Scheduler() = default;

    // Whether the calling thread is one that this scheduler runs.
    virtual bool manages_this_thread() const = 0;

    // Another thread may be chosen here.
    virtual void point(Point kind, const void* resource, const char* what, std::source_location where) = 0;

    // The calling thread cannot go on until wake(resource). Returns once it has been woken and chosen. `wanted` is what
    // it waits to be given up, for reports; without an address where it waits for a signal.
    virtual void block(const void* resource, const char* what, const HeldResource& wanted,
                       std::source_location where) = 0;

    // As block(), but gives up when `timeout` of virtual time has passed: then false. Virtual time advances only when
    // nothing else can run, or as the scheduler decides.
    virtual bool wait_timed(const void* resource, const char* what, const HeldResource& wanted,
                            std::chrono::nanoseconds timeout, std::source_location where) = 0;

    // Makes all threads that are blocked on the resource runnable. Any thread may call; never switches.
    virtual void wake(const void* resource) = 0;

    // Makes one of them runnable: the scheduler's choice.
    virtual void wake_one(const void* resource) = 0;

    // Virtual time.
    virtual std::chrono::nanoseconds now() const = 0;

    // Life of a thread, identified by a pointer that is unique while it lives. `thread_created` is called by the
    // parent before the thread exists (so that identities do not depend on timing), `thread_started` by the thread
    // itself before its body (returns when it is chosen), `thread_exiting` as the last thing it does under the
    // scheduler (returns at once; another thread is chosen). `thread_not_created` takes thread_created back.
    virtual void thread_created(const void* thread, const std::string& name) = 0;
    virtual void thread_not_created(const void* thread) = 0;
    virtual void thread_started(const void* thread) = 0;
    virtual void thread_exiting(const void* thread) = 0;

    // What sync/resource_tracking.h tells. Never switches. Optional.
    virtual void held(const HeldResource& /*what*/, std::source_location /*where*/) {}
    virtual void released(const void* /*address*/) {}

    // An address is about to be reused by another object: forget what is known of the resource. Optional.
    virtual void forget(const void* /*resource*/) {}
};

namespace detail {
inline constinit std::atomic<Scheduler*> current_scheduler{nullptr};
}

// The scheduler in force, or null.
inline Scheduler* scheduler() { return detail::current_scheduler.load(std::memory_order_acquire); }

// Called while no thread but the caller uses this folder's primitives. Null goes back to normal life.
inline void set_scheduler(Scheduler* scheduler) {
    detail::current_scheduler.store(scheduler, std::memory_order_release);
}

// The scheduler if it runs the calling thread, else null: what the primitives ask.
inline Scheduler* scheduler_here() {
    Scheduler* s = scheduler();
    if (!s) [[likely]]
        return nullptr;
    return s->manages_this_thread() ? s : nullptr;
}

// A place where the explorer may switch threads: device requests, faults, mapped accesses.
inline void schedule_point(Point kind, const char* what, const void* resource = nullptr,
                           std::source_location where = std::source_location::current()) {
    if (Scheduler* s = scheduler_here()) [[unlikely]]
        s->point(kind, resource, what, where);
}

// Time since some fixed moment: the scheduler's for threads that it runs, else CLOCK_MONOTONIC's.
std::chrono::nanoseconds monotonic_now();

}  // namespace uext4
