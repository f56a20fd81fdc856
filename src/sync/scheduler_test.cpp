// The primitives under a scheduler: a small one that runs one thread at a time and chooses by a seeded generator. It
// finds deadlocks, repeats a schedule from its seed and keeps virtual time.
#include "sync/condition.h"
#include "sync/thread.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace uext4 {
namespace {

using namespace std::chrono_literals;

class TokenScheduler final : public Scheduler {
public:
    explicit TokenScheduler(unsigned seed) : random_(seed) {
        set_scheduler(this);
        self() = &tasks_[nullptr];
        self()->name = "main";
        running_ = self();
    }
    ~TokenScheduler() override {
        self() = nullptr;
        set_scheduler(nullptr);
    }

    std::string trace;
    bool deadlock = false;

    bool manages_this_thread() const override { return self() != nullptr; }

    void point(Point kind, const void*, const char*, std::source_location) override {
        std::unique_lock guard(lock_);
        trace += self()->name + ":" + point_name(kind) + " ";
        pick_and_wait(guard);
    }
    void block(const void* resource, const char*, const HeldResource&, std::source_location) override {
        std::unique_lock guard(lock_);
        self()->waits_for = resource;
        pick_and_wait(guard);
    }
    bool wait_timed(const void* resource, const char*, const HeldResource&, std::chrono::nanoseconds timeout,
                    std::source_location) override {
        std::unique_lock guard(lock_);
        self()->waits_for = resource;
        self()->deadline = now_ + timeout;
        self()->timed_out = false;
        pick_and_wait(guard);
        self()->deadline.reset();
        return !self()->timed_out;
    }
    void wake(const void* resource) override {
        std::unique_lock guard(lock_);
        for (auto& [id, task] : tasks_)
            if (task.waits_for == resource) task.waits_for = nullptr;
    }
    void wake_one(const void* resource) override {
        std::unique_lock guard(lock_);
        for (auto& [id, task] : tasks_)
            if (task.waits_for == resource) {
                task.waits_for = nullptr;
                return;
            }
    }
    std::chrono::nanoseconds now() const override { return now_; }
    void thread_created(const void* thread, const std::string& name) override {
        std::unique_lock guard(lock_);
        tasks_[thread].name = name;
    }
    void thread_not_created(const void* thread) override {
        std::unique_lock guard(lock_);
        tasks_.erase(thread);
    }
    void thread_started(const void* thread) override {
        std::unique_lock guard(lock_);
        self() = &tasks_[thread];
        wait_for_turn(guard);
    }
    void thread_exiting(const void* thread) override {
        std::unique_lock guard(lock_);
        tasks_.erase(thread);
        self() = nullptr;
        pick();
    }

private:
    struct Task {
        std::string name;
        const void* waits_for = nullptr;
        std::optional<std::chrono::nanoseconds> deadline;
        bool timed_out = false;
    };
    static Task*& self() {
        static thread_local Task* task = nullptr;
        return task;
    }
    void pick() {
        std::vector<Task*> ready;
        Task* earliest = nullptr;
        for (auto& [id, task] : tasks_) {
            if (!task.waits_for) ready.push_back(&task);
            else if (task.deadline && (!earliest || *task.deadline < *earliest->deadline)) earliest = &task;
        }
        // Identities are addresses: sorted by name, so that a seed means the same schedule every time.
        std::sort(ready.begin(), ready.end(), [](Task* a, Task* b) { return a->name < b->name; });
        if (!ready.empty()) {
            running_ = ready[random_() % ready.size()];
        } else if (earliest) {
            now_ = *earliest->deadline;
            earliest->timed_out = true;
            earliest->waits_for = nullptr;
            running_ = earliest;
        } else if (!tasks_.empty()) {
            deadlock = true;  // let all go on: the test resolves it
            for (auto& [id, task] : tasks_) task.waits_for = nullptr;
            running_ = &tasks_.begin()->second;
        }
        turn_.notify_all();
    }
    void wait_for_turn(std::unique_lock<std::mutex>& guard) {
        Task* me = self();
        turn_.wait(guard, [&] { return running_ == me; });
    }
    void pick_and_wait(std::unique_lock<std::mutex>& guard) {
        pick();
        wait_for_turn(guard);
    }

