#include "volume/error_recorder.h"

#include <new>
#include <utility>

namespace uext4 {

void ErrorRecorder::start(std::function<void()> mark) {
    MutexLock guard(lock_);
    record_ = std::move(mark);
    if (requested_) start_thread();
}

void ErrorRecorder::request() {
    MutexLock guard(lock_);
    requested_ = true;
    if (record_ && !stop_) start_thread();
}

void ErrorRecorder::start_thread() {
    if (thread_.joinable()) return changed_.notify_all();
    try {
        if (Result<Thread> started = Thread::start("uext4-mark", [this] { run(); })) thread_ = std::move(*started);
    } catch (const std::bad_alloc&) {  // by the next sync, then
    }
}

void ErrorRecorder::run() {
    MutexLock guard(lock_);
    const std::function<void()> mark = record_;  // the same from start() on
    while (!stop_) {
        if (!std::exchange(requested_, false)) {
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

void ErrorRecorder::stop() {
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
