// Space: block groups, bitmaps, reservations, allocations, inode allocation.
//
// A cluster is free, allocated (in memory only), in use (bit set on disk), or freed by a transaction that is not
// durable. Only free ones are handed out. A file system without bigalloc has clusters of one block.
//
// Invariants
//   A1  An allocation touches no disk structure; dropping it gives its clusters back.
//   A2  mark_used() sets the bits in the same handle in which the caller names the blocks.
//   A3  A freed cluster is handed out again only when the freeing transaction is durable.
//   A4  reserved + allocated + avoided + in use + pending <= all clusters; a reservation never fails later.
#pragma once

#include "base/numbers.h"
#include "base/result.h"
#include "format/group_desc.h"
#include "format/superblock.h"
#include "journal/journal.h"

#include <functional>
#include <memory>
#include <utility>

namespace uext4 {

struct AllocatorState;

// Space promised, no block chosen. Counted in clusters; given back by the destructor.
class DelallocReservation {
public:
    DelallocReservation() = default;
    DelallocReservation(DelallocReservation&& o) noexcept
        : state_(std::move(o.state_)), clusters_(std::exchange(o.clusters_, 0)) {}
    DelallocReservation& operator=(DelallocReservation&& o) noexcept {
        if (this == &o) return *this;
        release();
        state_ = std::move(o.state_);
        clusters_ = std::exchange(o.clusters_, 0);
        return *this;
    }
    ~DelallocReservation() { release(); }
    std::uint64_t clusters() const { return clusters_; }
    void release();                      // gives all back
    void release_part(std::uint64_t n);  // gives n back
    void consume(std::uint64_t n);       // n were allocated: no longer this reservation's
    void merge(DelallocReservation&& other);

private:
    friend class Allocator;
    std::shared_ptr<AllocatorState> state_;
    std::uint64_t clusters_ = 0;
};

// Blocks held in memory only, contiguous, whole clusters. Given back by the destructor unless published.
class Allocation {
public:
    Allocation() = default;
    Allocation(Allocation&& o) noexcept
        : state_(std::move(o.state_)), first_(o.first_), count_(std::exchange(o.count_, 0)) {}
    Allocation& operator=(Allocation&& o) noexcept {
        if (this == &o) return *this;
        release();
        state_ = std::move(o.state_);
        first_ = o.first_;
        count_ = std::exchange(o.count_, 0);
        return *this;
    }
    ~Allocation() { release(); }
    BlockNr first() const { return first_; }
    std::uint64_t count() const { return count_; }  // blocks
    explicit operator bool() const { return count_ != 0; }
    Allocation split_front(std::uint64_t blocks);  // the first `blocks` (whole clusters) as an allocation of their own
    void release();

private:
    friend class Allocator;
    std::shared_ptr<AllocatorState> state_;
    BlockNr first_;
    std::uint64_t count_ = 0;
};

// What will be free in a moment counts as free: what a transaction has freed that is not durable yet, and what belongs
// to files that are being deleted.
struct SpaceCounts {
    std::uint64_t blocks = 0, free_blocks = 0, available_blocks = 0;  // available: without the reserve for root
    std::uint64_t inodes = 0, free_inodes = 0;
};

class Allocator {
public:
    // Free counts are summed from the descriptors: at once where they are few and with `recount` (after a crash), else
    // when they are first wanted; until then super_free_blocks() and super_free_inodes() are what is given here. No
    // bitmap is read.
    static Result<std::unique_ptr<Allocator>> open(const format::Geometry& geometry, BufferCache& buffers,
                                                   Journal& journal, std::uint64_t free_blocks,
                                                   std::uint64_t free_inodes, bool recount);
    ~Allocator();

    // ---- promises
    // Promises `clusters`; ENOSPC when there are not as many. `privileged` may use the blocks reserved for root. Takes
    // Group locks.
    Result<DelallocReservation> reserve(std::uint64_t clusters, bool privileged);

