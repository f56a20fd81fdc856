#include "volume/error_marker.h"

#include <new>
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
    if (thread_.joinable()) return changed_.notify_all();
    try {
        if (Result<Thread> started = Thread::start("uext4-mark", [this] { run(); })) thread_ = std::move(*started);
    } catch (const std::bad_alloc&) {  // by the next sync, then
    }
}

void ErrorMarker::run() {
    MutexLock guard(lock_);
    const std::function<void()> mark = mark_;  // the same from start() on
    while (!stop_) {
        if (!std::exchange(wanted_, false)) {
            changed_.wait(lock_);
            continue;
        }
        guard.unlock();
        try {
            mark();
        } catch (const std::bad_alloc&) {  // by the next sync, then
        }
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
