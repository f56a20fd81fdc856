// The block of attributes of an inode; may be shared by several inodes. map_lock held.
#pragma once

#include "format/xattr.h"
#include "inode/inode.h"

#include <vector>

namespace uext4 {

// Validated items with their values copied; none when the inode has no such block.
Result<std::vector<format::XattrToStore>> read_xattr_block(Inode& inode);
// Has its block no other user? (False without a block.)
Result<bool> is_xattr_block_unshared(Inode& inode);
// Would these items fit in a block?
bool xattr_block_fits(const FsContext& fs, const std::vector<format::XattrToStore>& items);
// The inode's block holds these items afterwards: changed in place when it is its own, else a new block and one user
// less of the old. Freed when there are none. The inode is stored. Value inodes count the blocks that name them: a new
// item's is counted by its maker, copies are counted here. Returns those with a count too many now, for
// drop_value_inode_reference() when map_lock is no longer held, under the same handle.
[[nodiscard]] Result<std::vector<std::uint32_t>> write_xattr_block(Handle& handle, Inode& inode,
                                                                   std::vector<format::XattrToStore> items,
                                                                   bool may_use_reserve);

}  // namespace uext4
