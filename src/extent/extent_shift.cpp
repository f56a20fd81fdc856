// Moving mappings along the file. A leaf a step, in the direction that never lets two extents overlap: leftwards from
// the left, rightwards from the right; so the tree is valid after every step.
//
// `progress` is the old place of what comes next: moving left, the first block not moved yet; moving right, the block
// from which everything has moved (0: nothing yet). Moved and unmoved extents cannot be confused: what has moved left
// lies below its own old place, what has moved right lies above.
#include "extent/extent_tree.h"

#include <algorithm>

namespace uext4 {

using format::ExtentLeaf;

namespace {

std::uint64_t distance(std::int64_t delta) {
    return delta < 0 ? 0 - static_cast<std::uint64_t>(delta) : static_cast<std::uint64_t>(delta);
}

}  // namespace

// Makes an extent begin at `at` if one lies across it. False: no room in the handle.
Result<bool> ExtentTree::split_at(Handle& handle, std::uint64_t at) {
    ExtentPath path = TRY(descend(LogicalBlock(at)));
    const int pos = path.leaf().pos;
    if (pos < 0) return true;
    const ExtentLeaf e = path.extent(pos);
    if (e.block >= at || extent_end(e) <= at) return true;
    if (!handle.extend(credits())) return false;
    ExtentListBuilder left, right;
    left.add_part(e, e.block, at);
    right.add_part(e, at, extent_end(e));
    const NodeEntry halves[] = {left.entries()[0], right.entries()[0]};
    TRY(splice_entries(handle, path, static_cast<unsigned>(pos), static_cast<unsigned>(pos) + 1, halves, nullptr,
                       e.start()));
    return true;
}

Result<void> ExtentTree::move_entries(Handle& handle, ExtentPath& path, unsigned i, unsigned j, std::int64_t delta) {
    std::vector<NodeEntry> moved;
    moved.reserve(j - i);
    for (unsigned k = i; k < j; ++k) {
        moved.push_back(node_entry(path.leaf().bytes, k));
        moved.back().key = static_cast<std::uint32_t>(moved.back().key + delta);
    }
    if (i > 0 && delta < 0) {
        // The seam: what came to lie beside its neighbour may be one extent with it.
        const ExtentLeaf before = path.extent(static_cast<int>(i) - 1);
        const auto first = std::bit_cast<ExtentLeaf>(moved[0]);
        ExtentListBuilder seam;
        seam.add(before);
        seam.add(first);
        if (seam.entries().size() == 1) {
            moved[0] = seam.entries()[0];
            --i;
        }
    }
    return splice_entries(handle, path, i, j, moved, nullptr, BlockNr());
}

Result<bool> ExtentTree::split_for_shift(Handle& handle, LogicalBlock start, std::int64_t delta) {
    const std::uint64_t from = start.value, by = distance(delta);
    if (by % ratio() != 0 || from % ratio() != 0)
        return fail(EINVAL, "inode {}: blocks move by whole clusters, not by {} from {}", owner_.number(), by, from);
    if (delta == 0 || from >= extent_limit) return true;
    if (delta > 0) {
        ExtentPath path = TRY(descend(LogicalBlock(extent_limit - 1)));
        const int pos = path.leaf().pos;
        if (pos >= 0 && extent_end(path.extent(pos)) > from &&
            (by > extent_limit || extent_end(path.extent(pos)) > extent_limit - by))
            return fail(EFBIG, "inode {}: block {} would move past what an extent tree can map", owner_.number(),
                        extent_end(path.extent(pos)) - 1);
        return split_at(handle, from);
    }
    if (by > from) return fail(EINVAL, "inode {}: blocks from {} cannot move down by {}", owner_.number(), from, by);
    if (!TRY(split_at(handle, from))) return false;
    const MappedRun gap = TRY(lookup(LogicalBlock(from - by), by));
    if (!gap.hole() || gap.count < by)
        return fail(EINVAL, "inode {}: blocks {}..{} are mapped, nothing can move there", owner_.number(), from - by,
                    from);
    return true;
}

Result<bool> ExtentTree::shift_down(Handle& handle, std::uint64_t from, std::uint64_t by, std::uint64_t& progress) {
    std::uint64_t at = std::max(progress, from);
    while (at < extent_limit) {
        ExtentPath path = TRY(descend(LogicalBlock(at)));
        int i = std::max(path.leaf().pos, 0);
        while (i < path.count() && path.extent(i).block < at) ++i;
        if (i == path.count()) {
            at = path.leaf().end;
            continue;
        }
        if (!handle.extend(path.depth + 2)) {
            progress = at;
            return false;
        }
        const int count = path.count();
        at = extent_end(path.extent(count - 1));
        TRY(move_entries(handle, path, static_cast<unsigned>(i), static_cast<unsigned>(count),
                         -static_cast<std::int64_t>(by)));
        progress = at;
    }
    progress = extent_limit;
    return true;
}

Result<bool> ExtentTree::shift_up(Handle& handle, std::uint64_t from, std::uint64_t by, std::uint64_t& progress) {
    std::uint64_t below = progress ? progress : extent_limit;  // what starts below has not moved
    while (below > from) {
        ExtentPath path = TRY(descend(LogicalBlock(below - 1)));
        const int last = path.leaf().pos;
        if (last < 0) {
            if (path.depth == 0 || path.leaf().first <= from || path.leaf().first >= below) break;
            below = path.leaf().first;
            continue;
        }
        if (path.extent(last).block < from) break;
        if (!handle.extend(path.depth + 2)) {
            progress = below;
            return false;
        }
        int first = last;
        while (first > 0 && path.extent(first - 1).block >= from) --first;
        below = path.extent(first).block;
        TRY(move_entries(handle, path, static_cast<unsigned>(first), static_cast<unsigned>(last) + 1,
                         static_cast<std::int64_t>(by)));
        progress = below;
    }
    progress = std::max<std::uint64_t>(from, 1);
    return true;
}

Result<bool> ExtentTree::shift(Handle& handle, LogicalBlock from, std::int64_t delta, std::uint64_t& progress) {
    if (progress == 0 && !TRY(split_for_shift(handle, from, delta))) return false;
    if (delta == 0 || from.value >= extent_limit) return true;
    const std::uint64_t by = distance(delta);
    return delta < 0 ? shift_down(handle, from.value, by, progress) : shift_up(handle, from.value, by, progress);
}

}  // namespace uext4
