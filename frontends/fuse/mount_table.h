// The kernel's table of mounts.
#pragma once

#include <optional>
#include <string>

namespace uext4::fuse {

struct MountEntry {
    std::string device;  // major:minor
    std::string type;    // fuse.uext4
    std::string source;
};

// What is mounted, topmost, at an absolute path without symlinks.
std::optional<MountEntry> find_mount(const std::string& directory);

// Runs fusermount3 -u on behalf of somebody without the right to call umount(2); its exit status, or -1.
int run_fusermount(const std::string& directory, bool lazy);

}  // namespace uext4::fuse
