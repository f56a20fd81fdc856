// Attribute values in inodes of their own (feature ea_inode).
#pragma once

#include "inode/inode_table.h"

#include <vector>

namespace uext4 {

// EUCLEAN when it is not such an inode, or its contents do not match the hash.
Result<std::vector<std::byte>> read_value_inode(InodeTable& table, InodeNr number, std::uint32_t size);
// A new one with a reference count of 1. The owner's map_lock must not be held.
struct ValueInode {
    InodeNr number;
    std::uint32_t hash = 0;
};
Result<ValueInode> create_value_inode(Handle& handle, InodeTable& table, Inode& owner, ConstBytes value);
// One reference more. The owner's map_lock may be held, if the inode is in memory already.
Result<void> share_value_inode(Handle& handle, InodeTable& table, InodeNr number);
// One reference less; freed with the last. The owner's map_lock must not be held.
Result<void> drop_value_inode(Handle& handle, InodeTable& table, InodeNr number);

}  // namespace uext4