    std::mutex lock_;
    std::condition_variable turn_;
    std::map<const void*, Task> tasks_;
    Task* running_ = nullptr;
    std::chrono::nanoseconds now_{0};
    std::mt19937 random_;
};

std::string run_counters(unsigned seed, int& total) {
    TokenScheduler scheduler(seed);
    Mutex mutex(Rank::Leaf, "m");
    SharedMutex rw(Rank::Inode, "rw");
    CondVar done("done");
    int finished = 0;
    total = 0;
    {
        std::vector<Thread> threads;
        for (const char* name : {"a", "b", "c"})
            threads.emplace_back(name, [&] {
                for (int i = 0; i < 5; ++i) {
                    {
                        ReadLock guard(rw);
                        this_thread::yield();
                    }
                    WriteLock guard(rw);
                    const int seen = total;
                    this_thread::yield();
                    total = seen + 1;
                }
                MutexLock guard(mutex);
                ++finished;
                done.notify_one();
            });
        MutexLock guard(mutex);
        done.wait(mutex, [&] { return finished == 3; });
    }
    EXPECT_FALSE(scheduler.deadlock);
    return scheduler.trace;
}

TEST(Scheduler, ExcludesAndRepeats) {
    std::string first_trace;
    for (unsigned seed = 1; seed < 30; ++seed) {
        int total = 0;
        const std::string trace = run_counters(seed, total);
        EXPECT_EQ(total, 15) << "seed " << seed;
        EXPECT_EQ(run_counters(seed, total), trace) << "seed " << seed;
        if (seed == 1) first_trace = trace;
        else EXPECT_NE(first_trace, trace);
    }
}

TEST(Scheduler, FindsALostUpdate) {
    bool lost = false;
    for (unsigned seed = 1; seed < 50 && !lost; ++seed) {
        TokenScheduler scheduler(seed);
        int total = 0;
        {
            auto body = [&] {
                const int seen = total;
                this_thread::yield();
                total = seen + 1;
            };
            Thread a("a", body), b("b", body);
        }
        lost = total != 2;
    }
    EXPECT_TRUE(lost);
}

TEST(Scheduler, FindsAWaitThatNobodyEnds) {
    TokenScheduler scheduler(1);
    Mutex mutex(Rank::Leaf, "m");
    CondVar never("never");
    Thread waiter("waiter", [&] {
        MutexLock guard(mutex);
        never.wait(mutex);  // returns because the test's scheduler lets all go on
    });
    waiter.join();
    EXPECT_TRUE(scheduler.deadlock);
}

TEST(Scheduler, KeepsVirtualTime) {
    TokenScheduler scheduler(3);
    const auto real_start = std::chrono::steady_clock::now();
    const auto start = monotonic_now();
    this_thread::sleep(3600s);
    Mutex mutex(Rank::Leaf, "m");
    CondVar condition;
    {
        MutexLock guard(mutex);
        EXPECT_FALSE(condition.wait_for(mutex, 3600s, [] { return false; }));
    }
    EXPECT_GE(monotonic_now() - start, 7200s);
    EXPECT_LT(std::chrono::steady_clock::now() - real_start, 60s);
}

TEST(Scheduler, ATimedWaitIsWoken) {
    TokenScheduler scheduler(4);
    Mutex mutex(Rank::Leaf, "m");
    CondVar condition;
    bool ready = false;
    Thread setter("setter", [&] {
        MutexLock guard(mutex);
        ready = true;
        condition.notify_all();
    });
    MutexLock guard(mutex);
    EXPECT_TRUE(condition.wait_for(mutex, 3600s, [&] { return ready; }));
    EXPECT_LT(monotonic_now(), 3600s);
}

}  // namespace
}  // namespace uext4
