// Extended attributes: FileSystem checks the caller and hands on.
#include "api/change_guard.h"
#include "api/file_system.h"
#include "base/seam.h"
#include "inode/xattr.h"

#include <linux/capability.h>
#include <linux/posix_acl_xattr.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cstring>

namespace uext4 {

Result<std::vector<std::byte>> FileSystem::get_xattr(Inode& inode, std::string_view name, const Credentials& who,
                                                     bool check) {
    if (check) TRY(check_xattr_access(inode, who, name, false));
    ReadLock guard(inode.rw);
    return uext4::get_xattr(inode, name);
}

Result<std::optional<std::vector<std::byte>>> FileSystem::find_xattr(Inode& inode, std::string_view name,
                                                                     const Credentials& who, bool check) {
    if (check) TRY(check_xattr_access(inode, who, name, false));
    ReadLock guard(inode.rw);
    return uext4::find_xattr(inode, name);
}

namespace {

// capabilities(7): struct vfs_cap_data, of revision 2 or 3.
bool is_file_capability(ConstBytes value) {
    if (value.size() < sizeof(std::uint32_t)) return false;
    const std::uint32_t revision = view_as<Le32>(value).get() & VFS_CAP_REVISION_MASK;
    return (revision == VFS_CAP_REVISION_2 && value.size() == XATTR_CAPS_SZ_2) ||
           (revision == VFS_CAP_REVISION_3 && value.size() == XATTR_CAPS_SZ_3);
}

// What is wrong with the bytes themselves is told before what is forbidden.
Result<void> check_form(std::string_view name, ConstBytes value) {
    if (name == "security.capability" && !is_file_capability(value))
        return fail(EINVAL, "{} bytes are no file capability", value.size());
    if (!name.starts_with("system.posix_acl_") || value.empty()) return {};
    if (value.size() < sizeof(std::uint32_t)) return fail(EINVAL, "an ACL of {} bytes", value.size());
    const std::uint32_t version = view_as<Le32>(value).get();
    if (version != POSIX_ACL_XATTR_VERSION) return fail(EOPNOTSUPP, "an ACL of version {}", version);
    return {};
}

}  // namespace

Result<void> FileSystem::set_xattr(Inode& inode, std::string_view name, ConstBytes value, int flags,
                                   const Credentials& who, bool check) {
    TRY(check_changeable(inode));
    if (flags & ~(XATTR_CREATE | XATTR_REPLACE)) return fail(EINVAL, "setxattr flags {:#x}", flags);
    // It may lie in a map, whose fault needs what is held below.
    const std::vector<std::byte> own(value.begin(), value.end());
    value = own;
    if (check) TRY(check_form(name, value));
    TRY(check ? check_xattr_access(inode, who, name, true) : check_can_change_xattrs(inode));
    const XattrMode mode = flags & XATTR_CREATE    ? XattrMode::create
                           : flags & XATTR_REPLACE ? XattrMode::replace
                                                   : XattrMode::either;
    return retry_on_enospc([&]() -> Result<void> {
        ChangeGuard pass(maps_);
        {
            WriteLock guard(inode.rw);
            Handle handle =
                TRY(inode.fs().journal.start(xattr_credits(inode, value.size()) + 2 * Inode::store_credits()));
            // With both flags the attribute is to be there and not to be there; that it is not there is told first.
            if ((flags & XATTR_CREATE) && (flags & XATTR_REPLACE)) {
                TRY(uext4::get_xattr(inode, name));
                return fail(EEXIST, "inode {}: attribute '{}' exists", inode.number(), name);
            }
            TRY(uext4::set_xattr(handle, inode, name, value, mode, may_use_reserved_blocks(inode.fs(), who),
                                 check ? &who : nullptr));
        }
        return finish_call(inode);
    });
}

Result<void> FileSystem::remove_xattr(Inode& inode, std::string_view name, const Credentials& who, bool check) {
    TRY(check_changeable(inode));
    TRY(check ? check_xattr_access(inode, who, name, true) : check_can_change_xattrs(inode));
    return retry_on_enospc([&]() -> Result<void> {
        ChangeGuard pass(maps_);
        {
            WriteLock guard(inode.rw);
            Handle handle = TRY(inode.fs().journal.start(xattr_credits(inode, 0) + 2 * Inode::store_credits()));
            TRY(uext4::remove_xattr(handle, inode, name, may_use_reserved_blocks(inode.fs(), who)));
        }
        return finish_call(inode);
    });
}

Result<std::vector<std::string>> FileSystem::list_xattrs(Inode& inode, const Credentials& who, bool check) {
    ReadLock guard(inode.rw);
    std::vector<std::string> names = TRY(uext4::list_xattrs(inode));
    if (check && !who.capabilities.sys_admin)
        std::erase_if(names, [](const std::string& n) { return n.starts_with("trusted."); });
    return names;
}

}  // namespace uext4
