// POSIX ACLs of inodes.
#pragma once

#include "format/acl.h"
#include "inode/access.h"
#include "inode/inode.h"

#include <optional>

namespace uext4 {

enum class AclKind : std::uint8_t { access, default_ };

// None when there is no such ACL. Takes map_lock.
Result<std::optional<format::Acl>> get_acl(Inode& inode, AclKind kind);
// Stores it, or removes it when empty; an access ACL sets the mode's bits, and one that says no more than the mode is
// not stored. rw exclusive; takes map_lock. `who`: as chmod, whoever is not of the file's group and has no CAP_FSETID
// clears the set-group-id bit.
Result<void> set_acl(Handle& handle, Inode& inode, AclKind kind, format::Acl acl, bool may_use_reserve,
                     const Credentials* who = nullptr);
// For a new inode: the directory's default ACL, or else the umask of `who` makes it. rw of the directory held; takes
// map_locks.
Result<void> inherit_acl(Handle& handle, Inode& directory, Inode& fresh, const Credentials& who);
unsigned acl_inherit_credits(Inode& directory);
// chmod: the access ACL follows the mode. The mode is set already.
Result<void> update_acl_for_chmod(Handle& handle, Inode& inode);
unsigned chmod_acl_credits(Inode& inode);

}  // namespace uext4
