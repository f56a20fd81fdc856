// Locks that know their rank. Not recursive; given up by the thread that took them.
#pragma once

#include "sync/annotations.h"
#include "sync/lock_identity.h"
#include "sync/rank.h"
#include "sync/scheduler.h"

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <source_location>
#include <utility>

namespace uext4 {

using SourceLocation = std::source_location;

class UEXT4_CAPABILITY("mutex") Mutex : public LockIdentity {
public:
    // `order` is the key by which several of this rank are taken in ascending order; 0 for ranks of which a thread
    // holds one at a time. `name` must outlive the mutex.
    explicit Mutex(Rank rank, const char* name, std::uint64_t order = 0) : LockIdentity(rank, name, order) {}
    ~Mutex();
    Mutex(const Mutex&) = delete;
    Mutex& operator=(const Mutex&) = delete;

    void lock(SourceLocation where = SourceLocation::current()) UEXT4_ACQUIRE() { lock_ordered(order_, where); }

    // As lock(), with a key for this acquisition (Inode: the position among those taken, ancestors first).
    void lock_ordered(std::uint64_t order, SourceLocation where = SourceLocation::current())
        UEXT4_ACQUIRE() UEXT4_NO_THREAD_SAFETY_ANALYSIS {
        rank_checker::check_rank(rank_, this, name_, order, where);
        if (Scheduler* s = scheduler_here()) [[unlikely]]
            lock_scheduled(*s, where);
        else native_.lock();
        rank_checker::push_rank(rank_, holdable(), order, false, where);
    }

    // Never blocks, so it is exempt from the order; what is locked inside it is not.
    [[nodiscard]] bool try_lock(SourceLocation where = SourceLocation::current())
        UEXT4_TRY_ACQUIRE(true) UEXT4_NO_THREAD_SAFETY_ANALYSIS {
        if (Scheduler* s = scheduler_here()) [[unlikely]]
            s->point(Point::TryLock, this, name_, where);
        if (!native_.try_lock()) return false;
        rank_checker::push_rank(rank_, holdable(), order_, false, where);
        return true;
    }

    void unlock(SourceLocation where = SourceLocation::current()) UEXT4_RELEASE() UEXT4_NO_THREAD_SAFETY_ANALYSIS {
        rank_checker::pop_rank(rank_, this);
        native_.unlock();
        if (scheduler()) [[unlikely]]
            released(where);
    }

    // Aborts (in checking builds) unless the calling thread holds the mutex.
    void assert_held(SourceLocation where = SourceLocation::current()) const UEXT4_ASSERT_CAPABILITY(this);

    HeldResource holdable() const { return known_as(this); }

private:
    friend class CondVar;
    void lock_scheduled(Scheduler& s, SourceLocation where);
    void released(SourceLocation where);

    std::mutex native_;
};

// Many readers or one writer. A waiting writer keeps new readers out, so a reader must not take it again.
class UEXT4_CAPABILITY("shared mutex") SharedMutex : public LockIdentity {
public:
    explicit SharedMutex(Rank rank, const char* name, std::uint64_t order = 0);
    ~SharedMutex();
    SharedMutex(const SharedMutex&) = delete;
    SharedMutex& operator=(const SharedMutex&) = delete;

    void lock(SourceLocation where = SourceLocation::current()) UEXT4_ACQUIRE() { lock_ordered(order_, where); }
    void lock_ordered(std::uint64_t order, SourceLocation where = SourceLocation::current()) UEXT4_ACQUIRE();
    [[nodiscard]] bool try_lock(SourceLocation where = SourceLocation::current()) UEXT4_TRY_ACQUIRE(true) {
        return try_lock_ordered(order_, where);
    }
    [[nodiscard]] bool try_lock_ordered(std::uint64_t order, SourceLocation where = SourceLocation::current())
        UEXT4_TRY_ACQUIRE(true);
    void unlock(SourceLocation where = SourceLocation::current()) UEXT4_RELEASE();

    void lock_shared(SourceLocation where = SourceLocation::current()) UEXT4_ACQUIRE_SHARED() {
        lock_shared_ordered(order_, where);
    }
    void lock_shared_ordered(std::uint64_t order, SourceLocation where = SourceLocation::current())
        UEXT4_ACQUIRE_SHARED();
    [[nodiscard]] bool try_lock_shared(SourceLocation where = SourceLocation::current()) UEXT4_TRY_ACQUIRE_SHARED(true);
    void unlock_shared(SourceLocation where = SourceLocation::current()) UEXT4_RELEASE_SHARED();

    // Abort (in checking builds) unless the calling thread holds it exclusively, or in either way.
    void assert_held(SourceLocation where = SourceLocation::current()) const UEXT4_ASSERT_CAPABILITY(this);
    void assert_held_shared(SourceLocation where = SourceLocation::current()) const
        UEXT4_ASSERT_SHARED_CAPABILITY(this);

    HeldResource holdable() const { return known_as(this); }

private:
    void released(SourceLocation where);

    pthread_rwlock_t native_;
    std::atomic<std::uint32_t> scheduled_writers_{0};  // managed threads that wait to write
};

// Holds a Mutex for a scope; may be given up early and taken again.
class [[nodiscard]] UEXT4_SCOPED_CAPABILITY MutexLock {
public:
    explicit MutexLock(Mutex& mutex, SourceLocation where = SourceLocation::current()) UEXT4_ACQUIRE(mutex)
        : mutex_(mutex) {
        mutex_.lock(where);
    }
    ~MutexLock() UEXT4_RELEASE() {
        if (held_) mutex_.unlock(rank_checker::taken_at(&mutex_));
    }
    MutexLock(const MutexLock&) = delete;
    MutexLock& operator=(const MutexLock&) = delete;

