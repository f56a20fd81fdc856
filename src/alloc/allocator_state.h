// The allocator's inside.
#pragma once

#include "alloc/allocator.h"
#include "alloc/free_run_index.h"
#include "alloc/sparse_array.h"
#include "sync/condition.h"
#include "sync/pending_operations.h"
#include "sync/thread.h"

#include <atomic>
#include <deque>
#include <functional>
#include <optional>
#include <vector>

namespace uext4 {

inline constexpr std::uint32_t unknown_count = 0xFFFFFFFF;
inline constexpr std::uint64_t max_bitmap_memory = 8u << 20;  // of bitmaps that could be had again from the disk

// A group's bitmap with what is only in memory on top. Guarded by the group's lock.
struct ClusterBitmap {
    std::vector<std::uint64_t> bits;  // in use on disk, allocated, avoided, pending or being discarded
    std::uint32_t free = 0;           // clear bits
    std::uint32_t first_free = 0;     // no clear bit below it
    std::uint32_t memory_only = 0;    // set here and clear on disk: without any, the disk's bitmap tells it all
    FreeRunIndex runs;  // of clear bits; only of maps of blocks, which are changed by mark_used() and mark_free()
    bool test(std::uint32_t i) const { return bits[i / 64] >> (i % 64) & 1; }
    void set(std::uint32_t i) { bits[i / 64] |= std::uint64_t{1} << (i % 64); }
    void clear(std::uint32_t i) { bits[i / 64] &= ~(std::uint64_t{1} << (i % 64)); }
    void mark_used(std::uint32_t first, std::uint32_t count) {
        for (std::uint32_t i = first; i < first + count; ++i) set(i);
        runs.update(bits, first, count);
    }
    void mark_free(std::uint32_t first, std::uint32_t count) {
        for (std::uint32_t i = first; i < first + count; ++i) clear(i);
        runs.update(bits, first, count);
    }
    std::uint64_t bytes() const { return bits.size() * 8 + runs.bytes(); }
};

// Space that a growing file will want next: others take it only when nothing else is left. It is no promise.
struct PreallocationWindow {
    std::uint64_t owner = 0;           // inode
    std::uint32_t first = 0, end = 0;  // clusters of the group
    std::uint32_t size = 0;            // clusters when it was made
};
inline constexpr std::size_t max_windows_per_group = 16;

struct Group {
    explicit Group(std::uint64_t number) : lock(Rank::Group, "Group::lock", number) {}
    Mutex lock;
    std::unique_ptr<ClusterBitmap> blocks UEXT4_GUARDED_BY(lock);  // null until first used
    std::unique_ptr<ClusterBitmap> inodes UEXT4_GUARDED_BY(lock);
    std::vector<PreallocationWindow> windows UEXT4_GUARDED_BY(lock);  // of files that grow here, oldest first
    // Damaged: not used for allocation.
    bool bad_blocks UEXT4_GUARDED_BY(lock) = false, bad_inodes UEXT4_GUARDED_BY(lock) = false;
    bool recently_used UEXT4_GUARDED_BY(lock) = false;  // since the last scan for bitmaps to drop
    bool in_bitmap_list = false;                        // among those with maps; guarded by the table's lock
};

// What is known of a group without its lock.
struct GroupEntry {
    std::unique_ptr<Group> group;                         // made when first used; guarded by the table's lock
    std::atomic<std::uint32_t> free_hint{unknown_count};  // free clusters, unknown_count until looked at
    std::atomic<std::uint32_t> free_inode_hint{unknown_count};
};

// Blocks of the file system's own that lie in descriptors, of one flex group: sorted, and apart from each other.
// Where they are never changes.
struct SystemZone {
    struct Range {
        std::uint64_t first, end;
    };
    std::vector<Range> ranges;
    bool overlaps(std::uint64_t first, std::uint64_t end) const;
    // The first block of theirs in [first, end) that is wanted.
    std::optional<std::uint64_t> find_first(std::uint64_t first, std::uint64_t end,
                                            const std::function<bool(std::uint64_t)>& wanted) const;
};

struct AllocatorState : std::enable_shared_from_this<AllocatorState> {
    AllocatorState(const format::Geometry& g, BufferCache& b, Journal& j)
        : geometry(g),
          buffers(b),
          journal(j),
          groups(g.group_count),
          system_zones((g.group_count >> g.log_groups_per_flex) + 1) {}

