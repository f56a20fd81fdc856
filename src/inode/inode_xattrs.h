// The attribute area inside an inode. map_lock held.
#pragma once

#include "format/xattr.h"
#include "inode/inode.h"

#include <vector>

namespace uext4 {

// From the first entry to the end of the inode; empty when the inode has no such area.
Bytes inode_xattr_area(Inode& inode);
// Views into the inode's bytes; empty where the area was never used.
Result<std::vector<format::XattrItem>> parse_inode_xattrs(Inode& inode);
Result<std::vector<format::XattrToStore>> copy_inode_xattrs(Inode& inode);
// Lays the items out; false, and nothing changed, when they do not fit. The inode is not stored.
bool store_inode_xattrs(Inode& inode, std::vector<format::XattrToStore>& items);

}  // namespace uext4