    void unlock(SourceLocation where = SourceLocation::current()) UEXT4_RELEASE() {
        held_ = false;
        mutex_.unlock(where);
    }
    void lock(SourceLocation where = SourceLocation::current()) UEXT4_ACQUIRE() {
        mutex_.lock(where);
        held_ = true;
    }
    bool is_held() const { return held_; }

private:
    Mutex& mutex_;
    bool held_ = true;
};

class [[nodiscard]] UEXT4_SCOPED_CAPABILITY ReadLock {
public:
    explicit ReadLock(SharedMutex& mutex, SourceLocation where = SourceLocation::current()) UEXT4_ACQUIRE_SHARED(mutex)
        : mutex_(mutex) {
        mutex_.lock_shared(where);
    }
    ~ReadLock() UEXT4_RELEASE_GENERIC() {
        if (held_) mutex_.unlock_shared(rank_checker::taken_at(&mutex_));
    }
    ReadLock(const ReadLock&) = delete;
    ReadLock& operator=(const ReadLock&) = delete;

    void unlock(SourceLocation where = SourceLocation::current()) UEXT4_RELEASE_GENERIC() {
        held_ = false;
        mutex_.unlock_shared(where);
    }

private:
    SharedMutex& mutex_;
    bool held_ = true;
};

class [[nodiscard]] UEXT4_SCOPED_CAPABILITY WriteLock {
public:
    explicit WriteLock(SharedMutex& mutex, SourceLocation where = SourceLocation::current()) UEXT4_ACQUIRE(mutex)
        : mutex_(mutex) {
        mutex_.lock(where);
    }
    ~WriteLock() UEXT4_RELEASE() {
        if (held_) mutex_.unlock(rank_checker::taken_at(&mutex_));
    }
    WriteLock(const WriteLock&) = delete;
    WriteLock& operator=(const WriteLock&) = delete;

    void unlock(SourceLocation where = SourceLocation::current()) UEXT4_RELEASE() {
        held_ = false;
        mutex_.unlock(where);
    }

private:
    SharedMutex& mutex_;
    bool held_ = true;
};

// Movable owners, for locks that outlive a scope; clang's analysis does not follow them. May be empty. Stays with the
// thread that locked.
namespace detail {
template <class Lockable, bool Shared>
class [[nodiscard]] MovableLock {
public:
    MovableLock() = default;
    explicit MovableLock(Lockable& lockable,
                         SourceLocation where = SourceLocation::current()) UEXT4_NO_THREAD_SAFETY_ANALYSIS
        : lockable_(&lockable) {
        if constexpr (Shared) lockable.lock_shared(where);
        else lockable.lock(where);
    }
    MovableLock(Lockable& lockable, std::adopt_lock_t) : lockable_(&lockable) {}
    MovableLock(MovableLock&& other) noexcept : lockable_(std::exchange(other.lockable_, nullptr)) {}
    MovableLock& operator=(MovableLock&& other) noexcept {
        if (this != &other) {
            reset_at_end();
            lockable_ = std::exchange(other.lockable_, nullptr);
        }
        return *this;
    }
    ~MovableLock() { reset_at_end(); }

    // Empty if the lock is not free.
    static MovableLock try_lock(Lockable& lockable,
                                SourceLocation where = SourceLocation::current()) UEXT4_NO_THREAD_SAFETY_ANALYSIS {
        bool got;
        if constexpr (Shared) got = lockable.try_lock_shared(where);
        else got = lockable.try_lock(where);
        return got ? MovableLock(lockable, std::adopt_lock) : MovableLock();
    }
    // With an order key for this acquisition.
    static MovableLock lock_ordered(Lockable& lockable, std::uint64_t order,
                                    SourceLocation where = SourceLocation::current()) UEXT4_NO_THREAD_SAFETY_ANALYSIS {
        if constexpr (Shared) lockable.lock_shared_ordered(order, where);
        else lockable.lock_ordered(order, where);
        return MovableLock(lockable, std::adopt_lock);
    }

    static MovableLock try_lock_ordered(Lockable& lockable, std::uint64_t order,
                                        SourceLocation where = SourceLocation::current())
        UEXT4_NO_THREAD_SAFETY_ANALYSIS {
        return lockable.try_lock_ordered(order, where) ? MovableLock(lockable, std::adopt_lock) : MovableLock();
    }

    // Unlocks if it holds something.
    void reset(SourceLocation where = SourceLocation::current()) UEXT4_NO_THREAD_SAFETY_ANALYSIS {
        if (Lockable* lockable = std::exchange(lockable_, nullptr)) {
            if constexpr (Shared) lockable->unlock_shared(where);
            else lockable->unlock(where);
        }
    }
    void unlock(SourceLocation where = SourceLocation::current()) { reset(where); }

    // Gives the duty to unlock to the caller.
    Lockable* release() { return std::exchange(lockable_, nullptr); }
    bool owns() const { return lockable_ != nullptr; }
    explicit operator bool() const { return owns(); }

private:
    void reset_at_end() {
        if (lockable_) reset(rank_checker::taken_at(lockable_));
    }
    Lockable* lockable_ = nullptr;
};
}  // namespace detail

using UniqueLock = detail::MovableLock<Mutex, false>;
using UniqueReadLock = detail::MovableLock<SharedMutex, true>;
using UniqueWriteLock = detail::MovableLock<SharedMutex, false>;

}  // namespace uext4
