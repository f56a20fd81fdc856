// Fast commits replayed: operations on inodes, names and blocks, as the log tells them.
#pragma once

#include "inode/inode_table.h"
#include "inode/orphan_list.h"
#include "journal/fast_commit.h"

namespace uext4 {

// On layers that nobody else uses, without a log: the caller makes the outcome durable as a whole, or drops it. EUCLEAN
// names the tag that cannot be.
Result<void> replay_fast_commits(const FastCommits& commits, FsContext& fs, InodeTable& inodes, OrphanList& orphans);

}  // namespace uext4
