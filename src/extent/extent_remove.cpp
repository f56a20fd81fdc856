// Unmapping from the end backwards, in steps that each fit what is left of the handle.
#include "extent/extent_tree.h"

#include <algorithm>

namespace uext4 {

using format::ExtentLeaf;

// Frees what lay at [from, to), unmapped by now: whole clusters, except those another block or a pending allocation
// uses.
Result<void> ExtentTree::free_run(Handle& handle, std::uint64_t from, std::uint64_t to, BlockNr physical,
                                  const ClusterEdges& may_free) {
    if (ratio() == 1) return blocks_.free_data(handle, physical, to - from);
    const std::uint64_t r = ratio();
    const BlockNr base = physical - from % r;  // of the cluster that `from` lies in
    const std::uint64_t first_cluster = round_down(from, r);
    std::uint64_t run_start = 0, run_count = 0;  // clusters to free, relative to first_cluster, in blocks
    auto flush = [&]() -> Result<void> {
        if (run_count) TRY(blocks_.free_data(handle, base + run_start, run_count));
        run_count = 0;
        return {};
    };
    // What a cluster keeps for its other blocks may be written again with no copy in the log winning over it.
    auto forget_in = [&](std::uint64_t cluster) -> Result<void> {
        const std::uint64_t first = std::max(cluster, from), end = std::min(cluster + r, to);
        return owner_.revoke_data(handle, physical + (first - from), end - first);
    };
    for (std::uint64_t cluster = first_cluster; cluster < to; cluster += r) {
        const bool is_first = cluster == first_cluster, is_last = cluster + r >= to;
        if ((is_first && !may_free.first) || (is_last && !may_free.last) ||
            (may_free.keeps && may_free.keeps(LogicalBlock(cluster)))) {
            TRY(flush());
            TRY(forget_in(cluster));
            continue;
        }
        if (run_count == 0) run_start = cluster - first_cluster;
        run_count += r;
    }
    return flush();
}

// Whether nothing else of the cluster that `at` lies in is mapped, but for [from, to).
Result<bool> ExtentTree::is_cluster_unshared(std::uint64_t at, std::uint64_t from, std::uint64_t to) {
    const std::uint64_t cluster = round_down(at, ratio()), end = std::min(cluster + ratio(), extent_limit);
    for (const auto& [a, b] : {std::pair(cluster, std::min(from, end)), std::pair(std::max(to, cluster), end)}) {
        if (a >= b) continue;
        const MappedRun rest = TRY(lookup(LogicalBlock(a), b - a));
        if (!rest.hole() || rest.count < b - a) return false;
    }
    return true;
}

Result<LogicalBlock> ExtentTree::remove(Handle& handle, LogicalBlock from, LogicalBlock to,
                                        const BlockMap::IsClusterShared& keeps_cluster) {
    to = std::min(to, LogicalBlock(extent_limit));
    while (from < to) {
        ExtentPath path = TRY(descend(to - 1));
        const int pos = path.leaf().pos;
        if (pos < 0) {
            // Nothing here: the very start of the tree, or a leaf that was left empty by others.
            const std::uint64_t first = path.leaf().first;
            if (path.depth > 0 && path.count() == 0) {
                if (!handle.extend(path.depth * (1 + Allocator::mark_used_credits()) + 1)) return to;
                TRY(splice_entries(handle, path, 0, 0, {}, nullptr, BlockNr()));
                continue;
            }
            if (path.depth == 0 || first == 0 || first >= to.value || first <= from.value) break;
            to = LogicalBlock(first);
            continue;
        }
        const ExtentLeaf e = path.extent(pos);
        const std::uint64_t end = std::min(extent_end(e), to.value);
        if (end <= from.value) break;
        std::uint64_t start = std::max<std::uint64_t>(e.block, from.value);
        // One group's bitmap a step.
        const BlockNr last = e.start() + (end - 1 - e.block);
        const BlockNr group_start = geometry().first_block(geometry().group_of(last));
        if (group_start > e.start()) start = std::max(start, e.block + (group_start - e.start()));
        if (owner_.has_journaled_data() && end - start > Handle::max_revokes_per_step)
            start = std::max(start, round_down(end - Handle::max_revokes_per_step, ratio()));

        const bool splits = start > e.block && end < extent_end(e);
        const bool empties = start == e.block && end == extent_end(e) && path.count() == 1;
        unsigned needed = path.depth + 1 + Allocator::mark_used_credits();
        if (splits) needed = credits();
        else if (empties) needed += path.depth * Allocator::mark_used_credits();
        if (!handle.extend(needed)) return to;

        TRY(owner_.get_write_access(handle));
        // Asked before anything changes: nothing is read in between.
        ClusterEdges may_free{.first = true, .last = true, .keeps = keeps_cluster};
        if (ratio() > 1) {
            may_free.first = TRY(is_cluster_unshared(start, start, end));
            may_free.last = TRY(is_cluster_unshared(end - 1, start, end));
        }
        const std::vector<BufferRef> held = TRY(blocks_.pin_for_free(e.start() + (start - e.block), end - start));
        ExtentListBuilder list;
        list.add_part(e, e.block, start);
        list.add_part(e, end, extent_end(e));
        TRY(replace_extents(handle, path, pos, pos + 1, list, nullptr));
        TRY(free_run(handle, start, end, e.start() + (start - e.block), may_free));
        to = LogicalBlock(start);
        if (from < to && handle.needs_restart()) return to;
    }
    TRY(collapse_root(handle));
    return from;
}

}  // namespace uext4
