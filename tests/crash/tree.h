// What a file system shows: every name, what it names, and the contents.
#pragma once

#include "api/file_system.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace uext4::crash {

// Everything but contents, sizes and times: what one metadata operation after the other changes.
struct Node {
    std::uint64_t inode = 0;
    std::uint32_t mode = 0;
    std::uint64_t links = 0;
    std::string target;                         // of a symbolic link
    std::map<std::string, std::string> xattrs;  // bytes
    std::string contents;                       // of a regular file
};

using Tree = std::map<std::string, Node>;

Result<Tree> capture(FileSystem& fs);
// A directory and what is in it, by full paths; and the same of a tree.
Result<Tree> capture(FileSystem& fs, const std::string& directory);
Tree part_of(const Tree& tree, const std::string& directory);
// The first path where the names or attributes differ, and how; empty when they are equal.
// `numbers`: inodes have the same numbers; else it is enough that the same names are links to one inode.
std::string difference(const Tree& wanted, const Tree& got, bool contents, bool numbers = true);

}  // namespace uext4::crash
