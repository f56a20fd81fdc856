// -o of a mount, split into what the file system takes, what FUSE takes, and what is an error.
#pragma once

#include "volume/options.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace uext4::fuse {

struct MountOptions {
    VolumeOptions volume;
    bool allow_other = false;
    bool auto_unmount = false;
    bool sandbox = true;    // nosandbox
    bool placement = true;  // noplacement
    bool nofail = false;    // an image that is not there is no failure
    std::optional<unsigned> max_read;
    std::string source;  // fsname=, or the image's path
    std::string subtype = "uext4";
    std::vector<std::string> flags;  // nodev, suid, noexec, ...: passed on to the kernel as they are
};

// EINVAL names the option that is not known, or that this user may not give. `privileged`: runs as root.
Result<MountOptions> parse_mount_options(std::string_view text, bool privileged);

// The argument of libfuse's -o.
std::string library_options(const MountOptions& options);

}  // namespace uext4::fuse
