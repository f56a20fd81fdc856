// A set of bytes of a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

namespace uext4::fuse {

class ByteRanges {
public:
    void add(std::uint64_t offset, std::uint64_t length);
    // Whether any of them was in it. Up to the end of all files where offset and length are more.
    bool remove(std::uint64_t offset, std::uint64_t length);
    bool empty() const { return ranges_.empty(); }
    std::size_t pieces() const { return ranges_.size(); }

private:
    std::map<std::uint64_t, std::uint64_t> ranges_;  // first byte, end; they neither meet nor overlap
};

}  // namespace uext4::fuse
