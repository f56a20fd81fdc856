#include "sandbox/device_nodes.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>

namespace uext4 {

bool shut_devices() {
    if (::unshare(CLONE_NEWNS) != 0) return false;
    // What is mounted below later would come without it.
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
    mount_attr without_devices{};
    without_devices.attr_set = MOUNT_ATTR_NODEV;
    return ::mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &without_devices, sizeof without_devices) == 0;
}

}  // namespace uext4
