#include "inode/access.h"

#include "inode/acl.h"

namespace uext4 {

bool is_owner_or_capable(const Inode& inode, const Credentials& who) {
    return who.uid == inode.uid() || who.capabilities.fowner;
}

bool may_use_reserved_blocks(const FsContext& fs, const Credentials& who) {
    return who.capabilities.sys_resource || who.uid == fs.options.reserved_uid ||
           (fs.options.reserved_gid != 0 && who.in_group(static_cast<gid_t>(fs.options.reserved_gid)));
}

namespace {

bool grants(unsigned permissions, int mask) { return (static_cast<unsigned>(mask) & ~permissions) == 0; }

// The rule of POSIX 1003.1e: the first class that fits decides, groups by union.
bool acl_grants(const format::Acl& acl, const Inode& inode, const Credentials& who, int mask) {
    using format::AclTag;
    unsigned limit = 7, other = 0;
    for (const auto& e : acl) {
        if (e.tag == AclTag::mask) limit = e.permissions;
        if (e.tag == AclTag::other) other = e.permissions;
    }
    for (const auto& e : acl) {
        if (e.tag == AclTag::user_obj && who.uid == inode.uid()) return grants(e.permissions, mask);
        if (e.tag == AclTag::user && who.uid == e.id) return grants(e.permissions & limit, mask);
    }
    bool in_any = false;
    for (const auto& e : acl) {
        const bool mine =
            (e.tag == AclTag::group_obj && who.in_group(inode.gid())) || (e.tag == AclTag::group && who.in_group(e.id));
        if (!mine) continue;
        in_any = true;
        if (grants(e.permissions & limit, mask)) return true;
    }
    return !in_any && grants(other, mask);
}

}  // namespace

Result<void> check_access(Inode& inode, const Credentials& who, int mask) {
    const std::uint16_t mode = inode.mode();
    if (mask & access_write) {
        if (inode.fs().read_only.load() && (S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode)))
            return fail(EROFS, "the file system is read-only");
        if (inode.has_flag(format::inode_flag::immutable)) return fail(EPERM, "inode {} is immutable", inode.number());
    }
    bool granted = false;
    bool by_acl = false;
    if (inode.fs().options.acl && who.uid != inode.uid() && (mode & 070)) {
        if (std::optional<format::Acl> acl = TRY(get_acl(inode, AclKind::access))) {
            granted = acl_grants(*acl, inode, who, mask);
            by_acl = true;
        }
    }
    if (!by_acl) {
        const unsigned shift = who.uid == inode.uid() ? 6 : who.in_group(inode.gid()) ? 3 : 0;
        granted = grants((mode >> shift) & 7u, mask);
    }
    if (granted) return {};
    const Capabilities& c = who.capabilities;
    if (S_ISDIR(mode)) {
        if (c.dac_override) return {};
        if (c.dac_read_search && !(mask & access_write)) return {};
    } else {
        if (c.dac_read_search && mask == access_read) return {};
        if (c.dac_override && (!(mask & access_execute) || (mode & 0111))) return {};
    }
    return fail(EACCES, "inode {}: permission denied", inode.number());
}

}  // namespace uext4
