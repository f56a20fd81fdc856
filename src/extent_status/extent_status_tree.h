// Where each block of a file lives: what is on disk (BlockMap), overlaid by what is only in memory (delayed, allocated,
// converting). All methods need the inode's map_lock.
//
// Invariants
//   M1  A block is in at most one pending run; a delayed or allocated block is a hole on disk (or block 0 of inline
//       data).
//   M2  The sequence number grows with every change of any block's state.
//   M3  The reservation covers every delayed cluster (but block 0 beyond space, and a cluster whose mapped part went),
//   and the worst case of tree blocks for mapping all pending runs.
#pragma once

#include "alloc/allocator.h"
#include "extent/block_map.h"
#include "extent_status/fs_context.h"
#include "extent_status/mapping.h"
#include "extent_status/owner.h"

#include <map>
#include <memory>
#include <optional>
#include <vector>

namespace uext4 {

class ExtentStatusTree {
public:
    ExtentStatusTree(FsContext& fs, BlockMap& map, ExtentStatusOwner& owner);
    ~ExtentStatusTree();

    // The run at byte `offset`, at most `length` bytes, block-aligned outward. Past the format's limit: a hole.
    Result<Mapping> lookup(std::uint64_t offset, std::uint64_t length);
    std::uint64_t sequence() const { return sequence_; }
    void invalidate() {
        ++sequence_;
        cached_extent_.reset();
    }
    // Who goes to the device by what lookup() said, without the inode for himself or its folios, has this until then:
    // before that, a block that is moved away from goes to nobody else.
    std::shared_ptr<const void> begin_device_io();
    void defer_free(std::shared_ptr<const void> freed);
    // How often the cache has written over what is on disk, or set out to.
    std::uint64_t overwrite_count() const { return overwrites_; }
    void note_overwrite() { ++overwrites_; }
    void clear_cached_extent() { cached_extent_.reset(); }

    // hole -> delayed, for every hole block of [first, first+count); blocks that live somewhere already stay. ENOSPC
    // leaves nothing newly delayed.
    Result<void> reserve_delalloc(LogicalBlock first, std::uint64_t count, bool privileged);
    // delayed -> allocated for a run that starts at `first`: at most `count` blocks, all delayed; perhaps fewer.
    struct AllocatedRun {
        LogicalBlock first;
        std::uint64_t count = 0;
        BlockNr block;
    };
    // `goal`: for who knows better than allocation_goal() where they are to lie; `grows`: the file goes on behind them.
    struct AllocationGoal {
        BlockNr block;
        bool is_growing = true;
    };
    Result<AllocatedRun> allocate(LogicalBlock first, std::uint64_t count, bool privileged,
                                  const std::optional<AllocationGoal>& goal = std::nullopt);
    // Just behind the block before, or one further where the file ends in that and it is not with its neighbours; a new
    // file starts at its group's goal.
    Result<BlockNr> allocation_goal(LogicalBlock block);
    // The data of the allocated blocks in [first, end) goes to the device past the cache: until it is there,
    // they read as the hole that they were. One range at a time.
    void set_data_pending(LogicalBlock first, LogicalBlock end);
    void clear_data_pending(LogicalBlock up_to);
    // allocated -> delayed again, in other blocks next time (a data write failed).
    Result<void> revert_to_delayed(LogicalBlock first, std::uint64_t count);
    // allocated -> mapped under the handle; stops early when the handle has no room: returns the first block not
    // mapped.
    Result<LogicalBlock> map_allocated(Handle& handle, LogicalBlock first, std::uint64_t count);
    // unwritten -> converting (in memory), and later converting -> mapped.
    void mark_converting(LogicalBlock first, std::uint64_t count);
    // Where the tree finds no block for a split, all of the extent is converted, with zeros where nothing was written,
    // but nothing behind the size on disk and what is written before `reach`, up to which the size may grow.
    Result<LogicalBlock> convert_unwritten(Handle& handle, LogicalBlock first, std::uint64_t count, LogicalBlock reach);
    // Both of them, in the order of the blocks, for a range whose allocated and unwritten blocks have all been written;
    // mapped ones stay. What else before `reach` has been written is marked as such already. Returns the first block
    // not done when the handle has no room.
    Result<LogicalBlock> map_range(Handle& handle, LogicalBlock first, std::uint64_t count, LogicalBlock reach);
    // hole or delayed -> unwritten at once under the handle (fallocate). Returns the first block not done when the
    // handle has no room.
    Result<LogicalBlock> allocate_unwritten(Handle& handle, LogicalBlock first, std::uint64_t count, bool privileged);
    // hole, delayed or unwritten -> mapped at once under the handle, which journals the contents (data=journal). All
    // of it or nothing: what is mapped and never written would show what its blocks held before.
    Result<void> allocate_for_journaled_data(Handle& handle, LogicalBlock first, std::uint64_t count, bool privileged);
    // delayed -> hole, allocated -> hole (I/O has ended), for all of [first, end).
    void remove_pending(LogicalBlock first, LogicalBlock end);
    // Unmaps on-disk blocks of [first, end), as BlockMap::remove. No I/O to allocated blocks is on its way.
    Result<LogicalBlock> unmap_range(Handle& handle, LogicalBlock first, LogicalBlock end);
    // Of what remove() is to unmap, the blocks at either side that the file keeps, as a part of a cluster: [first,
    // end).
    std::vector<std::pair<LogicalBlock, LogicalBlock>> partial_cluster_blocks(LogicalBlock first,
                                                                              LogicalBlock end) const;
    // Credits for one publish, convert, allocate_* or remove step.
    unsigned credits();

