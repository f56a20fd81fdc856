// Devices of the host. A process that may make nodes for them (a copy of a tree to the host) makes one for a disk, and
// writes to that disk: unless what it makes cannot be opened.
#pragma once

namespace uext4 {

// From now on the calling process, which has one thread, opens no device, whatever name leads to it: all mounts have
// nodev, in a mount name space of its own. What is open stays usable. False where that cannot be had: it takes
// CAP_SYS_ADMIN and Linux 5.12. Directories must not be open, whose mounts stay what they were.
bool shut_devices();

}  // namespace uext4
