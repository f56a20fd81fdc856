// An access that cannot be served ends with an error of that access: SIGBUS for the thread that made it, EFAULT when a
// system call of the program made it.
#pragma once

#include "sync/condition.h"
#include "sync/mutex.h"

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>

namespace uext4 {

class FaultHandler;

enum class FaultingThread {
    gone,        // the thread waits in no fault any more
    program,     // its own instruction faulted, and it takes SIGBUS
    deaf,        // the same, but it has SIGBUS blocked or ignored: the process ends with it all the same
    system_call  // one on its behalf
};
// How the thread that faulted stands. `tid`: of this process.
FaultingThread faulting_thread_state(pid_t tid);

// SIGBUS with si_addr for one thread; its fault ends. False when the thread is gone.
bool send_sigbus(pid_t tid, std::uintptr_t address);

// Pages of the process that refuse accesses for a moment, so that one meets a refusal that no signal brings. Others
// that touch them meanwhile are refused as well; who can, waits and asks again.
class RejectedPages {
public:
    static RejectedPages& instance();

    // A page is forbidden as long as one of these lives. One at a time: the next for the page waits for the last.
    // `server`: of the file system whose map it is.
    class Rejection {
    public:
        Rejection(std::uintptr_t page, const FaultHandler& server) : page_(page) { instance().add(page, server); }
        ~Rejection() { instance().remove(page_); }
        Rejection(const Rejection&) = delete;
        Rejection& operator=(const Rejection&) = delete;

    private:
        std::uintptr_t page_;
    };
    // Who forbids a page takes what a fault takes, to ask once more. Both of these wait with Call at most, which no
    // fault takes.
    //
    // Until none of the pages of [start, end) is forbidden. False when none was. By whoever has met the refusal of the
    // first of them: it need not last for him.
    bool wait(std::uintptr_t start, std::uintptr_t end);
    // By whoever forbids it: until somebody says so, or for so long.
    void set_retry_limit(std::uintptr_t page, std::chrono::nanoseconds most);
    // Until every page of this file system's that is forbidden now has been allowed once: what was refused before a
    // change is not refused after it. Others' have nothing to do with it, and may wait for it: their device may be a
    // file of this one.
    void wait_for_current(const FaultHandler& server);

private:
    struct Forbidden {
        const FaultHandler* server = nullptr;
        std::uint64_t number = 0;  // its own
        bool met = false;
    };
    void add(std::uintptr_t page, const FaultHandler& server);
    void remove(std::uintptr_t page);
    bool any_locked(std::uintptr_t start, std::uintptr_t end) const UEXT4_REQUIRES(lock_);

    Mutex lock_{Rank::Leaf, "ForbiddenPages"};
    CondVar changed_{"a forbidden page"};
    std::map<std::uintptr_t, Forbidden> pages_ UEXT4_GUARDED_BY(lock_);
    std::uint64_t numbers_ UEXT4_GUARDED_BY(lock_) = 0;
    std::atomic<std::size_t> count_{0};
};

}  // namespace uext4
