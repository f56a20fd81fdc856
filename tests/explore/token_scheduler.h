// Runs the threads of a process one at a time: the one that has the token. Real threads, each asleep on a word of its
// own, so that the code sees the threads, stacks and thread-local state it will have in life.
#pragma once

#include "sync/rank.h"
#include "sync/scheduler.h"
#include "tests/explore/outcome.h"
#include "tests/explore/picker.h"

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace uext4::explore {

class TokenScheduler final : public Scheduler {
public:
    // Takes the calling thread in as number 0. `record`: every step goes to shared.events.
    TokenScheduler(Picker& picker, Shared& shared, bool record);
    ~TokenScheduler() override;

    static constexpr std::uint32_t step_limit = 300'000, atomic_limit = 3'000'000;
    static constexpr unsigned idle_timer_limit = 400;

    // While quiet, threads are switched only when they must be, and nothing counts as a step: for making and judging.
    bool set_quiet(bool quiet) { return std::exchange(quiet_, quiet); }
    // The thread whose progress counts; those of the library itself, driven by timers, are none.
    void counts_as_progress(const std::string& prefix) { progress_prefix_ = prefix; }
    // Whether a request fails: 0 no, 1 this one, 2 from now on. Always 0 while quiet.
    int choose_error(const char* what, std::source_location where);

    // Ends the process with this failure.
    [[noreturn]] void fail(Failure kind, const std::string& text);
    // Who has the turn and where it was last, into `out`, of which the rest is returned. For signal handlers: what
    // changes meanwhile may be told of two moments.
    std::span<char> tell_turn(std::span<char> out) const;
    // The choices so far, into `shared`. Called by signal handlers as well.
    void save_choices();

    std::uint32_t steps() const { return step_; }
    std::uint64_t order_hash() const { return order_hash_; }
    std::uint64_t waits() const { return waits_; }
    std::uint64_t timers() const { return timers_; }
    std::uint64_t errors() const { return errors_; }

    bool manages_this_thread() const override;
    void point(Point kind, const void* resource, const char* what, std::source_location where) override;
    void block(const void* resource, const char* what, const HeldResource& wanted, std::source_location where) override;
    bool wait_timed(const void* resource, const char* what, const HeldResource& wanted,
                    std::chrono::nanoseconds timeout, std::source_location where) override;
    void wake(const void* resource) override;
    void wake_one(const void* resource) override;
    void held(const HeldResource& what, std::source_location where) override;
    void released(const void* address) override;
    void forget(const void* resource) override;
    std::chrono::nanoseconds now() const override { return now_; }
    void thread_created(const void* thread, const std::string& name) override;
    void thread_not_created(const void* thread) override;
    void thread_started(const void* thread) override;
    void thread_exiting(const void* thread) override;

private:
    struct Task {
        int number = 0;
        std::string name;
        std::atomic<std::uint32_t> go{0};
        bool finished = false, timed_out = false, counts = false, slept = false;
        const void* waits_for = nullptr;
        const char* what = "";
        std::source_location where;
        std::optional<std::chrono::nanoseconds> deadline;
        std::vector<HeldRank> held;      // while it waits, and when it has ended
        HeldResource wants;              // what it waits to be given up
        const void* about_to = nullptr;  // the lock that it is about to take
    };
    // What a thread has without a rank.
    struct Held {
        HeldResource what;
        const Task* by;
        std::source_location where;
    };
    // For whom a thread waits.
    struct Holder {
        const Task* task;
        std::optional<std::source_location> since;  // nothing when the thread itself is waited for
    };
    static Task*& self();
    bool is_contention(const Task& me, const void* resource, std::string_view what) const;
    Task& add(const void* thread, const std::string& name);
    void wait_for_token(Task& me);
    void give_token(Task& to);
    // Chooses, and returns when this thread is chosen. `stays`: it could go on.
    void reschedule(bool stays, bool yields);
    Task& choose(bool stays, bool yields);
    void run_timer(Task& task);
    void advance(Task& next);
    void enter_wait(const void* resource, const char* what, const HeldResource& wanted, std::source_location where);
    void leave_wait();
    void step_taken(std::uint8_t kind, const char* what, const std::source_location& where);
    void atomic_reached(std::uint8_t kind, const char* what, const std::source_location& where);
    void note(const Task& task, std::uint8_t kind, const char* what, const std::source_location& where);
    Moment now_chosen() const { return {step_, sub_}; }
    // The picker's choice among `candidates_`; remembered when it is not `standard`.
    int pick(Chosen kind, bool stays, bool yields, int standard);
    [[noreturn]] void nobody_can_run();
    std::vector<Holder> holders_of(const HeldResource& wanted) const;
    // The shortest circle of threads each of which waits for what the next one holds; empty when there is none.
    std::vector<const Task*> circle() const;
    std::vector<const Task*> circle_from(const Task& first) const;
    std::string describe_wait(const Task& task) const;
    std::string describe_threads() const;
    std::uint16_t intern(const std::string& text);

    Picker& picker_;
    Shared& shared_;
    const bool record_;
    bool quiet_ = true;
    std::string progress_prefix_ = "t:";
    std::mutex tasks_lock_;  // a thread that starts looks itself up while another one runs
    std::map<const void*, Task*> by_thread_;
    std::vector<std::unique_ptr<Task>> tasks_;
    std::vector<Held> held_;
    std::atomic<Task*> running_ = nullptr;
    std::chrono::nanoseconds now_ = std::chrono::seconds(1);
    std::uint32_t step_ = 0, sub_ = 0, atomics_ = 0;
    unsigned idle_timers_ = 0;
    std::uint64_t order_hash_ = 0xcbf29ce484222325, waits_ = 0, timers_ = 0, errors_ = 0;
    std::vector<Candidate> candidates_;
    std::unordered_map<std::string, std::uint16_t> names_;
};

}  // namespace uext4::explore
