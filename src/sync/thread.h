// Named threads that take no asynchronous signals and are joined when their owner goes.
#pragma once

#include "base/result.h"
#include "sync/scheduler.h"

#include <signal.h>

#include <chrono>
#include <functional>
#include <memory>
#include <source_location>
#include <string>

namespace uext4 {

class Thread {
public:
    Thread() = default;

    // Starts a thread; std::bad_alloc where the system refuses one. The name is cut to 15 bytes for the kernel.
    Thread(std::string name, std::function<void()> body, std::source_location where = std::source_location::current());

    // As the constructor, with the refusal as an error.
    static Result<Thread> start(std::string name, std::function<void()> body,
                                std::source_location where = std::source_location::current());

    ~Thread() { join_at_end(); }
    Thread(Thread&&) noexcept = default;
    Thread& operator=(Thread&& other) noexcept;

    bool joinable() const { return state_ != nullptr; }

    // Waits for the end of the body; nothing if there is no thread. Not from the thread itself, and with no lock held
    // that the body may want.
    void join(std::source_location where = std::source_location::current());

private:
    struct State;
    struct Deleter {
        void operator()(State* state) const;
    };
    static void* run(void* state);
    void join_at_end();

    std::unique_ptr<State, Deleter> state_;
};

namespace this_thread {

void yield(std::source_location where = std::source_location::current());

// Virtual time under a scheduler.
void sleep(std::chrono::nanoseconds duration, std::source_location where = std::source_location::current());

// The name given at creation, or "main".
const char* name();

// While one lives, the thread takes no signal but those that report a fault of its own. Of threads that others created.
class SignalsBlocked {
public:
    SignalsBlocked();
    ~SignalsBlocked();
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;

private:
    sigset_t before_;
};

}  // namespace this_thread

}  // namespace uext4
