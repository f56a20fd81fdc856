// The superblock as a metadata buffer.
#pragma once

#include "inode/context.h"

#include <functional>

namespace uext4 {

// Changes fields of the superblock under a handle (one credit), checksum included.
Result<void> change_super(FsContext& fs, Handle& handle, const std::function<void(format::SuperBlock&)>& change);
Result<format::SuperBlock> read_super(FsContext& fs);

}  // namespace uext4
