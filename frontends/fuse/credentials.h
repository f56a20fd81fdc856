// Who asks.
#pragma once

#include "fuse/library.h"
#include "inode/access.h"

namespace uext4::fuse {

// User, group and umask of the request. Supplementary groups cost a look into /proc, so only on demand: they decide
// whether a set-group-id bit may stay.
Credentials credentials_of(fuse_req_t request, bool with_groups = false);
// Of who changes this file. `takes_set_ids`: the kernel says that this caller's change takes the bits, root or not.
Credentials changer_of(fuse_req_t request, const Inode& inode, bool takes_set_ids);

}  // namespace uext4::fuse
