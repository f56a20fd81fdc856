#include "fuse/lost_ranges.h"

namespace uext4::fuse {

void LostRanges::add(std::uint64_t offset, std::uint64_t length, int error) {
    if (length == 0) return;
    ranges_.add(offset, length);
    error_ = error;
}

void LostRanges::written(std::uint64_t offset, std::uint64_t length) { ranges_.remove(offset, length); }

void LostRanges::cut(std::uint64_t size) { written(size, ~std::uint64_t{0}); }

}  // namespace uext4::fuse
