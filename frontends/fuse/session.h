// libfuse's sessions: the server's own, and the one by which another process mounts for it.
#pragma once

#include "base/result.h"
#include "fuse/library.h"
#include "fuse/options.h"

#include <string>

namespace uext4::fuse {

// EINVAL where libfuse does not accept the options.
Result<fuse_session*> new_session(const MountOptions& options, const fuse_lowlevel_ops& table, void* self, bool debug);

// Mounts, by fusermount3 where this process may not. The descriptor by which the kernel's requests come; -1, with a
// message on stderr, where that fails.
int mount_channel(const MountOptions& options, const std::string& directory);

}  // namespace uext4::fuse
