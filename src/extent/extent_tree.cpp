// Naming blocks in the tree and changing their state.
#include "extent/extent_tree.h"

#include <algorithm>

namespace uext4 {

using format::ExtentLeaf;

unsigned ExtentTree::credits() {
    // A level: the node, a sibling, the sibling's bitmap and descriptor. Once more for a deeper root. Then the inode,
    // and the bitmap and descriptor of data that is freed.
    return 4 * root_depth() + 3 + 1 + Allocator::mark_used_credits();
}

Result<void> ExtentTree::insert(Handle& handle, const MappedRun& run, DelallocReservation* paid,
                                std::uint64_t blocks_to_count) {
    const std::uint64_t from = run.logical.value;
    if (run.count == 0 || from >= extent_limit || run.count > extent_limit - from)
        return fail(EFBIG, "inode {}: blocks {}+{} lie past what an extent tree can map", owner_.number(), from,
                    run.count);
    if (run.hole() || !geometry().valid_block(run.physical) || !geometry().valid_block(run.physical + (run.count - 1)))
        return fail(EINVAL, "inode {}: no such blocks to map: {}+{}", owner_.number(), run.physical, run.count);
    const std::uint64_t end = from + run.count;
    ExtentPath path = TRY(descend(run.logical));
    const int pos = path.leaf().pos;
    const bool has_left = pos >= 0, has_right = pos + 1 < path.count();
    if ((has_left && extent_end(path.extent(pos)) > from) ||
        end > (has_right ? path.extent(pos + 1).block.get() : path.leaf().end))
        return fail(EUCLEAN, "inode {}: blocks {}..{} are mapped already", owner_.number(), from, end);
    // Neighbours are rewritten only if something merges with them.
    int first = pos + 1, last = pos + 1;
    ExtentListBuilder list;
    if (has_left) {
        const ExtentLeaf left = path.extent(pos);
        if (extent_end(left) == from && left.start() + left.count() == run.physical &&
            left.unwritten() == run.unwritten) {
            list.add(left);
            --first;
        }
    }
    list.add(from, run.count, run.physical, run.unwritten);
    if (has_right) {
        const ExtentLeaf right = path.extent(pos + 1);
        if (right.block == end && run.physical + run.count == right.start() && right.unwritten() == run.unwritten) {
            list.add(right);
            ++last;
        }
    }
    TRY(splice_entries(handle, path, static_cast<unsigned>(first), static_cast<unsigned>(last), list.entries(), paid,
                       run.physical));
    if (blocks_to_count) TRY(owner_.add_blocks(handle, static_cast<std::int64_t>(blocks_to_count)));
    return {};
}

Result<void> ExtentTree::set_unwritten(Handle& handle, LogicalBlock from, std::uint64_t count, bool unwritten,
                                       DelallocReservation* paid) {
    const std::uint64_t end = from.value + count;
    std::uint64_t at = from.value;
    while (at < end) {
        ExtentPath path = TRY(descend(LogicalBlock(at)));
        const int pos = path.leaf().pos;
        if (pos < 0 || extent_end(path.extent(pos)) <= at)
            return fail(EUCLEAN, "inode {}: block {} is not mapped, its state cannot change", owner_.number(), at);
        // As many extents of this leaf as the range covers go in one change.
        ExtentListBuilder list;
        const int first = std::max(pos - 1, 0);
        bool changes = false;
        std::uint64_t done = at;
        int i = first;
        for (; i < path.count(); ++i) {
            const ExtentLeaf e = path.extent(i);
            const std::uint64_t a = std::max<std::uint64_t>(e.block, at), b = std::min(extent_end(e), end);
            if (i < pos || a >= b) {  // a neighbour, kept or merged
                list.add(e);
                if (i > pos) {
                    ++i;
                    break;
                }
                continue;
            }
            if (a != done)
                return fail(EUCLEAN, "inode {}: block {} is not mapped, its state cannot change", owner_.number(),
                            done);
            changes |= e.unwritten() != unwritten;
            list.add_part(e, e.block, a);
            list.add(a, b - a, e.start() + (a - e.block), unwritten);
            list.add_part(e, b, extent_end(e));
            done = b;
        }
        if (changes) {
            (void)handle.extend(credits());  // the first leaf's were promised; a commit takes what later ones add
            TRY(replace_extents(handle, path, first, i, list, paid));
        }
        at = done;
    }
    return {};
}

Result<MappedRun> ExtentTree::find_extent(LogicalBlock at) {
    ExtentPath path = TRY(descend(at));
    const int pos = path.leaf().pos;
    if (pos < 0 || extent_end(path.extent(pos)) <= at.value)
        return fail(EUCLEAN, "inode {}: block {} is not mapped", owner_.number(), at);
    const ExtentLeaf e = path.extent(pos);
    return MappedRun{LogicalBlock(e.block), e.count(), e.start(), e.unwritten()};
}

Result<BlockNr> ExtentTree::replace_block(Handle& handle, LogicalBlock at, BlockNr with, DelallocReservation* paid) {
    if (ratio() > 1)
        return fail(EOPNOTSUPP, "inode {}: a block of a cluster cannot be replaced alone", owner_.number());
    if (!geometry().valid_block(with)) return fail(EINVAL, "inode {}: no such block to map: {}", owner_.number(), with);
    ExtentPath path = TRY(descend(at));
    const int pos = path.leaf().pos;
    if (pos < 0 || extent_end(path.extent(pos)) <= at.value)
        return fail(EUCLEAN, "inode {}: block {} is not mapped, it cannot be replaced", owner_.number(), at);
    const ExtentLeaf e = path.extent(pos);
    const int first = std::max(pos - 1, 0), last = std::min(pos + 2, path.count());
    ExtentListBuilder list;
    if (first < pos) list.add(path.extent(first));
    list.add_part(e, e.block, at.value);
    list.add(at.value, 1, with, e.unwritten());
    list.add_part(e, at.value + 1, extent_end(e));
    if (pos + 1 < last) list.add(path.extent(pos + 1));
    TRY(replace_extents(handle, path, first, last, list, paid));
    return e.start() + (at.value - e.block);
}

Result<std::vector<BufferRef>> ExtentTree::pin_path(LogicalBlock at) {
    ExtentPath path = TRY(descend(at));
    std::vector<BufferRef> held;
    for (unsigned n = 0; n <= path.depth; ++n)
        if (path.nodes[n].buffer) held.push_back(path.nodes[n].buffer);
    return held;
}

}  // namespace uext4
