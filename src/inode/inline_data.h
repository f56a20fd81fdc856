// Contents that live in the inode: 60 bytes of i_block, then the value of the attribute system.data.
// map_lock held for all of these.
#pragma once

#include "inode/inode.h"

#include <vector>

namespace uext4 {

// Bytes that could be stored, given the other attributes in the inode; 0 when the inode cannot have inline data.
std::uint64_t max_inline_size(Inode& inode);
// All bytes of the area (60 and the attribute's value); contents end at the size. EUCLEAN names the inode.
Result<std::vector<std::byte>> read_inline_data(Inode& inode);
// The inode has the attribute that says so: with the flag alone it has no inline data, as for the kernel.
bool has_inline_xattr(Inode& inode);
// Replaces the contents and stores the inode: one credit. ENOSPC when they do not fit; nothing is changed then.
Result<void> write_inline_data(Handle& handle, Inode& inode, ConstBytes contents);
// Contents gone, flag gone, an empty extent root (or empty indirect map) instead. Stores the inode.
Result<void> clear_inline_data(Handle& handle, Inode& inode);
// For a new inode: the flag and an empty attribute. Not stored.
Result<void> init_inline_data(Inode& inode);

}  // namespace uext4
