// Where the journal's blocks lie.
#pragma once

#include "inode/inode_table.h"

#include <vector>

namespace uext4 {

// Of the journal inode: no holes, a regular file, no block twice. EUCLEAN names what is wrong.
Result<std::vector<BlockRun>> locate_journal(InodeTable& inodes, const format::Geometry& geometry);

}  // namespace uext4
