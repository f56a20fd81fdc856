// Requests to the server of a mount, on a descriptor of the mount's root directory.
#pragma once

#include <sys/ioctl.h>

// Closes the file system to changes and makes the image one that needs no replay; EBUSY when it is frozen. What the
// kernel still holds in its cache, or is sending, waits for the thaw: it has to be sent and to arrive first, when the
// mount is not frozen (UEXT4_IOC_MARK and UEXT4_IOC_ARRIVED; cached_writes.h). Changes that are asked for meanwhile
// wait. EPERM for anybody but root and the user who mounted, as with these two.
#define UEXT4_IOC_FREEZE _IO('U', 0x40)
// EINVAL when it is not frozen.
#define UEXT4_IOC_THAW _IO('U', 0x41)
// The server's process id, in the server's own namespace: when that process is gone the image is released.
#define UEXT4_IOC_SERVER _IOR('U', 0x42, int)
// Whether it is frozen: 1, or 0. A syncfs(2) of a frozen mount waits for the thaw.
#define UEXT4_IOC_FROZEN _IOR('U', 0x43, int)
// Marks the descriptor, and gives the mark's number. Closed behind a syncfs(2), it is released when all that this has
// made the kernel send has arrived; syncfs(2) does not wait for that.
#define UEXT4_IOC_MARK _IOR('U', 0x44, int)
// Waits until the descriptor that has the mark of this number is released. EBUSY when the mount is frozen, or is so
// meanwhile: nothing arrives then.
#define UEXT4_IOC_ARRIVED _IOW('U', 0x45, int)
