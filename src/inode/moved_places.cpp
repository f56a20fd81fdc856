#include "inode/moved_places.h"

#include <algorithm>

namespace uext4 {

namespace {
constexpr std::size_t most_ranges = 64;  // beyond, they count as all of the file
}

void MovedPlaces::note_emptied(Tid tid, LogicalBlock first, LogicalBlock end, const Journal& journal) {
    if (emptied_.size() == most_ranges) {
        const Tid durable = journal.durable_tid();
        std::erase_if(emptied_, [&](const Range& range) { return range.tid <= durable; });
    }
    if (emptied_.size() == most_ranges) {
        all_emptied_ = tid;
        emptied_.clear();
        return;
    }
    emptied_.push_back({first, end, tid});
}

Tid MovedPlaces::emptied(LogicalBlock first, LogicalBlock end) const {
    Tid newest = all_emptied_;
    for (const Range& range : emptied_)
        if (range.first < end && first < range.end) newest = std::max(newest, range.tid);
    return newest;
}

}  // namespace uext4
