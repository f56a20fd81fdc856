// Fast commits: what the area behind the log's ring says changed since the last ordinary commit. Tags that describe
// changes of inodes, not images of blocks; whoever knows inodes replays them.
#pragma once

#include "base/bytes.h"
#include "base/numbers.h"
#include "format/journal.h"

#include <string>
#include <vector>

namespace uext4 {

class LogReader;

struct FastCommitOperation {
    format::FastCommitTagType type = format::fc_pad;
    InodeNr inode;
    InodeNr parent;                   // of a name
    std::string name;                 // create, link, unlink
    LogicalBlock logical;             // of a range
    std::uint64_t count = 0;          // of a range
    BlockNr physical;                 // of an added range
    bool unwritten = false;           // of an added range
    std::vector<std::byte> contents;  // of an inode
    std::uint32_t log_block = 0, offset = 0;

    std::string describe() const;  // for errors: where the tag lies and what it is
};

struct FastCommits {
    std::uint32_t tid = 0;      // the transaction that they go before
    std::uint64_t commits = 0;  // finished ones
    std::vector<FastCommitOperation> operations;
    bool any() const { return commits != 0; }
};

// The finished fast commits of the transaction `tid`, in order; they end at the first tag that is none, has a wrong
// length, another transaction or a wrong checksum. EOPNOTSUPP where they have features that nobody here knows. What
// tags say of inodes and blocks is not judged here.
Result<FastCommits> read_fast_commits(const LogReader& log, std::uint32_t tid, std::uint32_t block_size);
const char* fast_commit_tag_name(std::uint16_t type);

}  // namespace uext4