    bool has_pending() const { return !pending_.empty(); }
    // What delayed and allocated blocks will add to st_blocks.
    std::uint64_t pending_sectors() const;
    // All blocks that are promised or held for what is pending, its tree included.
    std::uint64_t reserved_blocks() const;
    // Free blocks without which not one can be promised where there is none yet: with those of the tree above it.
    std::uint64_t min_free_for_one_block() const;
    // The first delayed or allocated block at or after `from`.
    std::optional<LogicalBlock> first_pending(LogicalBlock from) const;
    // Takes inline data's place: block 0 becomes delayed while the data is still in the inode. `may_exceed_space`:
    // also where there is nothing to reserve, and its allocation may find no space.
    Result<void> reserve_inline_block(bool privileged, bool beyond_space = false);

private:
    struct Range {
        std::uint64_t first = 0, count = 0;
        std::uint64_t end() const { return first + count; }
    };
    struct PendingRun {
        std::uint64_t count = 0;
        BlockState state = BlockState::delayed;
        BlockNr block;  // allocated, converting
        std::shared_ptr<Allocation>
            allocation;  // allocated: covers exactly this run; with clusters of several blocks: the cluster,
                         // shared by its runs, empty once published; null when the cluster is in use
    };
    using Runs = std::map<std::uint64_t, PendingRun>;

    std::uint64_t ratio() const;  // blocks a cluster
    // pending_ changes its runs only by these, split_at() and merge_around(), which keep the counts.
    Runs::iterator add_run(std::uint64_t first, PendingRun run);
    Runs::iterator erase_run(Runs::iterator it);
    Runs::iterator split_at(std::uint64_t block);
    Runs::iterator run_at_or_after(std::uint64_t block);
    Result<MappedRun> lookup_on_disk(LogicalBlock from, std::uint64_t max);
    // The next blocks of [at, end) that no run has, as they are on disk, at most as many as lie together there; `at`
    // goes to the first of them. None: there are none.
    Result<std::optional<MappedRun>> next_unpending_extent(std::uint64_t& at, std::uint64_t end);
    // Where the logical cluster already has a physical one; none (0) otherwise. `promised`: a block of it is delayed.
    struct ClusterBacking {
        BlockNr base;
        std::shared_ptr<Allocation> allocation;
        bool is_reserved = false;
    };
    Result<ClusterBacking> find_cluster(std::uint64_t cluster);
    Result<std::uint64_t> clusters_needed(std::uint64_t first, std::uint64_t count);
    // `together`: the blocks are a hole of which nothing is promised, and get as many clusters as there are side by
    // side.
    enum class ClusterPolicy { one_by_one, together };
    Result<AllocatedRun> allocate_run(LogicalBlock first, std::uint64_t count, DelallocReservation* paid,
                                      bool privileged, PendingRun& out, const std::optional<AllocationGoal>& goal,
                                      ClusterPolicy how);
    Result<void> map_blocks(Handle& handle, std::uint64_t first, PendingRun& run, bool unwritten);
    Result<bool> convert_whole_extents(Handle& handle, std::uint64_t first, std::uint64_t end, std::uint64_t reach);
    std::uint64_t end_of_converting(std::uint64_t from, std::uint64_t to);
    Result<void> zero_unwritten(Handle& handle, const MappedRun& extent);
    Result<std::vector<MappedRun>> unwritten_runs(LogicalBlock first, std::uint64_t count);
    Result<std::vector<Range>> reserve_holes(LogicalBlock first, std::uint64_t count, bool privileged);
    // hole or delayed -> mapped or unwritten under the handle; what it names is added to `named`.
    Result<LogicalBlock> map_holes(Handle& handle, LogicalBlock first, LogicalBlock end, bool unwritten,
                                   bool privileged, std::vector<Range>& named);
    // The steps of allocate_for_journaled_data(), and the way back from where one fails.
    struct UndoRecord {
        std::vector<Range> reserved, mapped, converted;
    };
    Result<void> convert_for_contents(Handle& handle, const std::vector<MappedRun>& unwritten,
                                      Result<DelallocReservation> paid, UndoRecord& done);
    Result<void> undo_journaled_data(Handle& handle, const UndoRecord& done);
    Result<LogicalBlock> unmap_on_disk(Handle& handle, LogicalBlock first, LogicalBlock end);
    Result<void> restore_delayed(const Range& range);
    Result<void> release_used_cluster(std::uint64_t cluster);
    std::uint64_t tree_blocks_for(std::uint64_t runs, std::uint64_t blocks) const;  // at most
    Result<void> reserve_tree_blocks(bool privileged);
    void trim_reservations();
    void merge_around(std::uint64_t block);

    // What was freed while somebody had it; those before keep those after, as who is there longer may have both.
    struct DeviceIo {
        DeviceIo() = default;
        DeviceIo(const DeviceIo&) = delete;
        DeviceIo& operator=(const DeviceIo&) = delete;
        ~DeviceIo();  // however many follow
        std::vector<std::shared_ptr<const void>> freed;
        std::shared_ptr<DeviceIo> next;
    };

    FsContext& fs_;
    BlockMap& map_;
    ExtentStatusOwner& owner_;
    Runs pending_;
    std::uint64_t unmapped_runs_ = 0, unmapped_blocks_ = 0;  // of pending_: delayed and allocated
    DelallocReservation data_reservation_, tree_reservation_;
    std::uint64_t sequence_ = 1;
    LogicalBlock data_pending_, data_pending_end_;
    std::shared_ptr<DeviceIo> device_io_;
    std::uint64_t overwrites_ = 0;
    std::optional<MappedRun> cached_extent_;  // the newest lookup's answer, exact until invalidate()
};

}  // namespace uext4
