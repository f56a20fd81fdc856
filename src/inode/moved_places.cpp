#include "inode/moved_places.h"

#include <algorithm>

namespace uext4 {

namespace {
constexpr std::size_t most_ranges = 64;  // beyond, they count as all of the file
}

void MovedPlaces::note(Tid tid) {
    all_ = tid;
    ranges_.clear();
}

void MovedPlaces::note(Tid tid, LogicalBlock first, LogicalBlock end, const Journal& journal) {
    if (ranges_.size() == most_ranges) {
        const Tid durable = journal.durable_tid();
        std::erase_if(ranges_, [&](const Range& range) { return range.tid <= durable; });
    }
    if (ranges_.size() == most_ranges) return note(tid);
    ranges_.push_back({first, end, tid});
}

Tid MovedPlaces::newest(LogicalBlock first, LogicalBlock end) const {
    Tid newest = all_;
    for (const Range& range : ranges_)
        if (range.first < end && first < range.end) newest = std::max(newest, range.tid);
    return newest;
}

}  // namespace uext4
