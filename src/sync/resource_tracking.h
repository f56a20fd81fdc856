// For what is held without a rank, perhaps by one thread until another one ends it (a writeback, a freeze): the
// explorer is told who has it, so that it can say for whom others wait. Nothing is checked or locked by it, no thread
// is switched, and in builds without checks, which do not know who holds the locks either, nothing is left of it.
#pragma once

#include "sync/held_resource.h"
#include "sync/rank.h"
#include "sync/scheduler.h"

namespace uext4 {

#if UEXT4_CHECKS

// The calling thread has it from now on.
inline void note_held(const HeldResource& what, std::source_location where) {
    if (Scheduler* s = scheduler_here()) [[unlikely]]
        s->held(what, where);
}

// Nobody has any more what is known by the address.
inline void note_released(const void* address) {
    if (Scheduler* s = scheduler_here()) [[unlikely]]
        s->released(address);
}

#else

inline void note_held(const HeldResource&, std::source_location) {}
inline void note_released(const void*) {}

#endif

}  // namespace uext4
