// Blocks of the map itself (extent nodes, indirect blocks): taken, counted in i_blocks, given back.
#pragma once

#include "extent/block_map.h"

#include <cstdint>
#include <vector>

namespace uext4 {

struct TreeBlocks {
    MapEnvironment& context;
    ExtentOwner& owner;

    std::uint64_t ratio() const { return context.allocator.geometry().cluster_ratio; }

    // A zeroed block near `goal` that `handle` may change, marked as `kind`; counted in i_blocks. Paid from `paid`
    // while it lasts, else from free space, the reserve included: a map step must not fail where blocks are left.
    Result<BufferRef> allocate(Handle& handle, BlockNr goal, DelallocReservation* paid, BlockKind kind);
    // `count` of them or none.
    Result<std::vector<BufferRef>> allocate_all(Handle& handle, std::uint64_t count, BlockNr goal,
                                                DelallocReservation* paid, BlockKind kind);
    // What giving these blocks back will have to read. Taken before the map is changed, and kept until they are given
    // back, so that no device can fail in between.
    Result<std::vector<BufferRef>> pin_for_free(BlockNr first, std::uint64_t count);
    // Gives a block of the map back and takes it out of i_blocks; nothing may refer to it any more.
    Result<void> free(Handle& handle, BlockNr block);
    // Frees whole clusters of data, revoking them where the data was journaled; takes them out of i_blocks.
    Result<void> free_data(Handle& handle, BlockNr first, std::uint64_t count);
};

}  // namespace uext4
