#include "fuse/work_queue.h"

namespace uext4::fuse {

Result<void> WorkQueue::start() {
    Thread first = TRY(Thread::start(name_, [this] { run(); }));
    MutexLock guard(lock_);
    threads_.push_back(std::move(first));
    return {};
}

void WorkQueue::add(std::function<void()> job) {
    MutexLock guard(lock_);
    if (idle_ <= jobs_.size() && threads_.size() + starting_ < limit_) {
        ++starting_;
        guard.unlock();
        Result<Thread> thread = Thread::start(name_, [this] { run(); });
        guard.lock();
        --starting_;
        if (thread) threads_.push_back(std::move(*thread));
    }
    jobs_.push_back(std::move(job));
    work_.notify_one();
}

void WorkQueue::run() {
    MutexLock guard(lock_);
    for (;;) {
        ++idle_;
        while (jobs_.empty() && !ending_) work_.wait(lock_);
        --idle_;
        if (jobs_.empty()) return;
        std::function<void()> job = std::move(jobs_.front());
        jobs_.pop_front();
        ++running_;
        guard.unlock();
        job();
        job = nullptr;  // what it holds may be the last reference to an inode
        guard.lock();
        --running_;
        if (jobs_.empty() && running_ == 0) done_.notify_all();
    }
}

bool WorkQueue::is_idle() {
    MutexLock guard(lock_);
    return jobs_.empty() && running_ == 0;
}

void WorkQueue::drain() {
    MutexLock guard(lock_);
    while (!jobs_.empty() || running_ > 0) done_.wait(lock_);
}

void WorkQueue::finish() {
    drain();
    std::vector<Thread> threads;
    {
        MutexLock guard(lock_);
        ending_ = true;
        work_.notify_all();
        threads.swap(threads_);
    }
    threads.clear();
}

}  // namespace uext4::fuse
