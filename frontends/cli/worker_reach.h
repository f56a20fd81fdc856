// Which files of the host a process that works for a shell was started with.
#pragma once

#include "cli/session.h"

#include <sys/types.h>

#include <string>
#include <vector>

namespace uext4::cli {

// What it may reach of them, as they were when it was started: others may have taken their names since.
class WorkerReach {
public:
    WorkerReach() = default;
    explicit WorkerReach(HostReach reach);
    const HostReach& reach() const { return reach_; }
    bool covers(const HostReach& needed) const;

private:
    struct Place {
        explicit Place(const std::string& path);
        std::string path;
        dev_t device = 0;
        ino_t inode = 0;
        mode_t kind = 0;    // none where nothing is
        bool link = false;  // leads to it
    };
    static std::vector<Place> places_of(const std::vector<std::string>& paths);
    static bool is_one(const Place& now, const std::vector<Place>& places);
    static bool is_in(const std::string& path, const std::vector<Place>& places);

    HostReach reach_;
    std::vector<Place> readable_, writable_;
};

// What a copy needs now, and what others of its kind will need, which come later.
HostReach joined_reach(const HostReach& now, const std::vector<HostReach>& later);

}  // namespace uext4::cli
