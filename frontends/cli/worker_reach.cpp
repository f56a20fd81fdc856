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

WorkerReach::Place::Place(const std::string& name) : path(name) {
    struct stat st{};
    link = ::lstat(path.c_str(), &st) == 0 && S_ISLNK(st.st_mode);
    if (::stat(path.c_str(), &st) != 0) return;
    device = st.st_dev;
    inode = st.st_ino;
    kind = st.st_mode & S_IFMT;
}

std::vector<WorkerReach::Place> WorkerReach::places_of(const std::vector<std::string>& paths) {
    return {paths.begin(), paths.end()};
}

// By its name, and it is what it was; or what has been made there since.
bool WorkerReach::is_one(const Place& now, const std::vector<Place>& places) {
    return std::ranges::any_of(places, [&](const Place& then) {
        if (then.path != now.path) return false;
        if (then.kind == 0)
            return now.link == then.link && (now.kind == 0 || (!now.link && (S_ISREG(now.kind) || S_ISDIR(now.kind))));
        return then.kind == now.kind && then.device == now.device && then.inode == now.inode;
    });
}

// One of them, or a file or folder that lies below a folder of them. What is not there can be read by nobody.
bool WorkerReach::is_in(const std::string& path, const std::vector<Place>& places) {
    const Place wanted(path);
    if (wanted.kind == 0 || is_one(wanted, places)) return true;
    if (!S_ISREG(wanted.kind) && !S_ISDIR(wanted.kind)) return false;
    std::error_code error;
    std::filesystem::path real = std::filesystem::canonical(path, error);
    if (error) return false;
    for (;; real = real.parent_path()) {
        const Place above(real);
        if (above.kind == 0) return false;
        if (std::ranges::any_of(places, [&](const Place& place) {
                return S_ISDIR(place.kind) && place.device == above.device && place.inode == above.inode;
            }))
            return true;
        if (!real.has_relative_path()) return false;
    }
}

namespace {

// One process has the rights for one kind of copy.
bool is_same_kind(const HostReach& a, const HostReach& b) {
    return a.reach == b.reach && a.files.may_chown == b.files.may_chown && a.files.attributes == b.files.attributes &&
           a.files.whole_trees == b.files.whole_trees && a.files.special_modes == b.files.special_modes;
}

}  // namespace

bool WorkerReach::covers(const HostReach& needed) const {
    if (needed.reach == SandboxProfile::image) return true;
    if (!is_same_kind(reach_, needed)) return false;
    return std::ranges::all_of(needed.files.readable, [&](const auto& path) { return is_in(path, readable_); }) &&
           std::ranges::all_of(needed.files.writable, [&](const auto& path) { return is_one(Place(path), writable_); });
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
