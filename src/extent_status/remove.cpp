// What a file gives up: places that are promised or chosen, then those that are named. What a cluster keeps stays the
// file's, and may be written to again at once.
#include "extent_status/extent_mapper.h"

#include <algorithm>

namespace uext4 {

std::vector<std::pair<LogicalBlock, LogicalBlock>> ExtentMapper::partial_cluster_blocks(LogicalBlock first,
                                                                                        LogicalBlock end) const {
    const LogicalBlock begins(round_up(first.value, tree_.ratio())), ends(round_down(end.value, tree_.ratio()));
    std::vector<std::pair<LogicalBlock, LogicalBlock>> kept;
    if (first < begins) kept.emplace_back(first, std::min(begins, end));
    if (first <= ends && ends < end && end < tree_.map().max_block()) kept.emplace_back(ends, end);
    return kept;
}

Result<LogicalBlock> ExtentMapper::unmap_range(Handle& handle, LogicalBlock first, LogicalBlock end) {
    if (tree_.ratio() > 1 && !tree_.owner().is_inline()) {
        TRY(release_used_cluster(first.value / tree_.ratio()));
        TRY(release_used_cluster((end.value - 1) / tree_.ratio()));
        for (const auto& [unmap_range, to] : partial_cluster_blocks(first, end))
            tree_.owner().note_uncommitted_unmap(handle.tid(), unmap_range, to);
    }
    return unmap_on_disk(handle, first, end);
}

// Blocks of a cluster that is in use already, chosen for data that could not be written or named, are a promise again:
// the cluster goes with its last named block.
Result<void> ExtentMapper::release_used_cluster(std::uint64_t cluster) {
    const std::uint64_t r = tree_.ratio(),
                        end = cluster > ~std::uint64_t{0} / r - 1 ? ~std::uint64_t{0} : (cluster + 1) * r;
    for (auto it = tree_.run_at_or_after(cluster * r); it != tree_.end() && it->first < end;) {
        const std::uint64_t start = it->first, n = it->second.count;
        if (it->second.state != BlockState::allocated || (it->second.allocation && *it->second.allocation)) {
            ++it;
            continue;
        }
        tree_.erase_run(it);
        tree_.note_change();
        TRY(delalloc_.restore({start, n}));
        it = tree_.run_at_or_after(start + n);
    }
    return {};
}

Result<LogicalBlock> ExtentMapper::unmap_on_disk(Handle& handle, LogicalBlock first, LogicalBlock end) {
    if (tree_.owner().is_inline()) return first;
    tree_.invalidate();
    const std::uint64_t r = tree_.ratio();
    auto keeps = [&](LogicalBlock cluster_start) {
        if (r == 1) return false;
        auto it = tree_.run_at_or_after(cluster_start.value);
        for (; it != tree_.end() && it->first < cluster_start.value + r; ++it)
            if (it->second.state == BlockState::allocated) return true;
        return false;
    };
    return tree_.map().remove(handle, first, end, keeps);
}

}  // namespace uext4
