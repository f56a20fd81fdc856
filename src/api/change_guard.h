// An operation of the program's inside of the freeze gate. What its change makes possible is so when it returns: no
// page of a map refuses any more for a reason from before. And it pays for the memory of the inodes whose times wait.
#pragma once

#include "api/file_maps.h"
#include "mmap/rejected_pages.h"

namespace uext4 {

class ChangeGuard {
public:
    explicit ChangeGuard(FileMaps& maps, SourceLocation where = SourceLocation::current())
        : maps_(maps), pass_(std::in_place, maps.gate(), where) {}
    ~ChangeGuard() {
        pass_.reset();
        RejectedPages::instance().wait_for_current(maps_);
        maps_.volume().shrink_inodes();
    }
    ChangeGuard(const ChangeGuard&) = delete;
    ChangeGuard& operator=(const ChangeGuard&) = delete;

private:
    FileMaps& maps_;
    std::optional<FreezeGate::Entry> pass_;
};

}  // namespace uext4