    // ---- blocks; none of these waits for a commit. Takes Group locks.
    // Up to `want` contiguous blocks near `goal`, at least one cluster; from the reservation `paid` when given, else
    // from free space as by reserve(1..). ENOSPC only when nothing at all is free. Blocks are whole clusters: first()
    // is cluster-aligned and count() is rounded up to clusters. `owner`: the number of a file that grows here; what
    // lies behind its allocation is kept for it while there is other space, so that files written side by side do not
    // interleave.
    Result<Allocation> allocate(BlockNr goal, std::uint64_t want, DelallocReservation* paid, bool privileged,
                                InodeNr owner = InodeNr());
    // Marks the first `blocks` blocks' clusters used; the allocation is empty afterwards. Credits: mark_used_credits().
    Result<void> mark_used(Handle& handle, Allocation& grant);
    // What this handle has marked used is an allocation again, as nothing maps it: the inverse, which reads nothing.
    Result<Allocation> unmark_used(Handle& handle, BlockNr first, std::uint64_t count);
    // One block (one cluster) for metadata, marked used at once.
    Result<BlockNr> allocate_metadata(Handle& handle, BlockNr goal, DelallocReservation* paid, bool privileged);
    // Frees whole clusters [first, first+count) (count in blocks, cluster-aligned); refuses blocks that are free
    // already or are the file system's own metadata (EUCLEAN naming group and block).
    Result<void> free(Handle& handle, BlockNr first, std::uint64_t count);
    // As free(), of a block that somebody may be on his way to: it is had again when the transaction is durable and
    // nobody has the answer any more, and where the device does not take it as one that is avoided.
    enum class Reuse { normal, avoid };
    Result<std::shared_ptr<const void>> free_when_unused(Handle& handle, BlockNr block, Reuse then);
    // For who replays what others allocated: the first free run of clusters within these blocks, which begin with one;
    // no allocation when none is free.
    Result<Allocation> allocate_within(BlockNr first, std::uint64_t count);
    // What freeing these blocks reads, for as long as it is held; what is wrong with them is told when they are freed.
    Result<std::vector<BufferRef>> pin_blocks_for_free(BlockNr first, std::uint64_t count);
    Result<std::vector<BufferRef>> pin_blocks_for_free(InodeNr number);
    // EUCLEAN, EIO: what is free in a group of theirs is not known, and nothing can be freed there.
    Result<void> check_groups(BlockNr first, std::uint64_t count);
    // The same of one block, and what else free() refuses it for.
    Result<void> check_can_free(BlockNr block);
    static constexpr unsigned mark_used_credits() { return 2; }  // bitmap + descriptor, per group touched
    // A goal for a new file or tree: the inode's group, spread within it by the inode number.
    BlockNr goal_for(InodeNr ino) const;
    bool is_system_block(BlockNr block) const;  // superblock, descriptors, bitmaps, inode tables
    // Of blocks that the map or the attributes of inode `owner` name: at least one is no block, is the file system's
    // own, or the log's, and it is not the log's inode that names it. `count` > 0.
    bool has_invalid_block(InodeNr owner, BlockNr first, std::uint64_t count = 1) const;

    // ---- blocks that the device did not take, now free; others are handed out before them, near a goal or not
    void avoid(Allocation grant);
    // They are a part of what is free, and no large one: the oldest become as any other. For who avoids blocks and has
    // got others since.
    void trim_avoided();

    // ---- inodes
    // A free inode near the parent (directories spread over groups when the parent is the root). ENOSPC when none.
    Result<InodeNr> allocate_inode(Handle& handle, InodeNr parent, bool directory);
    // As allocate_inode(), for a number that the caller knows. EUCLEAN when it is in use.
    Result<void> mark_inode_used(Handle& handle, InodeNr ino, bool directory);
    Result<void> free_inode(Handle& handle, InodeNr ino, bool directory);
    static constexpr unsigned inode_credits() { return 4; }
    // Where the inode's bytes lie. EUCLEAN for a number out of range.
    struct InodeLocation {
        BlockNr block;
        std::uint32_t offset;
    };
    Result<InodeLocation> locate_inode(InodeNr ino);
    Result<bool> is_inode_used(InodeNr ino);

    // ---- the rest
    SpaceCounts counts() const;
    // So many blocks, or numbers of inodes, more (or less) belong to what is being deleted: counts() has them as free.
    void add_pending_free_blocks(std::int64_t blocks);
    void add_pending_free_inodes(std::int64_t inodes);
    // For who met ENOSPC: blocks or inodes are freed and not durable yet, or promises for data stand that its writeback
    // may not need; and how often something was given back so far, whoever got it since.
    bool has_pending_free() const;
    std::uint64_t free_count_generation() const;
    // Waits until what is to be discarded before it is free has been.
    void finish_discards();
    // What s_free_blocks_count is to say: free on disk once everything pending is durable and nothing is promised.
    std::uint64_t super_free_blocks() const;
    std::uint32_t super_free_inodes() const;               // and s_free_inodes_count
    Result<std::uint64_t> trim(std::uint64_t min_blocks);  // trims free runs on the device; bytes trimmed
    // Discard clusters once their freeing is durable: in a thread of its own, or at once by the thread that commits.
    void set_discard(bool on, bool at_once = false);
    // Hears of each bitmap that is damaged and of each one, or block of an inode table, that cannot be read, with its
    // group's lock held; false: nothing is allocated any more. Before there are users.
    void set_corruption_callback(std::function<bool(const Error&)> told);
    // Nothing will be written to the image: a descriptor whose checksum is wrong is told of, and used where what it
    // says is possible, as the inodes that it leads to have checksums of their own. Before there are users.
    void set_read_only(bool on);
    // Where the log lies, which no bitmap may call free and no other file may have. Before there are users.
    void set_journal_blocks(const std::vector<BlockRun>& runs);
    const format::Geometry& geometry() const;
    std::uint64_t allocated_clusters() const;  // for tests: outstanding
    std::uint64_t reserved_clusters() const;
    void set_bitmap_memory_limit(std::uint64_t bytes);  // for tests: of bitmaps in memory; before there are any
    std::uint64_t bitmap_memory_bytes() const;

private:
    Allocator() = default;
    Result<void> free_within_group(Handle& handle, BlockNr first, std::uint64_t count);
    Result<DelallocReservation> reserve_without_avoided(std::uint64_t clusters,
                                                        bool privileged);  // also with a Group lock held
    using State = AllocatorState;
    std::shared_ptr<State> state_;
};

}  // namespace uext4
