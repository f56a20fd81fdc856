// Where threads meet at an atomic instead of a lock: the explorer may switch there as well.
#pragma once

#include "sync/scheduler.h"

namespace uext4 {

// Stands before the access. `what` names the atomic.
inline void atomic_point(const char* what, const void* atomic,
                         std::source_location where = std::source_location::current()) {
    schedule_point(Point::Custom, what, atomic, where);
}

}  // namespace uext4
