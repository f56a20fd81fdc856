#include "fuse/deputy.h"

#include "fuse/signals.h"

#include <chrono>

namespace uext4::fuse {

namespace {
// An answer that takes longer than one or two of these is one that the kernel holds up.
constexpr std::chrono::milliseconds glance{25};
// Without answers for so many glances the deputy sleeps: an idle mount wakes nobody.
constexpr int idle_glances = 40;
}  // namespace

Result<void> Deputy::start(std::function<void()> stand_in) {
    stand_in_ = std::move(stand_in);
    thread_ = TRY(Thread::start("uext4-deputy", [this] { run(); }));
    return {};
}

void Deputy::leave() {
    turn_.fetch_add(1);
    if (watching_.load()) return;
    {
        const std::lock_guard guard(lock_);
        watching_.store(true);
    }
    changed_.notify_all();
}

void Deputy::back() {
    std::uint64_t turn = turn_.load();
    if ((turn & taken) == 0 && turn_.compare_exchange_strong(turn, (turn | 1) + 1)) return;
    wanted_back_.store(true);
    std::unique_lock guard(lock_);
    while (!changed_.wait_for(guard, glance, [this] { return !in_place_; })) pthread_kill(own_, interrupting_signal);
    wanted_back_.store(false);
}

void Deputy::finish() {
    {
        const std::lock_guard guard(lock_);
        ending_ = true;
    }
    changed_.notify_all();
    thread_.reset();
}

void Deputy::run() {
    sigset_t interrupting;
    sigemptyset(&interrupting);
    sigaddset(&interrupting, interrupting_signal);
    pthread_sigmask(SIG_UNBLOCK, &interrupting, nullptr);
    std::unique_lock guard(lock_);
    own_ = pthread_self();
    for (;;) {
        changed_.wait(guard, [this] { return watching_.load() || ending_; });
        if (ending_ || !watch(guard)) return;
    }
}

// Until nothing happens any more; false: the end.
bool Deputy::watch(std::unique_lock<std::mutex>& guard) {
    std::uint64_t seen = turn_.load();
    for (int idle = 0;;) {
        if (changed_.wait_for(guard, glance, [this] { return ending_; })) return false;
        const std::uint64_t now = turn_.load();
        if (now != seen) {
            seen = now;
            idle = 0;
        } else if ((now & 1) != 0) {
            take_place(guard, now);
            seen = turn_.load();
        } else if (++idle >= idle_glances) {
            watching_.store(false);
            if (turn_.load() == seen) return true;
            watching_.store(true);  // it left meanwhile, and may not have seen that nobody watches
        }
    }
}

void Deputy::take_place(std::unique_lock<std::mutex>& guard, std::uint64_t turn) {
    std::uint64_t expected = turn;
    in_place_ = true;
    if (turn_.compare_exchange_strong(expected, turn | taken)) {
        guard.unlock();
        stand_in_();
        guard.lock();
        turn_.store(turn + 1);
    }
    in_place_ = false;
    changed_.notify_all();
}

}  // namespace uext4::fuse
