#include "cli/worker_reach.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <set>

namespace uext4::cli {

WorkerReach::WorkerReach(HostReach reach)
    : reach_(std::move(reach)),
      readable_(places_of(reach_.files.readable)),
      writable_(places_of(reach_.files.writable)) {}

std::vector<WorkerReach::Place> WorkerReach::places_of(const std::vector<std::string>& paths) {
    std::vector<Place> out;
    for (const std::string& path : paths)
        if (struct stat st{}; ::stat(path.c_str(), &st) == 0)
            out.push_back({path, st.st_dev, st.st_ino, S_ISDIR(st.st_mode)});
    return out;
}

// One of them by its name, or whatever lies below a folder of them. What is not there can be given to nobody.
bool WorkerReach::is_in(const std::string& path, const std::vector<Place>& places) {
    struct stat st{};
    if (::stat(path.c_str(), &st) != 0) return true;
    const auto is = [&](const Place& place) { return place.device == st.st_dev && place.inode == st.st_ino; };
    if (std::ranges::any_of(places, [&](const Place& place) { return is(place) && place.path == path; })) return true;
    std::error_code error;
    std::filesystem::path real = std::filesystem::canonical(path, error);
    if (error) return false;
    for (;; real = real.parent_path()) {
        if (::stat(real.c_str(), &st) != 0) return false;
        if (std::ranges::any_of(places, [&](const Place& place) { return is(place) && place.folder; })) return true;
        if (!real.has_relative_path()) return false;
    }
}

namespace {

// One process has the rights for one kind of copy.
bool is_same_kind(const HostReach& a, const HostReach& b) {
    return a.reach == b.reach && a.files.give_away == b.files.give_away && a.files.trees == b.files.trees &&
           a.files.special_modes == b.files.special_modes;
}

}  // namespace

bool WorkerReach::covers(const HostReach& needed) const {
    if (needed.reach == Reach::image) return true;
    if (!is_same_kind(reach_, needed)) return false;
    return std::ranges::all_of(needed.files.readable, [&](const auto& path) { return is_in(path, readable_); }) &&
           std::ranges::all_of(needed.files.writable, [&](const auto& path) { return is_in(path, writable_); });
}

HostReach joined_reach(const HostReach& now, const std::vector<HostReach>& later) {
    HostReach out = now;
    for (auto paths : {&HostFiles::readable, &HostFiles::writable}) {
        std::set<std::string> all((now.files.*paths).begin(), (now.files.*paths).end());
        for (const HostReach& one : later)
            if (is_same_kind(one, now)) all.insert((one.files.*paths).begin(), (one.files.*paths).end());
        (out.files.*paths).assign(all.begin(), all.end());
    }
    return out;
}

}  // namespace uext4::cli
