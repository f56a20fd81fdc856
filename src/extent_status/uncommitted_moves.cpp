#include "extent_status/uncommitted_moves.h"

#include <algorithm>

namespace uext4 {

namespace {
constexpr std::size_t most_ranges = 64;  // beyond, they count as all of the file
}

void UncommittedMoves::note_unmap(Tid tid, LogicalBlock first, LogicalBlock end, const Journal& journal) {
    if (unmaps_.size() == most_ranges) {
        const Tid durable = journal.durable_tid();
        std::erase_if(unmaps_, [&](const Range& range) { return range.tid <= durable; });
    }
    if (unmaps_.size() == most_ranges) {
        oldest_kept_unmap_ = tid;
        unmaps_.clear();
        return;
    }
    unmaps_.push_back({first, end, tid});
}

Tid UncommittedMoves::unmap_tid(LogicalBlock first, LogicalBlock end) const {
    Tid newest = oldest_kept_unmap_;
    for (const Range& range : unmaps_)
        if (range.first < end && first < range.end) newest = std::max(newest, range.tid);
    return newest;
}

}  // namespace uext4
