// Inodes that are not files of anybody, though a number can name them.
#pragma once

#include "inode/inode.h"

namespace uext4 {

// The journal, the orphan file, the resize inode ..., and values of attributes, which keep a hash and a count where
// files have times. Only the file system itself changes them.
inline bool is_system_inode(const Inode& inode) {
    return inode.fs().geometry.is_own_inode(inode.number()) || inode.has_flag(format::inode_flag::ea_inode);
}

}  // namespace uext4
