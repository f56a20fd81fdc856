// chmod, chown, utimes and flags. rw exclusive; map_lock is taken.
#pragma once

#include "inode/access.h"

#include <optional>

namespace uext4 {

struct AttributeChange {
    std::optional<std::uint16_t> mode;  // permission bits
    std::optional<std::uint32_t> uid, gid;
    std::optional<format::Timestamp> atime, mtime, ctime;
    bool atime_now = false, mtime_now = false;  // the current time; of both together needs write permission only
    bool is_deferred_write_time = false;  // times of what was written before: flags of the inode do not forbid them
    bool is_chown = false;                // chown, if only to what was there: set-id bits go all the same
    // Unchecked; but whether a set-gid bit of a group that may not execute goes depends on who asks.
    bool checks_setgid = false;
};

format::Timestamp current_time();                     // of the clock
format::Timestamp current_time(const FsContext& fs);  // of stamps: the clock's, or the option's fixed time
// EPERM, EACCES by POSIX's and Linux's rules when `check`; set-id bits go as they must in any case.
Result<void> apply_attribute_change(Inode& inode, const AttributeChange& change, const Credentials& who, bool check);
// A write by somebody without CAP_FSETID takes the set-id bits (and security.capability).
Result<void> file_remove_privs(Inode& inode, const Credentials& who);

// As FS_IOC_GETFLAGS and FS_IOC_SETFLAGS show them.
std::uint32_t get_user_flags(const Inode& inode);
// All but the flags `j` and `e`, which the file layer switches. EPERM, EOPNOTSUPP for what cannot be changed.
Result<void> set_user_flags(Inode& inode, std::uint32_t wanted, const Credentials& who, bool check);
inline constexpr std::uint32_t user_settable_flags =
    format::inode_flag::secrm | format::inode_flag::unrm | format::inode_flag::compr | format::inode_flag::sync |
    format::inode_flag::immutable | format::inode_flag::append | format::inode_flag::nodump |
    format::inode_flag::noatime | format::inode_flag::journal_data | format::inode_flag::notail |
    format::inode_flag::dirsync | format::inode_flag::topdir | format::inode_flag::eofblocks | format::inode_flag::dax |
    format::inode_flag::projinherit;
// Shown, and taken without a word, but they stay as they are.
inline constexpr std::uint32_t user_ignored_flags = format::inode_flag::dirty | format::inode_flag::comprblk |
                                                    format::inode_flag::nocompr | format::inode_flag::encrypt |
                                                    format::inode_flag::index | format::inode_flag::verity |
                                                    format::inode_flag::inline_data;

}  // namespace uext4
