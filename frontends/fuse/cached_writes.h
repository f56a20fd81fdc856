// What the kernel has in its cache of a mount, as the mount's users reach it (the server's own way:
// Server::call_in_writes).
#pragma once

#include "base/result.h"

namespace uext4::fuse {

// Makes the kernel send all of it, and waits until it has arrived at the server: syncfs(2) does not. `root`: a
// descriptor of the mount's root directory. The value is 0, or the error of a write that was refused: this one's, or
// one that has not been told on the descriptor yet. Errors: EBUSY where the mount is frozen, as nothing arrives then;
// ENOTTY where it is no mount of uext4; those of open(2) and ioctl(2). Bounded: what is written meanwhile is not waited
// for.
Result<int> send_cached_writes(int root);

}  // namespace uext4::fuse