    const format::Geometry& geometry;
    BufferCache& buffers;
    Journal& journal;

    Mutex table_lock{Rank::Leaf, "Allocator::groups"};
    SparseArray<GroupEntry> groups;  // by group

    SparseArray<std::atomic<const SystemZone*>> system_zones;  // by flex group; null until first asked for
    std::vector<std::unique_ptr<const SystemZone>> owned_zones;

    // The sums below are those of the descriptors; until then they are the superblock's, which may be old.
    std::atomic<bool> counts_summed{false};
    Mutex sum_lock{Rank::Group, "Allocator::add_up", geometry.group_count};

    // Clusters. free_on_disk: clear bits on disk; available: what a reservation or an allocation may still take.
    std::atomic<std::int64_t> free_on_disk{0}, available{0}, allocated{0}, delalloc_reserved{0}, free_inodes{0};
    // Freed, and not grantable yet: clusters, inodes. Blocks and numbers of what is being deleted. How often space came
    // back.
    std::atomic<std::int64_t> pending_free{0}, pending_free_inodes{0}, deleting_blocks{0}, deleting_inodes{0};
    std::atomic<std::uint64_t> free_count_generation{0};
    bool counts_consistent = true;  // bitmaps and descriptors changed together: not after a crash without a journal
    std::uint64_t root_reserved_clusters = 0;
    std::function<bool(const Error&)> corruption_callback;  // see allocator.h
    mutable std::atomic<bool> stopped{false};               // it said so
    bool read_only = false;                                 // see allocator.h
    SystemZone journal_zone;                                // sorted; empty without a journal
    std::atomic<std::uint32_t> directory_group{0};

    Mutex avoided_lock{Rank::Leaf, "Allocator::avoided"};
    std::deque<std::pair<BlockNr, std::uint64_t>> avoided UEXT4_GUARDED_BY(avoided_lock);  // oldest first; blocks
    std::atomic<std::int64_t> avoided_clusters{0};

    std::atomic<bool> discards{false}, no_discard{false}, discards_at_once{false};
    Mutex discard_lock{Rank::Leaf, "Allocator::discard"};
    CondVar discard_work{"discard"}, discard_done{"discard done"};
    std::uint64_t discards_done UEXT4_GUARDED_BY(discard_lock) = 0;
    std::deque<std::pair<BlockNr, std::uint64_t>> to_discard UEXT4_GUARDED_BY(discard_lock);  // blocks, still busy
    bool stop UEXT4_GUARDED_BY(discard_lock) = false, discard_busy UEXT4_GUARDED_BY(discard_lock) = false;
    PendingOperations trims;  // groups whose free space trim() holds
    Thread discard_thread;

    std::uint32_t ratio() const { return geometry.cluster_ratio; }
    std::uint32_t clusters_in(GroupNr g) const { return geometry.clusters_in_group(g); }
    GroupNr group_of(BlockNr b) const { return geometry.group_of(b); }
    std::uint32_t cluster_index(BlockNr b) const {
        return static_cast<std::uint32_t>((b.value - geometry.first_block(geometry.group_of(b)).value) / ratio());
    }
    BlockNr cluster_block(GroupNr g, std::uint32_t index) const {
        return geometry.first_block(g) + std::uint64_t{index} * ratio();
    }

