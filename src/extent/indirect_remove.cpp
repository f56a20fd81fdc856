// Unmapping from the end backwards, and walks over the whole map.
#include "extent/indirect.h"

#include <algorithm>

namespace uext4 {

// The last thing within [from, to) below the way's last slot, whose reach starts at `base`.
Result<bool> IndirectMap::find_below(PointerPath& way, unsigned height, std::uint64_t base, std::uint64_t from,
                                     std::uint64_t to, LastMapped& found) {
    const std::uint32_t block = read_pointer(way.last());
    if (block == 0) return false;
    if (height == 0) {
        found = {true, false, base, way};
        return true;
    }
    BufferRef buffer = TRY(read(block));
    const std::uint64_t below = blocks_below(height - 1);
    if (base >= from && base + per_block() * below <= to && all_zero(buffer->data())) {
        found = {true, true, base, way};
        return true;
    }
    std::uint64_t index = std::min(per_block(), divide_up(to - base, below));
    while (index-- > 0) {
        const std::uint64_t start = base + index * below;
        if (start + below <= from) break;
        way.slots[way.known] = {buffer, static_cast<unsigned>(index)};
        if (read_pointer(way.slots[way.known]) == 0) continue;
        ++way.known;
        const bool any = TRY(find_below(way, height - 1, start, from, to, found));
        --way.known;
        if (any) return true;
    }
    return false;
}

Result<bool> IndirectMap::find_last(std::uint64_t from, std::uint64_t to, LastMapped& found) {
    for (unsigned slot = direct + 3; slot-- > 0;) {
        const unsigned height = slot < direct ? 0 : slot - direct + 1;
        std::uint64_t base = slot;
        if (height > 0) {
            base = direct;
            for (unsigned h = 1; h < height; ++h) base += blocks_below(h);
        }
        if (base >= to) continue;
        if (base + blocks_below(height) <= from) break;
        PointerPath way;
        way.slots[0].index = slot;
        way.known = 1;
        way.levels = height + 1;
        TRY(check_pointer(read_pointer(way.slots[0]), BlockNr(), slot));
        if (TRY(find_below(way, height, base, from, to, found))) return true;
    }
    return false;
}

// Frees the indirect blocks at the end of the way that hold nothing any more.
Result<void> IndirectMap::free_empty_blocks(Handle& handle, PointerPath& way) {
    while (way.known > 1 && all_zero(way.last().holder->data())) {
        const BlockNr block = way.last().holder->block();
        --way.known;
        TRY(write_pointer(handle, way.last(), 0));
        TRY(blocks_.free(handle, block));
    }
    return {};
}

Result<LogicalBlock> IndirectMap::remove(Handle& handle, LogicalBlock from, LogicalBlock to) {
    to = std::min(to, LogicalBlock(limit()));
    // An array that changes, and it and two above it perhaps freed; the data's bitmap and descriptor; the inode.
    constexpr unsigned step = 3 * (1 + Allocator::mark_used_credits()) + Allocator::mark_used_credits() + 1;
    while (from < to) {
        LastMapped found;
        if (!TRY(find_last(from.value, to.value, found))) break;
        if (!handle.extend(step)) return to;
        TRY(owner_.get_write_access(handle));
        Slot slot = found.way.last();
        std::vector<std::vector<BufferRef>> held;
        for (unsigned i = 1; i < found.way.known; ++i)
            held.push_back(TRY(blocks_.pin_for_free(found.way.slots[i].holder->block(), 1)));
        if (found.empty) {
            const std::uint32_t block = read_pointer(slot);
            held.push_back(TRY(blocks_.pin_for_free(BlockNr(block), 1)));
            TRY(write_pointer(handle, slot, 0));
            TRY(blocks_.free(handle, BlockNr(block)));
            TRY(free_empty_blocks(handle, found.way));
            continue;
        }
        // As many blocks before it as lie before it on disk too, in one group.
        const std::uint32_t last = read_pointer(slot);
        const BlockNr group_start = geometry().first_block(geometry().group_of(BlockNr(last)));
        std::uint64_t count = 1;
        while (count <= slot.index && found.logical - count >= from.value && last - count >= group_start.value &&
               count < Handle::max_revokes_per_step &&
               read_pointer({slot.holder, static_cast<unsigned>(slot.index - count)}) == last - count)
            ++count;
        held.push_back(TRY(blocks_.pin_for_free(BlockNr(last - (count - 1)), count)));
        if (slot.holder) TRY(handle.get_write_access(slot.holder));
        const Bytes array = bytes_of_slot(slot);
        for (std::uint64_t i = 0; i < count; ++i) view_as<Le32>(array, (slot.index - i) * 4) = 0;
        if (!slot.holder) TRY(owner_.store_i_block(handle));
        TRY(free_empty_blocks(handle, found.way));
        TRY(blocks_.free_data(handle, BlockNr(last - (count - 1)), count));
        to = LogicalBlock(found.logical - (count - 1));
        if (from < to && handle.needs_restart()) return to;
    }
    return from;
}

Result<void> IndirectMap::for_each(LogicalBlock from, const std::function<bool(const MappedRun&)>& visit) {
    const std::uint64_t end = limit();
    std::uint64_t mapped = 0;  // pointers that repeat each other could go on for hours
    VisitedBlocks met;
    while (from.value < end) {
        const MappedRun run = TRY(lookup(from, end - from.value, &met));
        if (!run.hole() && (mapped += run.count) > geometry().blocks_count)
            return fail(EUCLEAN, "inode {}: indirect blocks map more blocks than there are", owner_.number());
        if (!run.hole() && !visit(run)) return {};
        from += run.count;
    }
    return {};
}

Result<bool> IndirectMap::visit_blocks(std::uint32_t block, unsigned height,
                                       const std::function<bool(BlockNr)>& visit) {
    if (block == 0) return true;
    BufferRef buffer = TRY(read(block));
    if (!visit(BlockNr(block))) return false;
    for (unsigned i = 0; height > 1 && i < per_block(); ++i)
        if (!TRY(visit_blocks(view_as<Le32>(buffer->data(), i * 4), height - 1, visit))) return false;
    return true;
}

Result<void> IndirectMap::for_each_tree_block(const std::function<bool(BlockNr)>& visit) {
    std::uint64_t seen = 0;
    auto counted = [&](BlockNr block) { return ++seen <= geometry().blocks_count && visit(block); };
    for (unsigned height = 1; height <= 3; ++height) {
        const Slot slot{{}, direct + height - 1};
        TRY(check_pointer(read_pointer(slot), BlockNr(), slot.index));
        if (TRY(visit_blocks(read_pointer(slot), height, counted))) continue;
        if (seen > geometry().blocks_count)
            return fail(EUCLEAN, "inode {}: it has more indirect blocks than there are blocks", owner_.number());
        return {};
    }
    return {};
}

}  // namespace uext4
