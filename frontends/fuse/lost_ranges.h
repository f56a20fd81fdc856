// Bytes of a file that the kernel had and could not write: it has dropped them, or will. What has them anew, or is cut
// off, is not lost any more.
#pragma once

#include "fuse/byte_ranges.h"

#include <cstdint>

namespace uext4::fuse {

class LostRanges {
public:
    void add(std::uint64_t offset, std::uint64_t length, int error);
    void written(std::uint64_t offset, std::uint64_t length);
    void cut(std::uint64_t size);
    // Of the last loss; 0: nothing is lost.
    int error() const { return ranges_.empty() ? 0 : error_; }

private:
    ByteRanges ranges_;
    int error_ = 0;
};

}  // namespace uext4::fuse
