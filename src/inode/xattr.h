// Extended attributes of inodes: in the inode, in a block, in value inodes.
// The caller holds rw (shared to read, exclusive to change); the functions take map_lock.
#pragma once

#include "base/result.h"
#include "format/xattr.h"
#include "inode/access.h"
#include "inode/inode.h"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace uext4 {

enum class XattrMode : std::uint8_t { either, create, replace };

// As users see them: full names; ACLs in their user form, applied to the mode. find_xattr: nothing where there is none,
// which is what most are asked for; get_xattr: ENODATA. ERANGE is the caller's affair.
Result<std::optional<std::vector<std::byte>>> find_xattr(Inode& inode, std::string_view name);
Result<std::vector<std::byte>> get_xattr(Inode& inode, std::string_view name);
// An ACL set by somebody (`who`) outside the file's group takes its set-group-id bit. `may_use_reserve`: the blocks
// reserved for root; removing needs one where the attributes are in a block that others share.
Result<void> set_xattr(Handle& handle, Inode& inode, std::string_view name, ConstBytes value, XattrMode mode,
                       bool may_use_reserve, const Credentials* who = nullptr);
Result<void> remove_xattr(Handle& handle, Inode& inode, std::string_view name, bool may_use_reserve);
// Full names; system.data is not among them.
Result<std::vector<std::string>> list_xattrs(Inode& inode);
// May `who` read or write it: user.* on files and directories only, trusted.* needs CAP_SYS_ADMIN and so on. EPERM, or
// ENODATA where Linux says so.
Result<void> check_can_change_xattrs(const Inode& inode);  // what the inode's flags say to everybody: EPERM
Result<void> check_xattr_access(Inode& inode, const Credentials& who, std::string_view name, bool write);

// Stored form (ACLs as on disk).
Result<std::optional<std::vector<std::byte>>> find_xattr_raw(Inode& inode, std::string_view name);
Result<void> set_xattr_raw(Handle& handle, Inode& inode, std::string_view name, ConstBytes value, XattrMode mode,
                           bool may_use_reserve);
Result<void> remove_xattr_raw(Handle& handle, Inode& inode, std::string_view name, bool may_use_reserve);

// Everything but system.data goes: at the inode's deletion. May restart the handle, which has room for xattr_credits()
// again afterwards.
Result<void> free_all_xattrs(Handle& handle, Inode& inode);
// Of one change, to a value of at most `size` bytes (0: a removal).
unsigned xattr_credits(Inode& inode, std::size_t size = format::xattr_max_value);

}  // namespace uext4