    // ---- counters.cpp
    void sum_groups();  // by one thread
    void sum_groups_once();
    // Before a sum is asked for or changed. Without locks of groups, unless it was called before.
    void sum_counts() {
        if (!counts_summed.load(std::memory_order_acquire)) sum_groups_once();
    }
    // ---- group_table.cpp
    void disable_block_bitmap(GroupNr g);  // the group's bitmap is damaged; its lock is held
    void report_corruption(const Error& error) const {
        if (corruption_callback && !corruption_callback(error)) stopped.store(true);
    }
    Result<void> may_allocate() const {
        return stopped.load() ? fail(EROFS, "the file system is damaged, and read-only since") : Result<void>();
    }
    Group& group(GroupNr g);
    Result<BufferRef> descriptor(GroupNr g, std::uint32_t& offset);  // checked
    format::GroupDescView view(const BufferRef& buffer, std::uint32_t offset) const {
        return {buffer->data().subspan(offset, geometry.desc_size), geometry.desc_size};
    }
    Result<void> load_blocks(GroupNr g, Group& group) UEXT4_REQUIRES(group.lock);
    Result<void> load_inodes(GroupNr g, Group& group) UEXT4_REQUIRES(group.lock);
    Result<std::vector<std::byte>> initial_block_bitmap(GroupNr g);
    // The bitmap's buffer, initialised under the handle when the group says it is not yet.
    Result<BufferRef> writable_block_bitmap(Handle& handle, GroupNr g, const BufferRef& desc, std::uint32_t offset);
    Result<BufferRef> writable_inode_bitmap(Handle& handle, GroupNr g, const BufferRef& desc, std::uint32_t offset);
    // Superblock, descriptors and blocks reserved for them at the group's start.
    std::uint64_t base_blocks(GroupNr g) const;
    std::unique_ptr<SystemZone> build_system_zone(std::uint64_t flex, bool& complete);
    // The range, which lies within group g, touches the file system's own blocks.
    bool overlaps_system_zone(GroupNr g, BlockNr first, std::uint64_t count);
    // A block of the file system's own, or of the log, that the group's bitmap calls free.
    std::optional<BlockNr> unmarked_system_block(GroupNr g, const ClusterBitmap& map);
    template <class Look>
    auto with_system_zone(GroupNr group,
                          const Look& look);  // what `look` makes of the ranges of the group's flex group
    // A bitmap that was read (again) is checked once. EUCLEAN when its checksum is bad.
    Result<void> check_block_bitmap(GroupNr g, const BufferRef& desc, std::uint32_t offset, const BufferRef& bitmap);
    Result<void> check_inode_bitmap(GroupNr g, const BufferRef& desc, std::uint32_t offset, const BufferRef& bitmap);

    // ---- bitmap_memory.cpp
    std::uint64_t bitmap_memory_limit = max_bitmap_memory;
    std::uint64_t bitmap_memory UEXT4_GUARDED_BY(table_lock) = 0;
    std::deque<std::uint32_t> bitmap_list UEXT4_GUARDED_BY(table_lock);  // groups, in the order of the clock
    // `added` bytes of bitmaps were made for group g. Bitmaps of other groups go when there are too many.
    void limit_bitmap_memory(GroupNr g, Group& held, std::uint64_t added) UEXT4_REQUIRES(held.lock);
    // By their descriptors, there is nothing free in groups that nobody has looked at.
    bool is_known_full(GroupNr g);
    bool is_known_full_of_inodes(GroupNr g);
    bool is_known_zero(GroupNr g, std::atomic<std::uint32_t>& hint,
                       std::uint32_t (*count)(const format::GroupDescView&));

    // ---- block_allocator.cpp
    void return_to_free(BlockNr first, std::uint64_t blocks, bool was_granted);  // busy -> free in memory
    // ---- avoided.cpp
    void avoid(BlockNr first, std::uint64_t blocks);  // which are nobody's, and busy
    bool release_avoided(std::int64_t clusters);      // that many or all that there are; true if there were any
    // ---- discard.cpp
    void run_discards();
    void discard(BlockNr first, std::uint64_t blocks);
    void complete_free(BlockNr first, std::uint64_t blocks);  // freed -> free
    void free_durable(BlockNr first, std::uint64_t blocks);   // durable: discard first, when that is on
};

}  // namespace uext4
