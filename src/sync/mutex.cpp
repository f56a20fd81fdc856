#include "sync/mutex.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>

namespace uext4 {

namespace {

[[noreturn]] void native_failure(const char* what, const char* name, int code) {
    std::fputs(fmt::format("lock \"{}\": {} failed with errno {}\n", name, what, code).c_str(), stderr);
    std::abort();
}

#if UEXT4_CHECKS
[[noreturn]] void not_held(const char* name, const char* how, const SourceLocation& where) {
    std::fputs(fmt::format("lock \"{}\" is not held{} at {}:{} ({})\n{}", name, how, where.file_name(), where.line(),
                           where.function_name(), held_ranks_text())
                   .c_str(),
               stderr);
    std::abort();
}
#endif

}  // namespace

Mutex::~Mutex() {
    if (Scheduler* s = scheduler()) [[unlikely]]
        s->forget(this);
}

void Mutex::lock_scheduled(Scheduler& s, SourceLocation where) {
    s.point(Point::Lock, this, name_, where);
    while (!native_.try_lock()) s.block(this, name_, holdable(), where);
}

void Mutex::released(SourceLocation where) {
    Scheduler* s = scheduler();
    if (!s) return;
    s->wake(this);
    if (s->manages_this_thread()) s->point(Point::Unlock, this, name_, where);
}

void Mutex::assert_held([[maybe_unused]] SourceLocation where) const {
#if UEXT4_CHECKS
    if (!rank_checker::is_held(this)) not_held(name_, "", where);
#endif
}

SharedMutex::SharedMutex(Rank rank, const char* name, std::uint64_t order) : LockIdentity(rank, name, order) {
    // The default kind lets a stream of readers starve a writer.
    pthread_rwlockattr_t attributes;
    int code = pthread_rwlockattr_init(&attributes);
    if (code == 0) code = pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    if (code == 0) code = pthread_rwlock_init(&native_, &attributes);
    if (code != 0) native_failure("initialisation", name, code);
    pthread_rwlockattr_destroy(&attributes);
}

SharedMutex::~SharedMutex() {
    pthread_rwlock_destroy(&native_);
    if (Scheduler* s = scheduler()) [[unlikely]]
        s->forget(this);
}

void SharedMutex::lock_ordered(std::uint64_t order, SourceLocation where) UEXT4_NO_THREAD_SAFETY_ANALYSIS {
    rank_checker::check_rank(rank_, this, name_, order, where);
    if (Scheduler* s = scheduler_here()) [[unlikely]] {
        s->point(Point::Lock, this, name_, where);
        // Announced, so that readers give way exactly as they do to a writer that waits in the native lock.
        scheduled_writers_.fetch_add(1);
        while (pthread_rwlock_trywrlock(&native_) != 0) s->block(this, name_, holdable(), where);
        scheduled_writers_.fetch_sub(1);
    } else if (const int code = pthread_rwlock_wrlock(&native_); code != 0) [[unlikely]] {
        native_failure("locking", name_, code);
    }
    rank_checker::push_rank(rank_, holdable(), order, false, where);
}

bool SharedMutex::try_lock_ordered(std::uint64_t order, SourceLocation where) UEXT4_NO_THREAD_SAFETY_ANALYSIS {
    if (Scheduler* s = scheduler_here()) [[unlikely]]
        s->point(Point::TryLock, this, name_, where);
    if (pthread_rwlock_trywrlock(&native_) != 0) return false;
    rank_checker::push_rank(rank_, holdable(), order, false, where);
    return true;
}

void SharedMutex::unlock(SourceLocation where) UEXT4_NO_THREAD_SAFETY_ANALYSIS {
    rank_checker::pop_rank(rank_, this);
    pthread_rwlock_unlock(&native_);
    if (scheduler()) [[unlikely]]
        released(where);
}

void SharedMutex::lock_shared_ordered(std::uint64_t order, SourceLocation where) UEXT4_NO_THREAD_SAFETY_ANALYSIS {
    rank_checker::check_rank(rank_, this, name_, order, where);
    if (Scheduler* s = scheduler_here()) [[unlikely]] {
        s->point(Point::Lock, this, name_, where);
        while (scheduled_writers_.load() != 0 || pthread_rwlock_tryrdlock(&native_) != 0)
            s->block(this, name_, holdable(), where);
    } else if (const int code = pthread_rwlock_rdlock(&native_); code != 0) [[unlikely]] {
        native_failure("locking shared", name_, code);
    }
    rank_checker::push_rank(rank_, holdable(), order, true, where);
}

bool SharedMutex::try_lock_shared(SourceLocation where) UEXT4_NO_THREAD_SAFETY_ANALYSIS {
    if (Scheduler* s = scheduler_here()) [[unlikely]]
        s->point(Point::TryLock, this, name_, where);
    if (scheduled_writers_.load() != 0 || pthread_rwlock_tryrdlock(&native_) != 0) return false;
    rank_checker::push_rank(rank_, holdable(), order_, true, where);
    return true;
}

void SharedMutex::unlock_shared(SourceLocation where) UEXT4_NO_THREAD_SAFETY_ANALYSIS {
    rank_checker::pop_rank(rank_, this);
    pthread_rwlock_unlock(&native_);
    if (scheduler()) [[unlikely]]
        released(where);
}

void SharedMutex::released(SourceLocation where) {
    Scheduler* s = scheduler();
    if (!s) return;
    s->wake(this);
    if (s->manages_this_thread()) s->point(Point::Unlock, this, name_, where);
}

void SharedMutex::assert_held([[maybe_unused]] SourceLocation where) const {
#if UEXT4_CHECKS
    if (!rank_checker::is_held_exclusive(this)) not_held(name_, " exclusively", where);
#endif
}

void SharedMutex::assert_held_shared([[maybe_unused]] SourceLocation where) const {
#if UEXT4_CHECKS
    if (!rank_checker::is_held(this)) not_held(name_, "", where);
#endif
}

}  // namespace uext4
