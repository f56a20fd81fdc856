// Who may do what.
#pragma once

#include "inode/inode.h"

#include <sys/types.h>

#include <algorithm>
#include <vector>

namespace uext4 {

// The capabilities of Linux that a file system asks for.
struct Capabilities {
    bool chown = false, dac_override = false, dac_read_search = false, fowner = false, fsetid = false,
         sys_admin = false, sys_resource = false, mknod = false, linux_immutable = false, setfcap = false;
    static Capabilities all() { return {true, true, true, true, true, true, true, true, true, true}; }
};

struct Credentials {
    uid_t uid = 0;
    gid_t gid = 0;
    std::vector<gid_t> groups;  // supplementary
    mode_t umask = 022;
    Capabilities capabilities;

    static Credentials root() { return {0, 0, {}, 022, Capabilities::all()}; }
    // Root gets all capabilities, anybody else none.
    static Credentials of(uid_t uid, gid_t gid, std::vector<gid_t> groups = {}, mode_t umask = 022) {
        return {uid, gid, std::move(groups), umask, uid == 0 ? Capabilities::all() : Capabilities{}};
    }
    bool in_group(gid_t wanted) const { return gid == wanted || std::ranges::find(groups, wanted) != groups.end(); }
};

inline constexpr int access_execute = 1, access_write = 2, access_read = 4;

// EACCES unless mode or ACL grant all of `mask`; EPERM for writing an immutable inode. Takes map_lock.
Result<void> check_access(Inode& inode, const Credentials& who, int mask);
// The file's owner, or somebody with CAP_FOWNER.
bool is_owner_or_capable(const Inode& inode, const Credentials& who);
// May use what is reserved for root, and acts with root's rights on names.
bool may_use_reserved_blocks(const FsContext& fs, const Credentials& who);

}  // namespace uext4
