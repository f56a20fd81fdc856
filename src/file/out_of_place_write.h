// A block of a file gets new contents in one handle, in another place or, where there is none, through the log: a cut
// leaves the old ones or the new ones.
#pragma once

#include "inode/inode.h"

#include <optional>
#include <vector>

namespace uext4 {

struct OutOfPlaceWrite {
    LogicalBlock at;
    BlockNr old_block;
    Allocation allocation;                 // of one block, which gets the bytes before the swap
    DelallocReservation tree_reservation;  // for the extent that the swap splits
    std::vector<BufferRef> pinned;         // what the swap reads
};

// Allocates a block near `goal` for the contents of `old`, block `at` of the file. `grows`: the file continues behind
// it, and keeps room there. Returns nothing if there is no space, if a cluster has several blocks, or if `old` cannot
// be freed. The caller does not hold map_lock, and no other thread moves the block meanwhile.
std::optional<OutOfPlaceWrite> prepare_out_of_place_write(Inode& inode, LogicalBlock at, BlockNr old, BlockNr goal,
                                                          bool grows);
constexpr unsigned out_of_place_write_credits() { return 3 * Allocator::mark_used_credits() + 4; }
// Needs out_of_place_write_credits() beside those of ExtentStatusTree::credits(). `then`: what becomes of the old
// block. map_lock held.
Result<void> finish_out_of_place_write(Handle& handle, Inode& inode, OutOfPlaceWrite& swap,
                                       Allocator::Reuse then = Allocator::Reuse::normal);
// In its place. Needs a credit, and a log. map_lock is not held.
Result<void> log_block(Handle& handle, Inode& inode, BlockNr block, ConstBytes contents);

}  // namespace uext4
