// Mounting an image with FUSE, and taking the mount away.
#pragma once

#include "device/open_device.h"

#include <chrono>
#include <string>

namespace uext4::fuse {

struct MountRequest {
    std::string image;  // as FileSystem::mount takes it
    std::string directory;
    std::string options;  // as after -o: docs/MOUNT.md
    bool foreground = false;
    bool debug = false;                                      // print every request; implies foreground
    std::chrono::milliseconds wait = default_write_timeout;  // for another process that has the image open
    // By mount(8), which always passes `rw`. Otherwise `rw` means that a mount that can only be read is a failure.
    bool by_mount_program = false;
};

// Serves the image at the directory. Not in the foreground: returns 0 once the mount answers, a child process serves it
// (and does not return). In the foreground: returns after the unmount. 0, or 2 with a message on stderr (a background
// server that fails later says so to syslog). With `nofail`, an image that is not there is told, and `absent` is
// returned.
inline constexpr int absent = -1;
int run_mount(const MountRequest& request);

struct UmountRequest {
    bool lazy = false;   // MNT_DETACH: whoever is in it stays there, and nothing is waited for
    bool force = false;  // MNT_FORCE: what the server has not answered fails; it is not waited for either
};

// Takes the mount away and waits, up to ten minutes, until its server has released the image. 0, or 2 with a message on
// stderr.
int run_umount(const std::string& directory, UmountRequest request = {});

}  // namespace uext4::fuse
