// Reading indirect maps, and naming blocks in them.
#include "extent/indirect.h"

#include <algorithm>

namespace uext4 {

std::uint64_t IndirectMap::blocks_below(unsigned height) const {
    std::uint64_t n = 1;
    for (unsigned i = 0; i < height; ++i) n *= per_block();
    return n;
}

std::uint64_t IndirectMap::limit() const { return geometry().nameable_bytes(false) / geometry().block_size; }

Bytes IndirectMap::bytes_of_slot(const Slot& slot) { return slot.holder ? slot.holder->data() : owner_.i_block(); }

std::uint32_t IndirectMap::read_pointer(const Slot& slot) { return view_as<Le32>(bytes_of_slot(slot), slot.index * 4); }

Result<void> IndirectMap::write_pointer(Handle& handle, const Slot& slot, std::uint32_t value) {
    if (slot.holder) TRY(handle.get_write_access(slot.holder));
    view_as<Le32>(bytes_of_slot(slot), slot.index * 4) = value;
    if (!slot.holder) TRY(owner_.store_i_block(handle));
    return {};
}

Result<void> IndirectMap::check_pointer(std::uint32_t value, BlockNr where, unsigned index) {
    if (value == 0) return {};
    if (!context_.allocator.has_invalid_block(owner_.number(), BlockNr(value))) return {};
    if (!where) return fail(EUCLEAN, "inode {}: i_block[{}] is {}", owner_.number(), index, value);
    return fail(EUCLEAN, "inode {}: indirect block {}: pointer {} is {}", owner_.number(), where, index, value);
}

Result<BufferRef> IndirectMap::read(std::uint32_t block) {
    BufferRef buffer = context_.buffers.find(BlockNr(block));
    if (buffer && buffer->kind() == BlockKind::indirect) return buffer;
    const std::string what = fmt::format("indirect block of inode {}", owner_.number());
    buffer = TRY(context_.buffers.read(BlockNr(block), what.c_str()));
    for (unsigned i = 0; i < per_block(); ++i)
        TRY(check_pointer(view_as<Le32>(buffer->data(), i * 4), BlockNr(block), i));
    buffer->set_kind(BlockKind::indirect);
    return buffer;
}

Result<IndirectMap::PointerPath> IndirectMap::walk(std::uint64_t logical, VisitedBlocks* met) {
    PointerPath way;
    way.known = 1;
    std::uint64_t base = 0;  // first block below the current slot
    if (logical < direct) {
        way.slots[0].index = static_cast<unsigned>(logical);
        base = logical;
    } else {
        base = direct;
        unsigned height = 1;
        while (height < 3 && logical - base >= blocks_below(height)) base += blocks_below(height++);
        if (logical - base >= blocks_below(height))
            return fail(EFBIG, "inode {}: block {} lies past what indirect blocks can map", owner_.number(), logical);
        way.slots[0].index = direct + height - 1;
        way.levels = height + 1;
    }
    TRY(check_pointer(read_pointer(way.slots[0]), BlockNr(), way.slots[0].index));
    for (unsigned height = way.levels - 1;; --height) {
        way.span_end = base + blocks_below(height);
        const std::uint32_t block = read_pointer(way.last());
        if (height == 0 || block == 0) return way;
        if (met && met->try_emplace(block, base).first->second != base)
            return fail(EUCLEAN, "inode {}: indirect block {} is named twice", owner_.number(), block);
        const std::uint64_t below = blocks_below(height - 1), index = (logical - base) / below;
        way.slots[way.known++] = { TRY(read(block)), static_cast<unsigned>(index) };
        base += index * below;
    }
}

Result<MappedRun> IndirectMap::lookup(LogicalBlock from, std::uint64_t max) { return lookup(from, max, nullptr); }

Result<MappedRun> IndirectMap::lookup(LogicalBlock from, std::uint64_t max, VisitedBlocks* met) {
    VisitedBlocks own;  // of a run that goes on past its first array, which most do not
    MappedRun run{from, 0, BlockNr(), false};
    const std::uint64_t end = limit();
    if (from.value >= end) return MappedRun{from, max, BlockNr(), false};
    while (run.count < max && from.value + run.count < end) {
        PointerPath way = TRY(walk(from.value + run.count, met ? met : run.count ? &own : nullptr));
        if (!way.complete()) {
            if (!run.hole()) break;
            run.count = std::min(max, way.span_end - from.value);
            continue;
        }
        // The pointers that follow in the same array.
        const Slot& slot = way.last();
        const unsigned size = slot.holder ? static_cast<unsigned>(per_block()) : direct;
        for (unsigned i = slot.index; i < size && run.count < max; ++i) {
            const std::uint32_t block = read_pointer({slot.holder, i});
            if (!slot.holder) TRY(check_pointer(block, BlockNr(), i));
            if (run.count == 0) run.physical = BlockNr(block);
            else if (run.hole() ? block != 0 : block != run.physical.value + run.count) return run;
            ++run.count;
        }
    }
    if (run.hole() && from.value + run.count >= end) run.count = max;
    return run;
}

// Makes the indirect blocks on the way to `logical`, which is returned, its last array as one that `handle` changes;
// the new ones are noted in `linked`.
Result<IndirectMap::PointerPath> IndirectMap::allocate_path(Handle& handle, std::uint64_t logical, BlockNr goal,
                                                            DelallocReservation* paid, std::vector<Slot>& linked) {
    while (true) {
        PointerPath way = TRY(walk(logical));
        if (way.complete()) {
            if (const Slot& slot = way.last(); slot.holder) TRY(handle.get_write_access(slot.holder));
            return way;
        }
        BufferRef fresh = TRY(blocks_.allocate(handle, goal, paid, BlockKind::indirect));
        if (auto done = write_pointer(handle, way.last(), static_cast<std::uint32_t>(fresh->block().value)); !done) {
            (void)blocks_.free(handle, fresh->block());
            return fail(std::move(done.error()));
        }
        linked.push_back(way.last());
    }
}

Result<void> IndirectMap::undo_allocate_path(Handle& handle, const std::vector<Slot>& linked) {
    for (std::size_t i = linked.size(); i-- > 0;) {
        const std::uint32_t block = read_pointer(linked[i]);
        TRY(write_pointer(handle, linked[i], 0));
        TRY(blocks_.free(handle, BlockNr(block)));
    }
    return {};
}

Result<void> IndirectMap::insert(Handle& handle, const MappedRun& run, DelallocReservation* paid,
                                 std::uint64_t blocks_to_count) {
    const std::uint64_t from = run.logical.value;
    if (run.unwritten)
        return fail(EOPNOTSUPP, "inode {}: indirect blocks cannot say that a block is unwritten", owner_.number());
    if (run.count == 0 || from >= limit() || run.count > limit() - from)
        return fail(EFBIG, "inode {}: blocks {}+{} lie past what indirect blocks can map", owner_.number(), from,
                    run.count);
    if (run.physical.value + run.count > pointer_limit)
        return fail(EFBIG, "inode {}: block {} is past what an indirect block can name", owner_.number(),
                    run.physical.value + run.count - 1);
    if (run.hole() || !geometry().valid_block(run.physical) || !geometry().valid_block(run.physical + (run.count - 1)))
        return fail(EINVAL, "inode {}: no such blocks to map: {}+{}", owner_.number(), run.physical, run.count);
    const std::uint64_t end = from + run.count;
    const MappedRun there = TRY(lookup(run.logical, run.count));
    if (!there.hole() || there.count < run.count)
        return fail(EUCLEAN, "inode {}: blocks {}..{} are mapped already", owner_.number(), from, end);

    // First what may fail for space or for a read, so that an error leaves nothing half mapped.
    TRY(owner_.get_write_access(handle));
    std::vector<Slot> linked;
    std::vector<PointerPath> ways;
    const auto size_of = [&](const Slot& slot) { return slot.holder ? static_cast<unsigned>(per_block()) : direct; };
    for (std::uint64_t at = from; at < end;) {
        if (at != from) (void)handle.extend(credits());  // the first array's were promised
        auto way = allocate_path(handle, at, run.physical, paid, linked);
        if (!way) {
            (void)undo_allocate_path(handle, linked);
            return fail(std::move(way.error()));
        }
        at += size_of(way->last()) - way->last().index;
        ways.push_back(std::move(*way));
    }
    std::uint64_t at = from;
    for (PointerPath& way : ways) {
        const Slot& slot = way.last();
        const Bytes array = bytes_of_slot(slot);
        for (unsigned i = slot.index; i < size_of(slot) && at < end; ++i, ++at)
            view_as<Le32>(array, i * 4) = static_cast<std::uint32_t>(run.physical.value + (at - from));
        if (!slot.holder) TRY(owner_.store_i_block(handle));
    }
    if (blocks_to_count) TRY(owner_.add_blocks(handle, static_cast<std::int64_t>(blocks_to_count)));
    return {};
}

Result<BlockNr> IndirectMap::replace_block(Handle& handle, LogicalBlock at, BlockNr with) {
    if (!geometry().valid_block(with) || with.value >= pointer_limit)
        return fail(EINVAL, "inode {}: block {} cannot be named by an indirect block", owner_.number(), with);
    if (at.value < limit()) {
        PointerPath way = TRY(walk(at.value));
        TRY(owner_.get_write_access(handle));
        if (const std::uint32_t old = way.complete() ? read_pointer(way.last()) : 0) {
            TRY(write_pointer(handle, way.last(), static_cast<std::uint32_t>(with.value)));
            return BlockNr(old);
        }
    }
    return fail(EUCLEAN, "inode {}: block {} is not mapped, it cannot be replaced", owner_.number(), at);
}

Result<std::vector<BufferRef>> IndirectMap::pin_path(LogicalBlock at) {
    std::vector<BufferRef> held;
    if (at.value >= limit()) return held;
    const PointerPath way = TRY(walk(at.value));
    for (unsigned n = 0; n < way.known; ++n)
        if (way.slots[n].holder) held.push_back(way.slots[n].holder);
    return held;
}

unsigned IndirectMap::credits() const {
    // Three blocks of a way, two more where a run goes on in the next array; for each its bitmap and descriptor; the
    // inode.
    return 5 * 3 + 1;
}

}  // namespace uext4
