// fusermount3, the set-uid program of libfuse.
#pragma once

#include <string>

namespace uext4::fuse {

// Runs fusermount3 -u on behalf of somebody without the right to call umount(2); its exit status, or -1.
int run_fusermount(const std::string& directory, bool lazy);

}  // namespace uext4::fuse
