// Turns ranges of a file's blocks into extents under a handle, and back. All methods need the inode's map_lock and room
// for credits() in the handle; those that return a block stop early when the handle has no room: the block is the first
// that is not done.
#pragma once

#include "extent_status/delalloc_space.h"

#include <utility>
#include <vector>

namespace uext4 {

class ExtentMapper {
public:
    ExtentMapper(ExtentStatusTree& tree, DelallocSpace& delalloc) : tree_(tree), delalloc_(delalloc) {}

    // Of one step of each method.
    unsigned credits();

    // allocated -> mapped.
    Result<LogicalBlock> map_allocated(Handle& handle, LogicalBlock first, std::uint64_t count);
    // converting -> mapped. Where the tree finds no block for a split, all of the extent is converted, with zeros where
    // nothing was written, but nothing behind the size on disk and what is written before `reach`, up to which the size
    // may grow.
    Result<LogicalBlock> convert_unwritten(Handle& handle, LogicalBlock first, std::uint64_t count, LogicalBlock reach);
    // Both of them, in the order of the blocks, for a range whose allocated and unwritten blocks have all been written;
    // mapped ones stay. What else before `reach` has been written is marked as such already.
    Result<LogicalBlock> map_range(Handle& handle, LogicalBlock first, std::uint64_t count, LogicalBlock reach);
    // hole or delayed -> unwritten (fallocate).
    Result<LogicalBlock> allocate_unwritten(Handle& handle, LogicalBlock first, std::uint64_t count, bool privileged);
    // hole, delayed or unwritten -> mapped, for a handle that journals the contents (data=journal). All of it or
    // nothing: a block that is mapped and never written would show what it held before.
    Result<void> allocate_for_journaled_data(Handle& handle, LogicalBlock first, std::uint64_t count, bool privileged);
    // Unmaps on-disk blocks of [first, end), as BlockMap::remove. No I/O to allocated blocks is on its way.
    Result<LogicalBlock> unmap_range(Handle& handle, LogicalBlock first, LogicalBlock end);
    // Of what unmap_range() is to unmap, the blocks at either side that the file keeps, as a part of a cluster:
    // [first, end).
    std::vector<std::pair<LogicalBlock, LogicalBlock>> partial_cluster_blocks(LogicalBlock first,
                                                                              LogicalBlock end) const;

private:
    using PendingRun = ExtentStatusTree::PendingRun;
    using AllocatedRun = DelallocSpace::AllocatedRun;
    using ClusterPolicy = DelallocSpace::ClusterPolicy;

    Result<void> map_blocks(Handle& handle, std::uint64_t first, PendingRun& run, bool unwritten);
    Result<bool> convert_whole_extents(Handle& handle, std::uint64_t first, std::uint64_t end, std::uint64_t reach);
    Result<void> zero_unwritten(Handle& handle, const MappedRun& extent);
    Result<std::vector<MappedRun>> unwritten_runs(LogicalBlock first, std::uint64_t count);
    // hole or delayed -> mapped or unwritten; what it maps is added to `mapped`.
    Result<LogicalBlock> map_holes(Handle& handle, LogicalBlock first, LogicalBlock end, bool unwritten,
                                   bool privileged, std::vector<BlockRange>& mapped);
    // The steps of allocate_for_journaled_data(), and the way back from where one fails.
    struct UndoRecord {
        std::vector<BlockRange> reserved, mapped, converted;
    };
    Result<void> convert_for_contents(Handle& handle, const std::vector<MappedRun>& unwritten,
                                      Result<DelallocReservation> paid, UndoRecord& done);
    Result<void> undo_journaled_data(Handle& handle, const UndoRecord& done);
    Result<LogicalBlock> unmap_on_disk(Handle& handle, LogicalBlock first, LogicalBlock end);
    Result<void> release_used_cluster(std::uint64_t cluster);

    ExtentStatusTree& tree_;
    DelallocSpace& delalloc_;
};

}  // namespace uext4
