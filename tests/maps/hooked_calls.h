// System calls of this program that a test may look into: hooked_calls.cpp stands before the library's.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>

namespace uext4 {

// Called in place of the system calls, in the thread that makes them: once, and not from within one. Others may make
// them while it is set or cleared.
template <class... Args>
class Hook {
public:
    void operator=(std::function<void(Args...)> function) {
        const std::lock_guard guard(lock_);
        function_ = std::move(function);
        is_set_.store(true);
    }
    // Nobody is in it any more when this returns.
    void clear() {
        is_set_.store(false);
        const std::lock_guard guard(lock_);
    }
    bool is_set() const { return is_set_.load(); }
    // It was called, and has returned.
    bool is_over() {
        const bool called = !is_set();
        const std::lock_guard guard(lock_);
        return called;
    }
    void call(Args... args) {
        if (inside || !is_set()) return;
        const std::lock_guard guard(lock_);
        if (!is_set_.exchange(false)) return;
        inside = true;
        function_(args...);
        inside = false;
    }

private:
    static inline thread_local bool inside = false;
    std::mutex lock_;
    std::atomic<bool> is_set_{false};
    std::function<void(Args...)> function_;
};

inline std::atomic<std::uintptr_t> marker{0};
inline Hook<> at_marker;                                      // what is mapped has been looked at up to there
inline Hook<std::uintptr_t, std::uintptr_t, bool&> at_watch;  // from where to where; whether it succeeds
inline Hook<> at_keep_out;
inline Hook<> at_unwatch;
inline Hook<> at_munmap;                         // its addresses are free
inline Hook<> at_event;                          // it waits to be read
inline std::atomic<int> event_of{-1};            // that descriptor's events alone
inline std::atomic<bool> answers_queries{true};  // else as on an older kernel, where what is mapped is read as a text
inline std::atomic<bool> has_room{true};         // else there is no memory to tell what is mapped
inline std::atomic<int> looks_without{0};        // there is again after so many more looks; 0: not by that

}  // namespace uext4
