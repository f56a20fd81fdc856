#include "fuse/system_log.h"

#include <syslog.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace uext4::fuse {

namespace {
constexpr std::size_t most_lines = 300;
constexpr std::chrono::seconds patience{1};
constexpr std::chrono::milliseconds short_patience{20};
}  // namespace

struct SystemLog::State {
    std::mutex lock;
    std::condition_variable changed;
    std::deque<std::string> lines;
    std::uint64_t left_out = 0;
    bool started = false, busy = false, ending = false;

    bool is_idle() const { return lines.empty() && !busy; }
    void run() {
        std::unique_lock guard(lock);
        for (;;) {
            changed.wait(guard, [this] { return !lines.empty() || ending; });
            if (lines.empty()) return;
            const std::string line = std::move(lines.front());
            lines.pop_front();
            const std::uint64_t gap = lines.empty() ? std::exchange(left_out, 0) : 0;
            busy = true;
            guard.unlock();
            syslog(LOG_NOTICE, "%s", line.c_str());
            if (gap != 0) syslog(LOG_NOTICE, "%llu more lines were left out", static_cast<unsigned long long>(gap));
            guard.lock();
            busy = false;
            changed.notify_all();
        }
    }
};

SystemLog::SystemLog() : state_(std::make_shared<State>()) {}

SystemLog::~SystemLog() {
    settle();
    const std::lock_guard guard(state_->lock);
    state_->ending = true;
    state_->changed.notify_all();
}

void SystemLog::settle() {
    std::unique_lock guard(state_->lock);
    state_->changed.wait_for(guard, patience, [this] { return state_->is_idle(); });
}

void SystemLog::add(std::string line) {
    std::unique_lock guard(state_->lock);
    const bool was_idle = state_->is_idle();
    if (state_->lines.size() >= most_lines) {
        ++state_->left_out;
        return;
    }
    state_->lines.push_back(std::move(line));
    if (!state_->started) {
        try {
            std::thread([state = state_] { state->run(); }).detach();
            state_->started = true;
        } catch (const std::system_error&) {
            return;  // the next line tries again
        }
    }
    state_->changed.notify_all();
    // It is usually taken at once, and the process may be about to end for what it says.
    if (was_idle) state_->changed.wait_for(guard, short_patience, [this] { return state_->is_idle(); });
}

}  // namespace uext4::fuse
