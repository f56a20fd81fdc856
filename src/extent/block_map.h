// Where the blocks of a file lie on disk: extent tree or indirect blocks, behind one interface. The caller holds the
// inode's map_lock in all of these; tree blocks are guarded by it.
#pragma once

#include "alloc/allocator.h"
#include "base/bytes.h"
#include "base/numbers.h"
#include "base/result.h"
#include "journal/journal.h"

#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <vector>

namespace uext4 {

struct MappedRun {
    LogicalBlock logical;
    std::uint64_t count = 0;  // blocks
    BlockNr physical;         // 0: a hole
    bool unwritten = false;
    bool hole() const { return !physical; }
};

// What the map needs of the inode that owns it.
class ExtentOwner {
public:
    virtual ~ExtentOwner() = default;
    virtual InodeNr number() const = 0;
    virtual std::uint32_t generation() const = 0;
    virtual bool uses_extents() const = 0;
    virtual bool has_journaled_data() const = 0;  // its data blocks are revoked when freed
    // Data blocks that are freed: of what the log has of them nothing is to be replayed.
    virtual Result<void> revoke_data(Handle&, BlockNr first, std::uint64_t count) const = 0;
    virtual Bytes i_block() = 0;  // i_block, 60 bytes
    // Afterwards neither of the two below fails for a read: an error between the changes of a step would leave a map
    // and bitmaps that disagree. Before a step changes anything.
    virtual Result<void> get_write_access(Handle&) = 0;
    virtual Result<void> store_i_block(Handle&) = 0;  // the inode is written to its table by this handle
    virtual Result<void> add_blocks(Handle&, std::int64_t fs_blocks) = 0;  // i_blocks grows or shrinks
    virtual void note_corruption(const Error& error) const = 0;            // EUCLEAN: of the map
};

struct MapEnvironment {
    BufferCache& buffers;
    Allocator& allocator;
    // The extent root that was found good last: as long as it has these bytes it need not be looked at again.
    std::optional<std::array<std::byte, 60>> validated_root{};
};

// Empty root for a new file.
void initialise_extent_root(Bytes root);

class BlockMap {
public:
    BlockMap(MapEnvironment context, ExtentOwner& owner) : context_(context), owner_(owner) {}

    // What lies at `from`: a run of at most `max` blocks all mapped contiguously and alike, or all hole (its length is
    // exact up to the next mapped block, or to max).
    Result<MappedRun> lookup(LogicalBlock from, std::uint64_t max);
    // Maps run.logical.. to run.physical.. ; every block of it must be a hole. Tree blocks come from the reservation
    // `paid` when it is given, else from free space. Adds `blocks_to_count` data blocks, and the tree blocks, to
    // i_blocks; with bigalloc, a block in a cluster that is in use already does not count.
    Result<void> insert(Handle& handle, const MappedRun& run, DelallocReservation* paid, std::uint64_t blocks_to_count);
    // Unwritten <-> written for a range that is mapped throughout; splits and merges extents.
    Result<void> set_unwritten(Handle& handle, LogicalBlock from, std::uint64_t count, bool unwritten,
                               DelallocReservation* paid);
    // All of the extent that maps `at`, from its first block on. EUCLEAN where nothing is mapped.
    Result<MappedRun> find_extent(LogicalBlock at);
    // Swaps the block behind one mapped logical block (the last one, cut or grown; a failed write); returns the old.
    Result<BlockNr> replace_block(Handle& handle, LogicalBlock at, BlockNr with, DelallocReservation* paid);
    // The nodes that lead to it. While they are held, replace_block() reads the map no more, but where it needs a new
    // node.
    Result<std::vector<BufferRef>> pin_for_replace(LogicalBlock at);
    // Unmaps [from, to) from the END backwards and frees the blocks (data clusters only when no other block of the
    // logical cluster is mapped and `keeps_cluster` does not claim it). Stops early, with a valid tree, when the handle
    // has no room: returns where the unmapped part begins, i.e. `from` when done, `to` when nothing was done.
    using IsClusterShared = std::function<bool(LogicalBlock cluster_start)>;
    Result<LogicalBlock> remove(Handle& handle, LogicalBlock from, LogicalBlock to,
                                const IsClusterShared& keeps_cluster);
    // Moves every mapping at or after `from` by `delta` blocks (negative: collapse; the gap was removed before). Stops
    // when out of credits like remove(): returns true when done; call again with the same arguments after restart -
    // `progress` is the caller's, starts as 0.
    Result<bool> shift(Handle& handle, LogicalBlock from, std::int64_t delta, std::uint64_t& progress);
    // All that shift() may fail for (what lies too far up, no block for the tree), done before anything moves: what is
    // mapped stays where it is. False when the handle has no room: again after restart.
    Result<bool> split_for_shift(Handle& handle, LogicalBlock from, std::int64_t delta);
    // Every mapped run in order, for listings and check; stop by returning false.
    Result<void> for_each(LogicalBlock from, const std::function<bool(const MappedRun&)>& visit);
    // The mapped runs of [from, end), of each the part that lies there.
    Result<std::vector<MappedRun>> mapped_runs(LogicalBlock from, std::uint64_t end);
    // Every block of the tree itself (index, indirect).
    Result<void> for_each_tree_block(const std::function<bool(BlockNr)>& visit);

    // Credits for one insert of any length, one set_unwritten, one replace; enough for a step of remove and shift too,
    // so that a caller who restarts with as many gets on.
    unsigned credits() const;
    // Worst-case number of tree blocks that inserting `runs` separate runs may need: what a reservation must cover.
    static std::uint64_t tree_blocks_for(std::uint64_t runs, std::uint32_t block_size, bool extents);
    // The first logical block past what the format can map.
    LogicalBlock max_block() const;

private:
    template <class T>
    Result<T> reported(Result<T> result) const {
        if (!result && result.error().code == EUCLEAN) owner_.note_corruption(result.error());
        return result;
    }

    MapEnvironment context_;
    ExtentOwner& owner_;
};

}  // namespace uext4
