// An operation of the program's inside of the freeze gate. What its change makes possible is so when it returns: no
// page of a map refuses any more for a reason from before.
#pragma once

#include "mmap/refusal.h"
#include "volume/freeze_gate.h"

namespace uext4 {

class ChangePass {
public:
    explicit ChangePass(FreezeGate& gate) : pass_(std::in_place, gate) {}
    ~ChangePass() {
        pass_.reset();
        ForbiddenPages::instance().wait_for_those_now();
    }
    ChangePass(const ChangePass&) = delete;
    ChangePass& operator=(const ChangePass&) = delete;

private:
    std::optional<FreezeGate::Pass> pass_;
};

}  // namespace uext4
