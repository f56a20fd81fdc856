// An operation of the program's inside of the freeze gate. What its change makes possible is so when it returns: no
// page of a map refuses any more for a reason from before. And it pays for the memory of the inodes whose times wait.
#pragma once

#include "api/file_maps.h"
#include "mmap/refusal.h"

namespace uext4 {

class ChangePass {
public:
    explicit ChangePass(FileMaps& maps, SourceLocation where = SourceLocation::current())
        : maps_(maps), pass_(std::in_place, maps.gate(), where) {}
    ~ChangePass() {
        pass_.reset();
        ForbiddenPages::instance().wait_for_those_now(maps_);
        maps_.volume().thin_out_inodes();
    }
    ChangePass(const ChangePass&) = delete;
    ChangePass& operator=(const ChangePass&) = delete;

private:
    FileMaps& maps_;
    std::optional<FreezeGate::Pass> pass_;
};

}  // namespace uext4
