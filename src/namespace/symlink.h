// Targets of symbolic links.
#pragma once

#include "inode/inode.h"

#include <string>
#include <string_view>

namespace uext4 {

// rw held in any mode.
Result<std::string> read_symlink(Inode& link);
// EUCLEAN for a link whose target lies in the inode and has another length than its size. Takes map_lock.
Result<void> check_fast_symlink(Inode& link);

// ENAMETOOLONG over 4095 bytes or what one block holds with its zero byte; ENOENT for the empty target.
Result<void> check_symlink_target(const FsContext& fs, std::string_view target);

// Into a new inode. The target was checked.
Result<void> write_symlink(Handle& handle, Inode& link, std::string_view target, bool privileged);
unsigned symlink_credits(Inode& directory);

}  // namespace uext4
