// An access that cannot be served ends with an error of that access: SIGBUS for the thread that made it, EFAULT when a
// system call of the program made it.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

namespace uext4 {

enum class Waiter {
    gone,      // the thread waits in no fault any more
    program,   // its own instruction faulted, and it takes SIGBUS
    elsewhere  // a system call on its behalf, or it has SIGBUS blocked or ignored
};
// How the thread that faulted stands. `tid`: of this process.
Waiter waiter_of(pid_t tid);

// SIGBUS with si_addr for one thread; its fault ends. False when the thread is gone.
bool send_sigbus(pid_t tid, std::uintptr_t address);

}  // namespace uext4
