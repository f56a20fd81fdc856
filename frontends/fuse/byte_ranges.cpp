#include "fuse/byte_ranges.h"

#include <algorithm>
#include <iterator>

namespace uext4::fuse {

namespace {

std::uint64_t end_of(std::uint64_t offset, std::uint64_t length) {
    return length > ~std::uint64_t{0} - offset ? ~std::uint64_t{0} : offset + length;
}

}  // namespace

void ByteRanges::add(std::uint64_t offset, std::uint64_t length) {
    if (length == 0) return;
    std::uint64_t first = offset, end = end_of(offset, length);
    auto range = ranges_.upper_bound(first);
    if (range != ranges_.begin() && std::prev(range)->second >= first) --range;
    while (range != ranges_.end() && range->first <= end) {
        first = std::min(first, range->first);
        end = std::max(end, range->second);
        range = ranges_.erase(range);
    }
    ranges_.emplace(first, end);
}

bool ByteRanges::remove(std::uint64_t offset, std::uint64_t length) {
    if (length == 0) return false;
    const std::uint64_t end = end_of(offset, length);
    auto range = ranges_.upper_bound(offset);
    if (range != ranges_.begin() && std::prev(range)->second > offset) --range;
    bool any = false;
    while (range != ranges_.end() && range->first < end) {
        const auto [first, last] = *range;
        range = ranges_.erase(range);
        if (first < offset) ranges_.emplace(first, offset);
        if (last > end) ranges_.emplace(end, last);
        any = true;
    }
    return any;
}

}  // namespace uext4::fuse
