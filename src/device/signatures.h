// Formats that are no ext2, ext3 or ext4 file system, by their first bytes: so that a refused image is told by name,
// and the user how to get at what is in it.
//
// The bytes are those of a stranger. Nothing is done with them but to compare them.
#pragma once

#include "base/bytes.h"

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace uext4 {

struct Signature {
    std::uint64_t offset;
    std::string_view bytes;
    std::string_view description;  // "a qcow2 image"
    std::string_view hint;         // "{}" stands for the image
};

// Reads all of `out`; false where that is not possible.
using ReadAt = std::function<bool(std::uint64_t offset, Bytes out)>;

// The format of the first bytes of `size`; null where none is known. ext2, ext3 and ext4 count as one.
const Signature* identify_signature(const ReadAt& read, std::uint64_t size);
// "a qcow2 image; `qemu-img convert -O raw disk.img raw.img` makes a raw disk of it".
std::string describe(const Signature& signature, const std::string& image);

}  // namespace uext4
