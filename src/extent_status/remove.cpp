// What a file gives up: places that are promised or chosen, then those that are named. What a cluster keeps stays the
// file's, and may be written to again at once.
#include "extent_status/extent_status_tree.h"

#include <algorithm>

namespace uext4 {

void ExtentStatusTree::remove_pending(LogicalBlock first, LogicalBlock end) {
    if (pending_.empty()) return;
    if (end.value != ~std::uint64_t{0}) split_at(end.value);
    auto it = split_at(first.value);
    bool any = false;
    while (it != pending_.end() && it->first < end.value) {
        const std::uint64_t start = it->first;
        const PendingRun run = it->second;
        it = erase_run(it);
        any = true;
        if (run.state != BlockState::delayed) continue;
        // What of the promise is still needed is what the remaining reserved blocks need.
        if (ratio() == 1) {
            data_reservation_.release_part(run.count);
            continue;
        }
        const Result<std::uint64_t> clusters = clusters_needed(start, run.count);
        if (clusters) data_reservation_.release_part(std::min(*clusters, data_reservation_.clusters()));
    }
    if (!any) return;
    ++sequence_;
    trim_reservations();
}

std::vector<std::pair<LogicalBlock, LogicalBlock>> ExtentStatusTree::partial_cluster_blocks(LogicalBlock first,
                                                                                            LogicalBlock end) const {
    const LogicalBlock begins(round_up(first.value, ratio())), ends(round_down(end.value, ratio()));
    std::vector<std::pair<LogicalBlock, LogicalBlock>> kept;
    if (first < begins) kept.emplace_back(first, std::min(begins, end));
    if (first <= ends && ends < end && end < map_.max_block()) kept.emplace_back(ends, end);
    return kept;
}

Result<LogicalBlock> ExtentStatusTree::unmap_range(Handle& handle, LogicalBlock first, LogicalBlock end) {
    if (ratio() > 1 && !owner_.is_inline()) {
        TRY(release_used_cluster(first.value / ratio()));
        TRY(release_used_cluster((end.value - 1) / ratio()));
        for (const auto& [unmap_range, to] : partial_cluster_blocks(first, end))
            owner_.note_uncommitted_unmap(handle.tid(), unmap_range, to);
    }
    return unmap_on_disk(handle, first, end);
}

// Blocks of a cluster that is in use already, chosen for data that could not be written or named, are a promise again:
// the cluster goes with its last named block.
Result<void> ExtentStatusTree::release_used_cluster(std::uint64_t cluster) {
    const std::uint64_t r = ratio(), end = cluster > ~std::uint64_t{0} / r - 1 ? ~std::uint64_t{0} : (cluster + 1) * r;
    for (auto it = run_at_or_after(cluster * r); it != pending_.end() && it->first < end;) {
        const std::uint64_t start = it->first, n = it->second.count;
        if (it->second.state != BlockState::allocated || (it->second.allocation && *it->second.allocation)) {
            ++it;
            continue;
        }
        erase_run(it);
        ++sequence_;
        TRY(restore_delayed({start, n}));
        it = run_at_or_after(start + n);
    }
    return {};
}

Result<LogicalBlock> ExtentStatusTree::unmap_on_disk(Handle& handle, LogicalBlock first, LogicalBlock end) {
    if (owner_.is_inline()) return first;
    invalidate();
    const std::uint64_t r = ratio();
    auto keeps = [&](LogicalBlock cluster_start) {
        if (r == 1) return false;
        auto it = run_at_or_after(cluster_start.value);
        for (; it != pending_.end() && it->first < cluster_start.value + r; ++it)
            if (it->second.state == BlockState::allocated) return true;
        return false;
    };
    return map_.remove(handle, first, end, keeps);
}

}  // namespace uext4
