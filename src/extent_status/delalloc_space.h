// Space for data that is dirty in the page cache: delalloc reservations, and the blocks that an allocation has chosen
// but no map names yet. No method needs a handle; all need the inode's map_lock.
//
// Invariant
//   M3  The reservation covers every delayed cluster (but block 0 beyond space, and a cluster whose mapped part went),
//       and the worst case of tree blocks for mapping all pending runs.
#pragma once

#include "extent_status/extent_status_tree.h"

#include <optional>
#include <vector>

namespace uext4 {

class DelallocSpace {
public:
    explicit DelallocSpace(ExtentStatusTree& tree) : tree_(tree) {}

    // hole -> delayed, for every hole block of [first, first+count); blocks in another state stay. ENOSPC leaves
    // nothing newly delayed.
    Result<void> reserve(LogicalBlock first, std::uint64_t count, bool privileged);
    // The same; returns what is newly delayed.
    Result<std::vector<BlockRange>> reserve_holes(LogicalBlock first, std::uint64_t count, bool privileged);
    // Block 0 becomes delayed while the data is still in the inode. `beyond_space`: also if no space is left to
    // reserve; its allocation may then fail.
    Result<void> reserve_inline_block(bool privileged, bool beyond_space = false);
    // hole -> delayed for data that had a reservation. Without space the data stays dirty, and the writeback asks
    // again.
    Result<void> restore(const BlockRange& range);

    // delayed -> allocated for a run that starts at `first`: at most `count` blocks, all delayed; perhaps fewer.
    struct AllocatedRun {
        LogicalBlock first;
        std::uint64_t count = 0;
        BlockNr block;
    };
    // A caller's own choice in place of allocation_goal(). `is_growing`: the file goes on behind the run.
    struct AllocationGoal {
        BlockNr block;
        bool is_growing = true;
    };
    Result<AllocatedRun> allocate(LogicalBlock first, std::uint64_t count, bool privileged,
                                  const std::optional<AllocationGoal>& goal = std::nullopt);
    // Just behind the block before, or one further if the file ends in that block and it does not lie with its
    // neighbours; a new file starts at its group's goal.
    Result<BlockNr> allocation_goal(LogicalBlock block);
    // Chooses blocks for [first, first+count), none of which has one; the run that `out` describes is at most that
    // long. `together`: the blocks are a hole of which nothing is reserved, and get as many clusters as lie side by
    // side.
    enum class ClusterPolicy { one_by_one, together };
    Result<AllocatedRun> allocate_run(LogicalBlock first, std::uint64_t count, DelallocReservation* paid,
                                      bool privileged, ExtentStatusTree::PendingRun& out,
                                      const std::optional<AllocationGoal>& wanted, ClusterPolicy how);
    // allocated -> delayed after a failed write: the next allocation chooses other blocks.
    Result<void> revert(LogicalBlock first, std::uint64_t count);
    // delayed -> hole, allocated -> hole (I/O has ended), for all of [first, end).
    void release(LogicalBlock first, LogicalBlock end);
    // Nothing is pending: the rest of the reservations goes.
    void trim();

    // What delayed and allocated blocks will add to st_blocks, in sectors of 512 bytes.
    std::uint64_t sectors() const;
    // All blocks that are reserved or held for what is pending, its tree included.
    std::uint64_t reserved_blocks() const;
    // Free blocks that a reservation for one block of an empty file needs, with those of the tree above it.
    std::uint64_t min_free_for_one_block() const;
    // What a handle pays data and tree blocks from; null if nothing is reserved.
    DelallocReservation* data_reservation() { return data_reservation_.clusters() ? &data_reservation_ : nullptr; }
    DelallocReservation* tree_reservation() { return tree_reservation_.clusters() ? &tree_reservation_ : nullptr; }

private:
    using PendingRun = ExtentStatusTree::PendingRun;
    using ClusterBacking = ExtentStatusTree::ClusterBacking;

    std::uint64_t tree_blocks_for(std::uint64_t runs, std::uint64_t blocks) const;  // at most
    Result<void> reserve_tree_blocks(bool privileged);

    ExtentStatusTree& tree_;
    DelallocReservation data_reservation_, tree_reservation_;
};

}  // namespace uext4
