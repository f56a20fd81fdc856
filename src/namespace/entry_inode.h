// What must agree in an inode that a directory names.
#pragma once

#include "inode/inode.h"

namespace uext4 {

// EUCLEAN where the kernel refuses the inode as well: the flag of an attribute's value, casefold without its feature, a
// symbolic link with a flag that links cannot have, or with a size that is not the length of its text. Takes map_lock.
Result<void> check_directory_entry_inode(Inode& inode);

}  // namespace uext4
