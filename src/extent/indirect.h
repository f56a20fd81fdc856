// The map of ext2 and ext3: twelve direct pointers in the inode, then trees of one, two and three levels of blocks full
// of 32-bit pointers. All methods: the inode's map_lock is held. The contracts are those of BlockMap.
//
// Invariants
//   N1  Every pointer is 0 or a block of the file system that is not its own metadata; checked when an indirect block
//       is read for the first time, and in the inode each time.
//   N2  A change that empties an indirect block frees it.
#pragma once

#include "extent/block_map.h"
#include "extent/tree_blocks.h"

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace uext4 {

class IndirectMap {
public:
    IndirectMap(MapEnvironment& context, ExtentOwner& owner)
        : context_(context), owner_(owner), blocks_{context, owner} {}

    Result<MappedRun> lookup(LogicalBlock from, std::uint64_t max);
    Result<void> insert(Handle& handle, const MappedRun& run, DelallocReservation* paid, std::uint64_t blocks_to_count);
    Result<BlockNr> replace_block(Handle& handle, LogicalBlock at, BlockNr with);
    Result<std::vector<BufferRef>> pin_path(LogicalBlock at);
    Result<LogicalBlock> remove(Handle& handle, LogicalBlock from, LogicalBlock to);
    Result<void> for_each(LogicalBlock from, const std::function<bool(const MappedRun&)>& visit);
    Result<void> for_each_tree_block(const std::function<bool(BlockNr)>& visit);
    unsigned credits() const;
    std::uint64_t limit() const;

private:
    static constexpr unsigned direct = 12, max_levels = 4;
    static constexpr std::uint64_t pointer_limit = std::uint64_t{1} << 32;  // of blocks that 32 bits can name

    // One pointer on the way down: in the inode (no buffer) or in an indirect block.
    struct Slot {
        BufferRef holder;
        unsigned index = 0;
    };
    // From the inode's slot to the pointer of one logical block. `known` slots lead there through existing blocks.
    struct PointerPath {
        std::array<Slot, max_levels> slots;
        unsigned levels = 1;  // slots of a complete way
        unsigned known = 0;
        std::uint64_t span_end = 0;  // first logical block that the last known slot does not lead to
        bool complete() const { return known == levels; }
        Slot& last() { return slots[known - 1]; }
    };
    // What a search backwards found: a mapped block, or an indirect block that holds nothing (`empty`).
    struct LastMapped {
        bool any = false, empty = false;
        std::uint64_t logical = 0;
        PointerPath way;
    };

    // The indirect blocks that a walk over the map has met, each with the first logical block below it. One that is met
    // with another is named twice: such walks would go on for as long as pointers can repeat each other.
    using VisitedBlocks = std::unordered_map<std::uint32_t, std::uint64_t>;

    const format::Geometry& geometry() const { return context_.allocator.geometry(); }
    std::uint64_t per_block() const { return geometry().block_size / 4; }
    std::uint64_t blocks_below(unsigned height) const;  // blocks below one pointer of this height
    Bytes bytes_of_slot(const Slot& slot);
    std::uint32_t read_pointer(const Slot& slot);
    Result<void> write_pointer(Handle& handle, const Slot& slot, std::uint32_t value);
    Result<void> check_pointer(std::uint32_t value, BlockNr where, unsigned index);
    Result<BufferRef> read(std::uint32_t block);
    Result<PointerPath> walk(std::uint64_t logical, VisitedBlocks* met = nullptr);
    // As the public one, as part of a walk over more; without one, `met` is null.
    Result<MappedRun> lookup(LogicalBlock from, std::uint64_t max, VisitedBlocks* met);
    Result<PointerPath> allocate_path(Handle& handle, std::uint64_t logical, BlockNr goal, DelallocReservation* paid,
                                      std::vector<Slot>& linked);
    Result<void> undo_allocate_path(Handle& handle, const std::vector<Slot>& linked);
    Result<void> free_empty_blocks(Handle& handle, PointerPath& way);
    Result<bool> find_last(std::uint64_t from, std::uint64_t to, LastMapped& found);
    Result<bool> find_below(PointerPath& way, unsigned height, std::uint64_t base, std::uint64_t from, std::uint64_t to,
                            LastMapped& found);
    Result<bool> visit_blocks(std::uint32_t block, unsigned height, const std::function<bool(BlockNr)>& visit);

    MapEnvironment& context_;
    ExtentOwner& owner_;
    TreeBlocks blocks_;
};

}  // namespace uext4
