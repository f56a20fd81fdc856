#include "cli/interrupt.h"

#include "cli/text.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <utility>

namespace uext4::cli {

namespace {

constexpr int ending_signals[] = {SIGINT, SIGTERM, SIGHUP};
constexpr int code_of_signal = 128;  // as a shell reports a process that a signal has ended

volatile sig_atomic_t noted = 0;
bool in_shell = false;
std::uint64_t complete = 0;
std::string incomplete;
std::string left_images;

// Those that are ignored stay so.
void set_handlers(void (*handler)(int)) {
    struct sigaction wanted{}, before{};
    wanted.sa_handler = handler;
    wanted.sa_flags = SA_RESTART;  // what the file system and its devices have under way is not disturbed
    for (const int number : ending_signals)
        if (::sigaction(number, nullptr, &before) == 0 && before.sa_handler != SIG_IGN)
            ::sigaction(number, &wanted, nullptr);
}

void note(int number) {
    noted = number;
    if (!in_shell) set_handlers(SIG_DFL);
}

void wait_for(int fd, short events) {
    sigset_t ending, before;
    sigemptyset(&ending);
    for (const int number : ending_signals) sigaddset(&ending, number);
    // Between the look at what was noted and the wait, no signal is missed.
    pthread_sigmask(SIG_BLOCK, &ending, &before);
    pollfd wanted{fd, events, 0};
    while (!noted && ::ppoll(&wanted, 1, nullptr, &before) < 0 && errno == EINTR) {
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    check_interrupt();
}

}  // namespace

void catch_interrupts() {
    if (!in_shell && !noted) set_handlers(note);
}

void catch_interrupts_in_shell() {
    in_shell = true;
    set_handlers(note);
}

int noted_interrupt() { return noted; }

void check_interrupt() {
    if (const int number = noted) throw InterruptError{number};
}

void wait_for_input(int fd) { wait_for(fd, POLLIN); }

ssize_t write_when_ready(int fd, ConstBytes bytes) {
    wait_for(fd, POLLOUT);
    return ::write(fd, bytes.data(), std::min<std::size_t>(bytes.size(), PIPE_BUF));  // as much never blocks then
}

void count_complete() { ++complete; }

PartialResult::~PartialResult() {
    if (noted && std::uncaught_exceptions() > 0) incomplete = name_;
}

void note_left_image(const std::string& image, bool clean) {
    left_images += fmt::format("; {} {}", image, clean ? "is clean" : "is not clean: its journal will be replayed");
}

int end_interrupted(const std::string& verb, const InterruptError& interrupt) {
    std::fflush(stdout);
    const bool copy = verb == "cp";
    const char* const things =
        complete == 1 ? (copy ? "entry is" : "operand is") : (copy ? "entries are" : "operands are");
    const std::string part = incomplete.empty() ? "" : fmt::format(", {} is incomplete", incomplete);
    const std::string line = fmt::format("interrupted ({}): {} {} complete{}{}", ::strsignal(interrupt.signal),
                                         complete, things, part, std::exchange(left_images, {}));
    incomplete.clear();
    fmt::print(stderr, "uext4 {}: {}\n", verb, quote(line));
    complete = 0;
    if (in_shell) return code_of_signal + interrupt.signal;
    ::raise(interrupt.signal);
    return code_of_signal + interrupt.signal;  // the signal is blocked
}

}  // namespace uext4::cli
