// What holds for the program's thread while it is inside of the library.
#pragma once

#include "mmap/map_registry.h"
#include "sync/thread.h"

#include <pthread.h>

#include <optional>

namespace uext4::capi {

// First in each function of the C interface. A handler of the program that touches a map waits for the fault to be
// served; in the middle of a call, that would wait for locks of the interrupted thread itself. So where the process has
// maps, signals wait for the end of the call. Nor does a cancelled thread leave in the middle of a change, but before
// the next one, unless that gives something back: what is left does that, in a destructor or a cleanup handler.
enum class Cancelled { leaves, goes_on };

class Call {
public:
    explicit Call(Cancelled cancelled = Cancelled::leaves) {
        if (cancelled == Cancelled::leaves) pthread_testcancel();
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_before_);
        if (MapRegistry::instance().has_regions()) signals_.emplace();
    }
    ~Call() {
        signals_.reset();
        pthread_setcancelstate(cancel_before_, nullptr);
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

private:
    int cancel_before_ = PTHREAD_CANCEL_ENABLE;
    std::optional<this_thread::SignalsBlocked> signals_;
};

}  // namespace uext4::capi
