// An access that cannot be served ends with an error of that access: SIGBUS for the thread that made it, EFAULT when a
// system call of the program made it.
#pragma once

#include "sync/condition.h"
#include "sync/mutex.h"

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <set>

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

// Pages of the process that are without their right for a moment, so that a system call meets a refusal. Others that
// touch them meanwhile are refused as well; who can, waits and asks again.
class ForbiddenPages {
public:
    static ForbiddenPages& instance();

    void add(std::uintptr_t page);
    void remove(std::uintptr_t page);
    // Until none of the pages of [start, end) is forbidden. False when none was.
    bool wait(std::uintptr_t start, std::uintptr_t end);

private:
    bool any_locked(std::uintptr_t start, std::uintptr_t end) const UEXT4_REQUIRES(lock_);

    Mutex lock_{Rank::Leaf, "ForbiddenPages"};
    CondVar changed_{"a forbidden page"};
    std::multiset<std::uintptr_t> pages_ UEXT4_GUARDED_BY(lock_);
};

}  // namespace uext4
