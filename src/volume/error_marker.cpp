#include "volume/error_marker.h"

#include <utility>

namespace uext4 {

void ErrorMarker::start(std::function<void()> mark) {
    MutexLock guard(lock_);
    mark_ = std::move(mark);
    if (wanted_) begin();
}

void ErrorMarker::wanted() {
    MutexLock guard(lock_);
    wanted_ = true;
    if (mark_ && !stop_) begin();
}

void ErrorMarker::begin() {
    if (thread_.joinable()) {
        changed_.notify_all();
    } else if (Result<Thread> started = Thread::start("uext4-mark", [this] { run(); })) {
        thread_ = std::move(*started);
    }
}

void ErrorMarker::run() {
    MutexLock guard(lock_);
    while (!stop_) {
        if (!std::exchange(wanted_, false)) {
            changed_.wait(lock_);
            continue;
        }
        guard.unlock();
        mark_();
        guard.lock();
    }
}

void ErrorMarker::stop() {
    Thread last;
    {
        MutexLock guard(lock_);
        stop_ = true;
        last = std::move(thread_);
        changed_.notify_all();
    }
    last.join();
}

}  // namespace uext4
