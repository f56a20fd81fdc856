// Hashes of names in indexed directories.
#pragma once

#include "format/superblock.h"

#include <optional>
#include <string_view>

namespace uext4::format {

struct DirHash {
    std::uint32_t major = 0;  // bit 0 clear: the index uses it for collisions
    std::uint32_t minor = 0;
};
// Empty for a version that cannot be computed here (SipHash of encrypted, case-folded directories).
std::optional<DirHash> dir_hash(std::string_view name, HashVersion version, const std::array<std::uint32_t, 4>& seed);
// The version stored in an index (0..2), with the file system's signedness.
constexpr HashVersion signed_or_not(std::uint8_t version, bool unsigned_chars) {
    return static_cast<HashVersion>(version <= 2 && unsigned_chars ? version + 3 : version);
}

}  // namespace uext4::format
