// Attribute values in inodes of their own (feature ea_inode).
#pragma once

#include "inode/inode_table.h"

#include <vector>

namespace uext4 {

// EUCLEAN when it is not such an inode, ESTALE when it is not in use (any more).
Result<InodeRef> open_value_inode(InodeTable& table, InodeNr number);
// Its contents. They stay for as long as the owner's map_lock is held. EUCLEAN when they do not match the size or the
// hash.
Result<std::vector<std::byte>> read_value_inode(const InodeRef& value, std::uint32_t size);
// A new one with a reference count of 1. The owner's map_lock must not be held.
struct ValueInode {
    InodeNr number;
    std::uint32_t hash = 0;
};
Result<ValueInode> create_value_inode(Handle& handle, InodeTable& table, Inode& owner, ConstBytes value,
                                      bool may_use_reserve);
// One reference more. The owner's map_lock may be held, if the inode is in memory already.
// Its block has joined the transaction: the two below read nothing of it for as long as it is held.
Result<InodeRef> get_value_inode(Handle& handle, InodeTable& table, InodeNr number);
// The same of all that drop_value_inode_reference() reads, and what holds it in memory.
struct PinnedValueInode {
    InodeRef inode;
    std::vector<BufferRef> buffers;
};
Result<PinnedValueInode> pin_for_drop(Handle& handle, InodeTable& table, InodeNr number);
Result<void> add_value_inode_reference(Handle& handle, InodeTable& table, InodeNr number);
// One reference less; freed with the last. The owner's map_lock must not be held.
Result<void> drop_value_inode_reference(Handle& handle, InodeTable& table, InodeNr number);

}  // namespace uext4
