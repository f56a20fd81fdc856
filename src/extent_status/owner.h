// What the states of a file's blocks need of the inode that owns them. The caller holds the inode's map_lock.
#pragma once

#include "extent/block_map.h"

#include <cstdint>

namespace uext4 {

class ExtentStatusOwner : public ExtentOwner {
public:
    virtual bool is_inline() const = 0;           // the contents are in the inode
    virtual std::uint64_t size() const = 0;       // bytes, as users see it
    virtual std::uint64_t disk_size() const = 0;  // bytes, as the inode table gets it
    // The handle's transaction makes blocks [first, end) unwritten, or unmaps them within a cluster that the file
    // keeps.
    virtual void note_uncommitted_unmap(Tid tid, LogicalBlock first, LogicalBlock end) = 0;
    // The contents leave the inode, which gets an empty map. Stores the inode. EUCLEAN if the inode's area is damaged.
    virtual Result<void> clear_inline(Handle& handle) = 0;
    // Blocks that store_i_block() changes: the inode's, and the superblock's if the size needs a feature.
    static constexpr unsigned store_credits() { return 2; }
};

}  // namespace uext4
