// What a file system is made in, when the bytes of its unused blocks are to be told from zeros: a stale block shows,
// and so does one that should have been zeroed. mke2fs needs -E nodiscard to leave them as they are.
#pragma once

#include <cstdlib>
#include <fstream>
#include <string>

namespace uext4::crash {

inline constexpr char poison = '\xdb';

// `megabytes` as mke2fs has them: "32M". False where it cannot be written.
inline bool make_poisoned_file(const std::string& path, const std::string& megabytes) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    const std::string part(1 << 20, poison);
    for (int i = 0; i < std::atoi(megabytes.c_str()); ++i) file << part;
    return file.flush().good() && megabytes.ends_with('M');
}

}  // namespace uext4::crash
