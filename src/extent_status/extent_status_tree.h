// The state of each block of a file: what is on disk (BlockMap), overlaid by what is only in memory: runs of delayed,
// allocated and converting blocks. All methods need the inode's map_lock. DelallocSpace and ExtentMapper change the
// runs; everyone else asks lookup().
//
// Invariants
//   M1  A block is in at most one pending run; a delayed or allocated block is a hole on disk (or block 0 of inline
//       data).
//   M2  The sequence number grows with every change of any block's state.
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

// Blocks of a file.
struct BlockRange {
    std::uint64_t first = 0, count = 0;
    std::uint64_t end() const { return first + count; }
};

class ExtentStatusTree {
public:
    ExtentStatusTree(FsContext& fs, BlockMap& map, ExtentStatusOwner& owner);
    ~ExtentStatusTree();

    // The run at byte `offset`, at most `length` bytes, block-aligned outward. Past the format's limit: a hole.
    Result<Mapping> lookup(std::uint64_t offset, std::uint64_t length);
    std::uint64_t sequence() const { return sequence_; }
    void note_change() { ++sequence_; }
    // The map on disk changes.
    void invalidate() {
        ++sequence_;
        cached_extent_.reset();
    }
    void clear_cached_extent() { cached_extent_.reset(); }

    // A thread that goes to the device by what lookup() said, and holds neither the inode nor its folios, keeps this
    // until its I/O has ended. Until then no other file gets a block that defer_free() was given.
    std::shared_ptr<const void> begin_device_io();
    void defer_free(std::shared_ptr<const void> freed);
    // How often the cache has written over what is on disk, or set out to.
    std::uint64_t overwrite_count() const { return overwrites_; }
    void note_overwrite() { ++overwrites_; }

    // The data of the allocated blocks in [first, end) goes to the device past the cache: until it is there,
    // they read as the hole that they were. One range at a time.
    void set_data_pending(LogicalBlock first, LogicalBlock end);
    void clear_data_pending(LogicalBlock up_to);
    // unwritten -> converting: the data is on the device, the map on disk does not say so yet.
    void mark_converting(LogicalBlock first, std::uint64_t count);

    bool has_pending() const { return !runs_.empty(); }
    // The first delayed or allocated block at or after `from`.
    std::optional<LogicalBlock> first_pending(LogicalBlock from) const;

    // ---- for DelallocSpace and ExtentMapper
    struct PendingRun {
        std::uint64_t count = 0;
        BlockState state = BlockState::delayed;
        BlockNr block;  // allocated, converting
        std::shared_ptr<Allocation>
            allocation;  // allocated: covers exactly this run; with clusters of several blocks: the cluster,
                         // shared by its runs, empty once its bits are set on disk; null when the cluster is in use
    };
    using Runs = std::map<std::uint64_t, PendingRun>;  // by first block

    FsContext& fs() const { return fs_; }
    BlockMap& map() const { return map_; }
    ExtentStatusOwner& owner() const { return owner_; }
    std::uint64_t ratio() const;  // blocks a cluster
    const Runs& runs() const { return runs_; }
    Runs::iterator end() { return runs_.end(); }
    // Delayed and allocated.
    std::uint64_t unmapped_runs() const { return unmapped_runs_; }
    std::uint64_t unmapped_blocks() const { return unmapped_blocks_; }

    Runs::iterator run_at_or_after(std::uint64_t block);
    // Afterwards a run starts at `block`, or none contains it. Returns the first run at or after it.
    Runs::iterator split_at(std::uint64_t block);
    Runs::iterator add_run(std::uint64_t first, PendingRun run);
    Runs::iterator erase_run(Runs::iterator it);
    // In place of a delayed run with as many blocks.
    void replace_run(std::uint64_t first, PendingRun run) { runs_[first] = std::move(run); }
    // Joins neighbouring delayed runs, so that a file written block by block stays one run.
    void merge_around(std::uint64_t block);
    // Where the last converting block of [from, to) ends; `from` if there is none.
    std::uint64_t end_of_converting(std::uint64_t from, std::uint64_t to);
    Result<MappedRun> lookup_on_disk(LogicalBlock from, std::uint64_t max);
    // The next blocks of [at, end) that are in no run, as they are on disk, at most as many as lie together there; `at`
    // goes to the first of them. None: there are none.
    Result<std::optional<MappedRun>> next_unpending_extent(std::uint64_t& at, std::uint64_t end);
    // Where the logical cluster already has a physical one; none (0) otherwise. `is_reserved`: a block of it is
    // delayed.
    struct ClusterBacking {
        BlockNr base;
        std::shared_ptr<Allocation> allocation;
        bool is_reserved = false;
    };
    Result<ClusterBacking> find_cluster(std::uint64_t cluster);
    // New clusters that the hole blocks [first, first + count) take.
    Result<std::uint64_t> clusters_needed(std::uint64_t first, std::uint64_t count);

private:
    // What was freed while an I/O was under way; older ones keep newer ones, since a long I/O may have seen both.
    struct DeviceIo {
        DeviceIo() = default;
        DeviceIo(const DeviceIo&) = delete;
        DeviceIo& operator=(const DeviceIo&) = delete;
        ~DeviceIo();  // without recursion, however many follow
        std::vector<std::shared_ptr<const void>> freed;
        std::shared_ptr<DeviceIo> next;
    };

    FsContext& fs_;
    BlockMap& map_;
    ExtentStatusOwner& owner_;
    Runs runs_;
    std::uint64_t unmapped_runs_ = 0, unmapped_blocks_ = 0;
    std::uint64_t sequence_ = 1;
    LogicalBlock data_pending_, data_pending_end_;
    std::shared_ptr<DeviceIo> device_io_;
    std::uint64_t overwrites_ = 0;
    std::optional<MappedRun> cached_extent_;  // the newest lookup's answer, exact until invalidate()
};

}  // namespace uext4
