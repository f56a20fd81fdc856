// Keeps the thread that reads requests on the CPU of whoever sends them.
//
// A request that crosses CPUs wakes an idle one twice, which on a virtual machine costs ten times what the request
// itself does; on one CPU the two threads just alternate, and the kernel does not bring them together by itself. So a
// small process looks now and then where the last caller runs, and binds the reading thread to that CPU while requests
// keep coming, if this machine is one where that helps (placement_choice.h). A process of its own, because looking at a
// caller can wait for it, and the caller for us: nothing of the server ever waits for this process, nor holds it a
// descriptor of the server's.
//
// A caller that is answered is woken on an idle CPU if there is one, away from us. Where there are just two, a second
// process keeps the other from being idle while requests keep coming: it takes only time that nobody wants (SCHED_IDLE,
// and yields at once), so that it is in nobody's way, and sleeps two milliseconds after the last request. With more
// CPUs there is always another idle one, and nothing is kept awake.
#pragma once

#include "base/result.h"

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <string>

namespace uext4::fuse {

class Placement {
public:
    // `mount`: "IMAGE on DIRECTORY", for ps(1). Best done while the process has one thread. Without the rights or the
    // means nothing is placed, and nothing lost. `sandbox`: the two processes keep no capability, and the system calls
    // that they need.
    static Placement start(const std::string& mount, bool sandbox);
    Placement() = default;
    Placement(Placement&& other) noexcept;
    Placement& operator=(Placement&& other) noexcept;
    ~Placement();

    // The calling thread is the one to place.
    void place_this_thread();
    // A request that this thread of the system waits for; 0 is the kernel, for the last one most likely: what it writes
    // back it takes from maps first, on their CPU or by interrupting it.
    void called_by(pid_t caller);

private:
    struct Shared;
    // The two processes' work, until the server ends.
    static void follow(Shared& shared, pid_t server);
    static void keep_awake(Shared& shared);
    Shared* shared_ = nullptr;
    pid_t helper_ = -1;
};

}  // namespace uext4::fuse
