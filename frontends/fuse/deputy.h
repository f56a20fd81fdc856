// Takes the reading thread's place while the kernel holds that up in an answer.
//
// What the kernel does when it gets an answer may wait for another one: it locks the pages of a direct read's buffer,
// whose holder may wait for a write of them; it closes a file that was let go with a direct request under way, and
// writes back what it holds of it. The thread that would answer that write is inside of writev(2) then. So another one
// goes on until it comes back.
#pragma once

#include "base/result.h"
#include "sync/thread.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>

namespace uext4::fuse {

class Deputy {
public:
    Deputy() = default;
    ~Deputy() { finish(); }
    Deputy(const Deputy&) = delete;

    // `stand_in`: works on requests until wanted_back(), or until there is nothing more to do. On the deputy's thread.
    Result<void> start(std::function<void()> stand_in);
    // The reading thread's, around each answer. After back() the place is its own: what the deputy did happened before.
    void leave();
    // Should the deputy wait for a request that somebody else has got, it is interrupted (interrupting_signal).
    void back();
    // The deputy's, between two requests.
    bool wanted_back() const { return wanted_back_.load(); }
    void finish();

private:
    void run();
    bool watch(std::unique_lock<std::mutex>& guard);
    void take_place(std::unique_lock<std::mutex>& guard, std::uint64_t turn);

    static constexpr std::uint64_t taken = std::uint64_t{1} << 63;
    // Even: the reading thread works, or waits for requests. Odd: it is in an answer; and `taken`: the deputy works.
    std::atomic<std::uint64_t> turn_{0};
    std::atomic<bool> watching_{false}, wanted_back_{false};
    std::function<void()> stand_in_;
    std::mutex lock_;
    std::condition_variable changed_;
    bool in_place_ = false, ending_ = false;  // lock_
    pthread_t own_{};                         // that of the deputy; lock_
    std::optional<Thread> thread_;
};

}  // namespace uext4::fuse
