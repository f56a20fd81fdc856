// What a file system shows: every name, what it names, and the contents.
#pragma once

#include "api/file_system.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace uext4::crash {

// Times that operations set by themselves are the clock's, which stands in this century: those of a file come to the
// device in their time. All others were set by hand.
bool is_set_by_hand(const timespec& time);

// Everything but contents and sizes is what one metadata operation after the other changes.
struct Node {
    std::uint64_t inode = 0;
    std::uint32_t mode = 0, uid = 0, gid = 0;
    std::uint64_t links = 0;
    std::uint64_t device = 0;  // of a device node
    std::uint32_t flags = 0;   // lsattr's, without those that follow the contents
    timespec atime{}, mtime{}, ctime{};
    std::string target;                         // of a symbolic link
    std::map<std::string, std::string> xattrs;  // bytes
    std::string contents;                       // of a regular file
    bool has_stray = false;                     // the device has something behind its end, as find_strays() knows
};

using Tree = std::map<std::string, Node>;

// What one path names, itself if it is a symbolic link.
Result<Node> look(FileSystem& fs, const std::string& path);
// With the root directory, whose path is empty.
Result<Tree> capture(FileSystem& fs);
// Of a file system that has just been recovered: what the last blocks of its files have behind their ends.
Result<void> find_strays(FileSystem& fs, Tree& tree);
// A directory and what is in it, by full paths; and the same of a tree.
Result<Tree> capture(FileSystem& fs, const std::string& directory);
Tree part_of(const Tree& tree, const std::string& directory);
// How the second one's attributes differ from those that are wanted: all but links, names and contents. Empty: not.
std::string other_attributes(const Node& wanted, const Node& got);
// How its times of change differ, whoever set them.
std::string other_times_of_change(const Node& wanted, const Node& got);
// The first path where the names or attributes differ, and how; empty when they are equal.
// `numbers`: inodes have the same numbers; else it is enough that the same names are links to one inode.
std::string difference(const Tree& wanted, const Tree& got, bool contents, bool numbers = true);

}  // namespace uext4::crash
