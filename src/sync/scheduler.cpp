#include "sync/scheduler.h"

#include <ctime>

namespace uext4 {

const char* point_name(Point kind) {
    switch (kind) {
        case Point::Lock: return "lock";
        case Point::TryLock: return "try_lock";
        case Point::Unlock: return "unlock";
        case Point::Wait: return "wait";
        case Point::Notify: return "notify";
        case Point::Spawn: return "spawn";
        case Point::Yield: return "yield";
        case Point::IoStart: return "io_start";
        case Point::IoComplete: return "io_complete";
        case Point::Fault: return "fault";
        case Point::Access: return "access";
        case Point::Custom: return "custom";
    }
    return "?";
}

std::chrono::nanoseconds monotonic_now() {
    if (Scheduler* s = scheduler_here()) [[unlikely]]
        return s->now();
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

}  // namespace uext4
