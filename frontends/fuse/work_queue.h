// Threads for what may block, so that the thread that reads requests never does.
#pragma once

#include "base/result.h"
#include "sync/condition.h"
#include "sync/thread.h"

#include <deque>
#include <functional>
#include <string>
#include <vector>

namespace uext4::fuse {

class WorkQueue {
public:
    WorkQueue(std::string name, std::size_t limit) : name_(std::move(name)), limit_(limit) {}
    ~WorkQueue() { finish(); }

    // The first thread, without which nothing may be added: a job that ran on the thread that reads requests could wait
    // for an answer to one. The others are started when there is work for them, up to `limit`, as far as they can be
    // had.
    Result<void> start();
    // In order; side by side as far as there are threads.
    void add(std::function<void()> job);
    // Waits until nothing is queued or running.
    void drain();
    bool is_idle();  // nothing is queued or running
    // drain(), then the threads end. Nothing may be added afterwards.
    void finish();

private:
    void run();

    std::string name_;
    std::size_t limit_;
    Mutex lock_{Rank::Leaf, "fuse work queue"};
    CondVar work_{"fuse work queue"}, done_{"fuse work queue"};  // for one thread a job; for drain()
    std::deque<std::function<void()>> jobs_;
    std::vector<Thread> threads_;
    std::size_t idle_ = 0, running_ = 0, starting_ = 0;
    bool ending_ = false;
};

}  // namespace uext4::fuse
