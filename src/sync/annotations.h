// Clang's thread-safety attributes (-Wthread-safety); nothing for other compilers. Each macro exists with the UEXT4_
// prefix and, because they stand on most methods, without it.
#pragma once

#if defined(__clang__)
#define UEXT4_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define UEXT4_THREAD_ATTRIBUTE(x)
#endif

#define UEXT4_CAPABILITY(name) UEXT4_THREAD_ATTRIBUTE(capability(name))
#define UEXT4_SCOPED_CAPABILITY UEXT4_THREAD_ATTRIBUTE(scoped_lockable)
#define UEXT4_GUARDED_BY(x) UEXT4_THREAD_ATTRIBUTE(guarded_by(x))
#define UEXT4_PT_GUARDED_BY(x) UEXT4_THREAD_ATTRIBUTE(pt_guarded_by(x))
#define UEXT4_ACQUIRED_BEFORE(...) UEXT4_THREAD_ATTRIBUTE(acquired_before(__VA_ARGS__))
#define UEXT4_ACQUIRED_AFTER(...) UEXT4_THREAD_ATTRIBUTE(acquired_after(__VA_ARGS__))
#define UEXT4_REQUIRES(...) UEXT4_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define UEXT4_REQUIRES_SHARED(...) UEXT4_THREAD_ATTRIBUTE(requires_shared_capability(__VA_ARGS__))
#define UEXT4_ACQUIRE(...) UEXT4_THREAD_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define UEXT4_ACQUIRE_SHARED(...) UEXT4_THREAD_ATTRIBUTE(acquire_shared_capability(__VA_ARGS__))
#define UEXT4_RELEASE(...) UEXT4_THREAD_ATTRIBUTE(release_capability(__VA_ARGS__))
#define UEXT4_RELEASE_SHARED(...) UEXT4_THREAD_ATTRIBUTE(release_shared_capability(__VA_ARGS__))
#define UEXT4_RELEASE_GENERIC(...) UEXT4_THREAD_ATTRIBUTE(release_generic_capability(__VA_ARGS__))
#define UEXT4_TRY_ACQUIRE(...) UEXT4_THREAD_ATTRIBUTE(try_acquire_capability(__VA_ARGS__))
#define UEXT4_TRY_ACQUIRE_SHARED(...) UEXT4_THREAD_ATTRIBUTE(try_acquire_shared_capability(__VA_ARGS__))
#define UEXT4_EXCLUDES(...) UEXT4_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define UEXT4_ASSERT_CAPABILITY(x) UEXT4_THREAD_ATTRIBUTE(assert_capability(x))
#define UEXT4_ASSERT_SHARED_CAPABILITY(x) UEXT4_THREAD_ATTRIBUTE(assert_shared_capability(x))
#define UEXT4_RETURN_CAPABILITY(x) UEXT4_THREAD_ATTRIBUTE(lock_returned(x))
#define UEXT4_NO_THREAD_SAFETY_ANALYSIS UEXT4_THREAD_ATTRIBUTE(no_thread_safety_analysis)

#define CAPABILITY(name) UEXT4_CAPABILITY(name)
#define SCOPED_CAPABILITY UEXT4_SCOPED_CAPABILITY
#define GUARDED_BY(x) UEXT4_GUARDED_BY(x)
#define PT_GUARDED_BY(x) UEXT4_PT_GUARDED_BY(x)
#define ACQUIRED_BEFORE(...) UEXT4_ACQUIRED_BEFORE(__VA_ARGS__)
#define ACQUIRED_AFTER(...) UEXT4_ACQUIRED_AFTER(__VA_ARGS__)
#define REQUIRES(...) UEXT4_REQUIRES(__VA_ARGS__)
#define REQUIRES_SHARED(...) UEXT4_REQUIRES_SHARED(__VA_ARGS__)
#define ACQUIRE(...) UEXT4_ACQUIRE(__VA_ARGS__)
#define ACQUIRE_SHARED(...) UEXT4_ACQUIRE_SHARED(__VA_ARGS__)
#define RELEASE(...) UEXT4_RELEASE(__VA_ARGS__)
#define RELEASE_SHARED(...) UEXT4_RELEASE_SHARED(__VA_ARGS__)
#define RELEASE_GENERIC(...) UEXT4_RELEASE_GENERIC(__VA_ARGS__)
#define TRY_ACQUIRE(...) UEXT4_TRY_ACQUIRE(__VA_ARGS__)
#define TRY_ACQUIRE_SHARED(...) UEXT4_TRY_ACQUIRE_SHARED(__VA_ARGS__)
#define EXCLUDES(...) UEXT4_EXCLUDES(__VA_ARGS__)
#define ASSERT_CAPABILITY(x) UEXT4_ASSERT_CAPABILITY(x)
#define ASSERT_SHARED_CAPABILITY(x) UEXT4_ASSERT_SHARED_CAPABILITY(x)
#define RETURN_CAPABILITY(x) UEXT4_RETURN_CAPABILITY(x)
#define NO_THREAD_SAFETY_ANALYSIS UEXT4_NO_THREAD_SAFETY_ANALYSIS
