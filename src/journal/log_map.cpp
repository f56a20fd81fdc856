#include "journal/log_map.h"

#include <algorithm>

namespace uext4 {

LogMap::LogMap(const std::vector<BlockRun>& runs) : extents_by_block_(runs) {
    std::uint64_t end = 0;
    for (const BlockRun& run : runs) extents_.push_back({end += run.count, run});
    std::ranges::sort(extents_by_block_, {}, &BlockRun::first);
}

Result<BlockNr> LogMap::block_at(std::uint64_t index) const {
    const auto part = std::ranges::upper_bound(extents_, index, {}, &Extent::end);
    if (part == extents_.end()) return fail(EUCLEAN, "journal: block {} lies past its end", index);
    return part->run.first + (part->run.count - (part->end - index));
}

bool LogMap::contains(BlockNr block) const {
    const auto next = std::ranges::upper_bound(extents_by_block_, block, {}, &BlockRun::first);
    return next != extents_by_block_.begin() && block - std::prev(next)->first < std::prev(next)->count;
}

}  // namespace uext4
