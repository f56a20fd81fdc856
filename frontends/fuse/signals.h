// The signals that a server of a mount lives with, in one place for all of its processes.
#pragma once

#include <signal.h>

#include <vector>

namespace uext4::fuse {

// All that ask a process to end, and those that would end it without having been asked for. Not among them: what says
// that the program is broken (SIGSEGV, SIGABRT ...), SIGSYS, by which the sandbox's filter could end a process,
// and SIGPIPE and SIGXFSZ, which are ignored: the calls that they are for fail.
inline std::vector<int> ending_signals() {
    std::vector<int> all = {SIGTERM,   SIGINT,  SIGHUP,  SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM,
                            SIGVTALRM, SIGPROF, SIGXCPU, SIGIO,   SIGPWR,  SIGTRAP, SIGSTKFLT};
    for (int number = SIGRTMIN; number <= SIGRTMAX; ++number) all.push_back(number);
    return all;
}

// Interrupts the server's own calls: one that ends no program that does not ask for it.
inline constexpr int interrupting_signal = SIGURG;

// For the processes beside the server: they end with it, and by SIGKILL.
inline void ignore_signals() {
    for (const int number : ending_signals()) signal(number, SIG_IGN);
    for (const int number : {SIGPIPE, SIGXFSZ}) signal(number, SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
}

}  // namespace uext4::fuse
