#include "inode/acl.h"

#include "inode/attributes.h"
#include "inode/xattr.h"

namespace uext4 {

namespace {

const char* attribute_of(AclKind kind) {
    return kind == AclKind::access ? "system.posix_acl_access" : "system.posix_acl_default";
}

}  // namespace

Result<std::optional<format::Acl>> get_acl(Inode& inode, AclKind kind) {
    if (inode.is_symlink() || !inode.fs().options.acl) return std::nullopt;
    const std::optional<std::vector<std::byte>> value = TRY(find_xattr_raw(inode, attribute_of(kind)));
    if (!value) return std::nullopt;
    Result<format::Acl> acl = format::decode_disk_acl(*value);
    if (!acl) return fail(acl.error().code, "inode {}: {}", inode.number(), acl.error().what);
    return std::move(*acl);
}

Result<void> set_acl(Handle& handle, Inode& inode, AclKind kind, format::Acl acl, bool may_use_reserve,
                     const Credentials* who) {
    if (inode.is_symlink()) return fail(EOPNOTSUPP, "inode {}: a symbolic link has no ACL", inode.number());
    if (kind == AclKind::default_ && !inode.is_directory() && !acl.empty())
        return fail(EACCES, "inode {}: only a directory has a default ACL", inode.number());
    std::uint16_t mode = inode.mode();
    if (kind == AclKind::access && !acl.empty()) {
        const format::AclMode said = format::mode_of_acl(acl);
        mode = static_cast<std::uint16_t>((mode & ~0777) | said.bits);
        if (who && !who->in_group(inode.gid()) && !who->capabilities.fsetid)
            mode &= static_cast<std::uint16_t>(~S_ISGID);
        if (said.exact) acl.clear();
    }
    // The attribute first: it may find no room, the mode always does.
    if (acl.empty()) {
        Result<void> removed = remove_xattr_raw(handle, inode, attribute_of(kind), may_use_reserve);
        if (!removed && removed.error().code != ENODATA) return removed;
    } else {
        TRY(set_xattr_raw(handle, inode, attribute_of(kind), format::encode_disk_acl(acl), XattrMode::either,
                          may_use_reserve));
    }
    MutexLock guard(inode.map_lock);
    if (mode == inode.mode()) return {};
    inode.set_mode(mode);
    inode.set_ctime(current_time(inode.fs()));
    inode.bump_version();
    return inode.store(handle);
}

Result<void> inherit_acl(Handle& handle, Inode& directory, Inode& fresh, const Credentials& who) {
    if (fresh.is_symlink()) return {};
    std::optional<format::Acl> acl = TRY(get_acl(directory, AclKind::default_));
    if (!acl) {
        MutexLock guard(fresh.map_lock);
        fresh.set_mode(static_cast<std::uint16_t>(fresh.mode() & ~(who.umask & 0777)));
        return fresh.store(handle);
    }
    const bool may_use_reserve = may_use_reserved_blocks(fresh.fs(), who);
    if (fresh.is_directory())
        TRY(set_xattr_raw(handle, fresh, attribute_of(AclKind::default_), format::encode_disk_acl(*acl),
                          XattrMode::either, may_use_reserve));
    std::uint16_t mode = fresh.mode();
    format::mask_created_acl(*acl, mode);
    {
        MutexLock guard(fresh.map_lock);
        fresh.set_mode(mode);
        TRY(fresh.store(handle));
    }
    if (format::mode_of_acl(*acl).exact) return {};
    return set_xattr_raw(handle, fresh, attribute_of(AclKind::access), format::encode_disk_acl(*acl), XattrMode::either,
                         may_use_reserve);
}

unsigned acl_inherit_credits(Inode& directory) {
    const Result<std::optional<format::Acl>> acl = get_acl(directory, AclKind::default_);
    return acl && *acl ? 2 * xattr_credits(directory, format::encode_disk_acl(**acl).size()) + 2 : 1;
}

unsigned chmod_acl_credits(Inode& inode) {
    const Result<std::optional<format::Acl>> acl = get_acl(inode, AclKind::access);
    return acl && *acl ? xattr_credits(inode, format::encode_disk_acl(**acl).size()) : 0;
}

Result<void> update_acl_for_chmod(Handle& handle, Inode& inode) {
    std::optional<format::Acl> acl = TRY(get_acl(inode, AclKind::access));
    if (!acl) return {};
    format::apply_mode_to_acl(*acl, inode.mode());
    return set_xattr_raw(handle, inode, attribute_of(AclKind::access), format::encode_disk_acl(*acl), XattrMode::either,
                         true);
}

}  // namespace uext4
