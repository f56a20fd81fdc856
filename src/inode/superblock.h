// The superblock as a metadata buffer.
#pragma once

#include "extent_status/fs_context.h"

#include <functional>

namespace uext4 {

// The block that it is in. Who changes it on the device past the journal holds this meanwhile, and changes it too: the
// next change by the journal is made to what is in memory.
Result<BufferRef> read_superblock_buffer(FsContext& fs);
format::SuperBlock& superblock_in(FsContext& fs, Buffer& buffer);  // its lock is held
// Changes fields of the superblock under a handle (one credit), checksum included.
Result<void> update_superblock(FsContext& fs, Handle& handle, const std::function<void(format::SuperBlock&)>& change);
Result<format::SuperBlock> read_superblock(FsContext& fs);

}  // namespace uext4
