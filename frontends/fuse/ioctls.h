// Requests to the server of a mount, on a descriptor of the mount's root directory.
#pragma once

#include <sys/ioctl.h>

// Closes the file system to changes and makes the image one that needs no replay; EBUSY when it is frozen. What the
// kernel still holds in its cache stays there until the thaw: call syncfs(2) on the descriptor first, when it is not
// frozen. Changes that are asked for meanwhile wait. EPERM for anybody but root and the user who mounted.
#define UEXT4_IOC_FREEZE _IO('U', 0x40)
// EINVAL when it is not frozen.
#define UEXT4_IOC_THAW _IO('U', 0x41)
// The server's process id, in the server's own namespace: when that process is gone the image is released.
#define UEXT4_IOC_SERVER _IOR('U', 0x42, int)
// Whether it is frozen: 1, or 0. A syncfs(2) of a frozen mount waits for the thaw.
#define UEXT4_IOC_FROZEN _IOR('U', 0x43, int)
