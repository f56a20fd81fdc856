#include "fuse/lost_ranges.h"

#include <algorithm>
#include <iterator>

namespace uext4::fuse {

void LostRanges::add(std::uint64_t offset, std::uint64_t length, int error) {
    if (length == 0) return;
    std::uint64_t first = offset, end = offset + length;
    auto range = ranges_.upper_bound(first);
    if (range != ranges_.begin() && std::prev(range)->second >= first) --range;
    while (range != ranges_.end() && range->first <= end) {
        first = std::min(first, range->first);
        end = std::max(end, range->second);
        range = ranges_.erase(range);
    }
    ranges_.emplace(first, end);
    error_ = error;
}

void LostRanges::written(std::uint64_t offset, std::uint64_t length) {
    if (length == 0) return;
    const std::uint64_t end = length > ~std::uint64_t{0} - offset ? ~std::uint64_t{0} : offset + length;
    auto range = ranges_.upper_bound(offset);
    if (range != ranges_.begin() && std::prev(range)->second > offset) --range;
    while (range != ranges_.end() && range->first < end) {
        const auto [first, last] = *range;
        range = ranges_.erase(range);
        if (first < offset) ranges_.emplace(first, offset);
        if (last > end) ranges_.emplace(end, last);
    }
}

void LostRanges::cut(std::uint64_t size) { written(size, ~std::uint64_t{0}); }

}  // namespace uext4::fuse
