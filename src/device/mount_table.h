// The kernel's table of mounts, as this process sees it.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace uext4 {

struct MountEntry {
    dev_t device;             // file systems over several devices, and those without one, have a made-up number
    std::string mount_point;  // an absolute path
    std::string type;         // ext4, fuse.uext4
    std::string source;       // of a device, mostly its node
    bool writable = false;    // the file system, not only this mount of it
};

// Later ones lie on top of earlier ones. Empty where the table cannot be read.
std::vector<MountEntry> mount_table();

// What is mounted, topmost, at an absolute path without symlinks.
std::optional<MountEntry> find_mount(const std::string& directory);

}  // namespace uext4
