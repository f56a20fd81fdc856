// What a file gives up: places that are promised or chosen, then those that are named. What a cluster keeps stays the
// file's, and may be written to again at once.
#include "inode/inode.h"
#include "inode/places.h"

#include <algorithm>

namespace uext4 {

void Places::drop_pending(LogicalBlock first, LogicalBlock end) {
    if (pending_.empty()) return;
    if (end.value != ~std::uint64_t{0}) split_at(end.value);
    auto it = split_at(first.value);
    bool any = false;
    while (it != pending_.end() && it->first < end.value) {
        const std::uint64_t start = it->first;
        const Pending run = it->second;
        it = erase_run(it);
        any = true;
        if (run.place != Place::reserved) continue;
        // What of the promise is still needed is what the remaining reserved blocks need.
        if (ratio() == 1) {
            data_claim_.give_back(run.count);
            continue;
        }
        const Result<std::uint64_t> clusters = clusters_needed(start, run.count);
        if (clusters) data_claim_.give_back(std::min(*clusters, data_claim_.clusters()));
    }
    if (!any) return;
    ++cookie_;
    trim_claims();
}

std::vector<std::pair<LogicalBlock, LogicalBlock>> Places::kept_within_clusters(LogicalBlock first,
                                                                                LogicalBlock end) const {
    const LogicalBlock begins(round_up(first.value, ratio())), ends(round_down(end.value, ratio()));
    std::vector<std::pair<LogicalBlock, LogicalBlock>> kept;
    if (first < begins) kept.emplace_back(first, std::min(begins, end));
    if (first <= ends && ends < end && end < inode_.map().limit()) kept.emplace_back(ends, end);
    return kept;
}

Result<LogicalBlock> Places::remove(Handle& handle, LogicalBlock first, LogicalBlock end) {
    if (ratio() > 1 && !inode_.is_inline()) {
        TRY(leave_used_cluster(first.value / ratio()));
        TRY(leave_used_cluster((end.value - 1) / ratio()));
        for (const auto& [from, to] : kept_within_clusters(first, end)) inode_.note_emptied(handle.tid(), from, to);
    }
    return unmap(handle, first, end);
}

// Blocks of a cluster that is in use already, chosen for data that could not be written or named, are a promise again:
// the cluster goes with its last named block.
Result<void> Places::leave_used_cluster(std::uint64_t cluster) {
    const std::uint64_t r = ratio(), end = cluster > ~std::uint64_t{0} / r - 1 ? ~std::uint64_t{0} : (cluster + 1) * r;
    for (auto it = run_at_or_after(cluster * r); it != pending_.end() && it->first < end;) {
        const std::uint64_t start = it->first, n = it->second.count;
        if (it->second.place != Place::granted || (it->second.grant && *it->second.grant)) {
            ++it;
            continue;
        }
        erase_run(it);
        ++cookie_;
        TRY(promise_again({start, n}));
        it = run_at_or_after(start + n);
    }
    return {};
}

Result<LogicalBlock> Places::unmap(Handle& handle, LogicalBlock first, LogicalBlock end) {
    if (inode_.is_inline()) return first;
    changed();
    const std::uint64_t r = ratio();
    auto keeps = [&](LogicalBlock cluster_start) {
        if (r == 1) return false;
        auto it = run_at_or_after(cluster_start.value);
        for (; it != pending_.end() && it->first < cluster_start.value + r; ++it)
            if (it->second.place == Place::granted) return true;
        return false;
    };
    return inode_.map().remove(handle, first, end, keeps);
}

}  // namespace uext4
