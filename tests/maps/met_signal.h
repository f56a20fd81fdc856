// For tests: how an access of memory ends.
#pragma once

#include <gtest/gtest.h>

#include <csetjmp>
#include <csignal>

namespace uext4 {

// The signal that the access ends with, by any thread; 0 when it is made.
inline thread_local sigjmp_buf met_at;
template <class Access>
int signal_of(Access access) {
    static const bool installed = [] {
        struct sigaction action{};
        action.sa_handler = [](int number) { siglongjmp(met_at, number); };
        return sigaction(SIGBUS, &action, nullptr) == 0 && sigaction(SIGSEGV, &action, nullptr) == 0;
    }();
    EXPECT_TRUE(installed);
    const int met = sigsetjmp(met_at, 1);
    if (met == 0) access();
    return met;
}

}  // namespace uext4
