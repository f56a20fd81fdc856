// Who asks.
#pragma once

#include "fuse/library.h"
#include "inode/access.h"

namespace uext4::fuse {

// User, group and umask of the request. Supplementary groups cost a look into /proc, so only on demand: they decide
// whether a set-group-id bit may stay.
Credentials credentials_of(fuse_req_t request, bool with_groups = false);

}  // namespace uext4::fuse
