#include "namespace/entry_inode.h"

#include "namespace/symlink.h"

namespace uext4 {

Result<void> check_directory_entry_inode(Inode& inode) {
    namespace flag = format::inode_flag;
    const std::uint32_t flags = inode.flags();
    if (flags & flag::ea_inode)
        return fail(EUCLEAN, "inode {}: i_flags is {:#x}: ea_inode, which only an attribute's value may have",
                    inode.number(), flags);
    if ((flags & flag::casefold) && !inode.fs().geometry.has_incompat(format::incompat::casefold))
        return fail(EUCLEAN, "inode {}: i_flags is {:#x}: casefold, but the superblock lacks that feature",
                    inode.number(), flags);
    if (!inode.is_symlink()) return {};
    if (flags & (flag::append | flag::immutable))
        return fail(EUCLEAN, "inode {}: i_flags is {:#x}: append or immutable, which a symlink cannot have",
                    inode.number(), flags);
    return check_fast_symlink(inode);
}

}  // namespace uext4
