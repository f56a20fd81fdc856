#include "sync/thread.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <new>
#include <utility>

namespace uext4 {

namespace {

thread_local const char* current_name = "main";

// What a thread causes itself must reach its handlers (a sanitizer's, say); blocked, it would kill without a word.
sigset_t asynchronous_signals() {
    sigset_t set;
    sigfillset(&set);
    for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS}) sigdelset(&set, signal);
    return set;
}

}  // namespace

struct Thread::State {
    std::string name;
    std::function<void()> body;
    Scheduler* scheduler = nullptr;  // the one that runs this thread
    std::source_location made;       // where; told as the place of a join at the end of a scope as well
    std::atomic<bool> finished{false};
    pthread_t native{};
};

void Thread::Deleter::operator()(State* state) const { delete state; }

void* Thread::run(void* argument) {
    State& state = *static_cast<State*>(argument);
    current_name = state.name.c_str();
    pthread_setname_np(pthread_self(), state.name.substr(0, 15).c_str());  // of oneself it is one cheap call
    if (state.scheduler) state.scheduler->thread_started(&state);
    state.body();
    state.body = nullptr;  // what it captured goes while the scheduler still looks
    current_name = "exiting";
    Scheduler* scheduler = state.scheduler;
    state.finished.store(true);
    if (scheduler) {
        scheduler->wake(&state);
        scheduler->thread_exiting(&state);
    }
    return nullptr;
}

Result<Thread> Thread::start(std::string name, std::function<void()> body, std::source_location where) {
    Thread thread;
    thread.state_.reset(new State);
    State& state = *thread.state_;
    state.name = std::move(name);
    state.body = std::move(body);
    state.made = where;
    state.scheduler = scheduler_here();
    if (state.scheduler) state.scheduler->thread_created(&state, state.name);

    // The mask is inherited, so that no signal can arrive before the thread has set its own.
    int code = 0;
    {
        const this_thread::SignalsBlocked wait;
        code = pthread_create(&state.native, nullptr, &Thread::run, &state);
    }
    if (code != 0) {
        if (state.scheduler) state.scheduler->thread_not_created(&state);
        auto error = fail(code, "thread {}: cannot be created", state.name);
        thread.state_.reset();
        return error;
    }
    if (state.scheduler) state.scheduler->point(Point::Spawn, &state, state.name.c_str(), where);
    return thread;
}

Thread::Thread(std::string name, std::function<void()> body, std::source_location where) {
    Result<Thread> thread = start(std::move(name), std::move(body), where);
    if (!thread) throw std::bad_alloc();
    state_ = std::move(thread->state_);
}

Thread& Thread::operator=(Thread&& other) noexcept {
    if (this != &other) {
        join_at_end();
        state_ = std::move(other.state_);
    }
    return *this;
}

void Thread::join(std::source_location where) {
    if (!state_) return;
    if (Scheduler* s = scheduler_here(); s && s == state_->scheduler) [[unlikely]]
        while (!state_->finished.load()) s->block(state_.get(), "join", {state_.get(), "end of the thread"}, where);
    pthread_join(state_->native, nullptr);
    if (Scheduler* s = scheduler()) [[unlikely]]
        s->forget(state_.get());
    state_.reset();
}

void Thread::join_at_end() {
    if (state_) join(state_->made);
}

namespace this_thread {

void yield(std::source_location where) {
    if (Scheduler* s = scheduler_here()) [[unlikely]]
        s->point(Point::Yield, nullptr, "yield", where);
    else sched_yield();
}

void sleep(std::chrono::nanoseconds duration, std::source_location where) {
    if (duration <= std::chrono::nanoseconds::zero()) return;
    if (Scheduler* s = scheduler_here()) [[unlikely]] {
        const char nobody_wakes = 0;  // an address that no one else knows
        s->wait_timed(&nobody_wakes, "sleep", {}, duration, where);
        return;
    }
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(duration);
    timespec left{static_cast<time_t>(seconds.count()), static_cast<long>((duration - seconds).count())};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR) {
    }
}

const char* name() { return current_name; }

SignalsBlocked::SignalsBlocked() {
    const sigset_t blocked = asynchronous_signals();
    pthread_sigmask(SIG_BLOCK, &blocked, &before_);
}

SignalsBlocked::~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

}  // namespace this_thread

}  // namespace uext4
