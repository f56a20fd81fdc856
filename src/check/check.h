// Is the file system sound? Everything that two structures say is compared.
#pragma once

#include "volume/volume.h"

#include <string>
#include <vector>

namespace uext4 {

struct CheckProblem {
    std::string structure;  // structure and number
    std::string message;
    std::string
        path{};  // of the inode or directory in `where`; empty for other structures and where no name leads to it
};

struct CheckReport {
    std::vector<CheckProblem> problems;  // at most `max_problems`; the last says that there are more
    std::uint64_t inodes = 0, directories = 0, used_clusters = 0;
    bool clean() const { return problems.empty(); }
};
inline constexpr std::size_t max_problems = 1000;

// Of a volume that nobody changes meanwhile (opened read-only). Damage is reported, not returned; an error is a device
// that cannot be read. Memory: a hundred bytes for each group that has something in use and 8 for each run of
// it, at most a bit for each of its clusters, 60 bytes for each inode in use, attribute block and value of an attribute
// in an inode, the names of one directory at a time, and the numbers of all directories; with quota a count for each
// owner. With flex_bg, what mke2fs leaves empty costs 16 groups a hundred bytes.
Result<CheckReport> check(Volume& volume);

}  // namespace uext4
