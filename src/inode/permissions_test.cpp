// Who may do what, and what changes of attributes entail.
#include "tests/fixtures/inode_volume.h"

#include "inode/acl.h"
#include "inode/attributes.h"

namespace uext4 {
namespace {

using format::Acl;
using format::AclTag;

class Permissions : public ::testing::Test {
protected:
    TestVolume volume{"-b 4096"};
    const Credentials root = Credentials::root(), owner = Credentials::of(1000, 100),
                      member = Credentials::of(1001, 200, {100}), other = Credentials::of(1002, 300);

    InodeRef file(std::uint16_t mode) { return volume.make(static_cast<std::uint16_t>(S_IFREG | mode), 1000, 100); }
    int may(Inode& inode, const Credentials& who, int mask) { return code_of(check_access(inode, who, mask)); }
    int change(Inode& inode, const AttributeChange& c, const Credentials& who) {
        WriteLock lock(inode.rw);
        return code_of(apply_attribute_change(inode, c, who, true));
    }
    int flags(Inode& inode, std::uint32_t wanted, const Credentials& who) {
        WriteLock lock(inode.rw);
        return code_of(set_user_flags(inode, wanted, who, true));
    }
    void privileges_go(Inode& inode, const Credentials& who) {
        WriteLock lock(inode.rw);
        expect_ok(file_remove_privs(inode, who));
    }
    void acl(Inode& inode, AclKind kind, const Acl& entries, const Credentials* who = nullptr) {
        WriteLock lock(inode.rw);
        Handle handle = volume.start();
        expect_ok(set_acl(handle, inode, kind, entries, true, who));
    }
    AttributeChange mode(std::uint16_t bits) {
        AttributeChange c;
        c.mode = bits;
        return c;
    }
    AttributeChange to_owner(std::optional<std::uint32_t> uid, std::optional<std::uint32_t> gid) {
        AttributeChange c;
        c.uid = uid;
        c.gid = gid;
        return c;
    }
};

constexpr int r = access_read, w = access_write, x = access_execute;

TEST_F(Permissions, ModeBits) {
    InodeRef f = file(0640);
    EXPECT_EQ(may(*f, owner, r | w), 0);
    EXPECT_EQ(may(*f, owner, x), EACCES);
    EXPECT_EQ(may(*f, member, r), 0);
    EXPECT_EQ(may(*f, member, w), EACCES);
    EXPECT_EQ(may(*f, other, r), EACCES);
    EXPECT_EQ(may(*f, root, r | w), 0);
    EXPECT_EQ(may(*f, root, x), EACCES) << "nobody may execute it";
    InodeRef mine = file(0077);
    EXPECT_EQ(may(*mine, owner, r), EACCES) << "the owner's class decides";
    InodeRef d = volume.make(S_IFDIR | 0700, 1000, 100);
    EXPECT_EQ(may(*d, root, r | w | x), 0);
    EXPECT_EQ(may(*d, other, x), EACCES);
    Credentials reader = other;
    reader.capabilities.dac_read_search = true;
    EXPECT_EQ(may(*d, reader, r | x), 0);
    EXPECT_EQ(may(*d, reader, w), EACCES);
    EXPECT_EQ(may(*f, reader, r), 0);
    volume.destroy(d);
    d.reset();
    volume.check();
}

TEST_F(Permissions, AccessControlLists) {
    InodeRef f = file(0640);
    acl(*f, AclKind::access,
        {{AclTag::user_obj, 6, 0},
         {AclTag::user, 7, 1002},
         {AclTag::group_obj, 4, 0},
         {AclTag::group, 2, 200},
         {AclTag::mask, 6, 0},
         {AclTag::other, 0, 0}});
    EXPECT_EQ(f->mode() & 0777, 0660) << "the group's bits show the mask";
    EXPECT_EQ(may(*f, other, r | w), 0);
    EXPECT_EQ(may(*f, other, x), EACCES) << "masked";
    EXPECT_EQ(may(*f, member, r), 0);
    EXPECT_EQ(may(*f, member, w), 0);
    EXPECT_EQ(may(*f, member, r | w), EACCES) << "no single entry grants both";
    EXPECT_EQ(may(*f, Credentials::of(5, 5), r), EACCES);
    // chmod changes the mask.
    EXPECT_EQ(change(*f, mode(0600), owner), 0);
    EXPECT_EQ(may(*f, other, r), EACCES);
    const Acl now = *value_of(get_acl(*f, AclKind::access));
    EXPECT_EQ(now[4].permissions, 0);
    EXPECT_EQ(now[1].permissions, 7);
    // What the mode says as well is not stored.
    acl(*f, AclKind::access, {{AclTag::user_obj, 7, 0}, {AclTag::group_obj, 5, 0}, {AclTag::other, 4, 0}});
    EXPECT_FALSE(value_of(get_acl(*f, AclKind::access)));
    EXPECT_EQ(f->mode() & 0777, 0754);
    volume.check();
}

TEST_F(Permissions, AccessControlListsTakeSetGroupId) {
    const Acl entries = {{AclTag::user_obj, 7, 0},
                         {AclTag::user, 7, 5},
                         {AclTag::group_obj, 5, 0},
                         {AclTag::mask, 7, 0},
                         {AclTag::other, 5, 0}};
    InodeRef f = file(02755);
    acl(*f, AclKind::access, entries, &owner);
    EXPECT_TRUE(f->mode() & S_ISGID);
    const Credentials elsewhere = Credentials::of(1000, 7);
    acl(*f, AclKind::access, entries, &elsewhere);
    EXPECT_FALSE(f->mode() & S_ISGID);
}

TEST_F(Permissions, DefaultAccessControlListsAreInherited) {
    InodeRef top = volume.get(InodeNr(2));
    acl(*top, AclKind::default_,
        {{AclTag::user_obj, 7, 0},
         {AclTag::user, 6, 1002},
         {AclTag::group_obj, 5, 0},
         {AclTag::mask, 7, 0},
         {AclTag::other, 5, 0}});
    InodeRef f = file(0640);
    {
        Handle handle = volume.start();
        expect_ok(inherit_acl(handle, *top, *f, Credentials::of(0, 0, {}, 077)));
    }
    EXPECT_EQ(f->mode() & 0777, 0640) << "no umask where a default ACL is";
    const Acl got = *value_of(get_acl(*f, AclKind::access));
    EXPECT_EQ(got, (Acl{{AclTag::user_obj, 6, 0},
                        {AclTag::user, 6, 1002},
                        {AclTag::group_obj, 5, 0},
                        {AclTag::mask, 4, 0},
                        {AclTag::other, 0, 0}}));
    EXPECT_EQ(may(*f, other, r), 0);
    EXPECT_EQ(may(*f, other, w), EACCES);
    volume.check();
    acl(*top, AclKind::default_, {});
    InodeRef plain = file(0666);
    {
        Handle handle = volume.start();
        expect_ok(inherit_acl(handle, *top, *plain, Credentials::of(0, 0, {}, 027)));
    }
    EXPECT_EQ(plain->mode() & 0777, 0640);
    volume.check();
}

TEST_F(Permissions, ChangesOfMode) {
    InodeRef f = file(0644);
    EXPECT_EQ(change(*f, mode(0600), other), EPERM);
    EXPECT_EQ(change(*f, mode(06755), owner), 0);
    EXPECT_EQ(f->mode() & 07777, 06755);
    EXPECT_EQ(change(*f, mode(02755), Credentials::of(1000, 7)), 0);
    EXPECT_EQ(f->mode() & 07777, 0755) << "not of the group";
    EXPECT_EQ(change(*f, mode(02755), root), 0);
    EXPECT_EQ(f->mode() & 07777, 02755);
    EXPECT_TRUE(f->is_regular());
}

TEST_F(Permissions, ChangesOfOwner) {
    InodeRef f = file(06755);
    EXPECT_EQ(change(*f, to_owner(1002, {}), owner), EPERM);
    EXPECT_EQ(change(*f, to_owner({}, 300), owner), EPERM);
    EXPECT_EQ(change(*f, to_owner({}, 200), Credentials::of(1000, 100, {200})), 0);
    EXPECT_EQ(f->gid(), 200u);
    EXPECT_EQ(f->mode() & 07777, 0755);
    expect_ok(volume.set(*f, "security.capability", std::as_bytes(std::span("caps"))));
    EXPECT_EQ(change(*f, mode(06745), root), 0);
    EXPECT_EQ(change(*f, to_owner(5, 6), root), 0);
    EXPECT_EQ(f->mode() & 07777, 02745) << "set-group-id without execution is a lock, and stays";
    EXPECT_EQ(code_of(get_xattr(*f, "security.capability")), ENODATA);
    InodeRef top = volume.get(InodeNr(2));
    EXPECT_EQ(change(*top, mode(07777), root), 0);
    EXPECT_EQ(change(*top, to_owner(1, 1), root), 0);
    EXPECT_EQ(top->mode() & 07777, 07777);
    EXPECT_EQ(change(*top, to_owner(0, 0), root), 0);
    volume.check();
}

TEST_F(Permissions, ChangesOfTimes) {
    InodeRef f = file(0666);
    AttributeChange given, now;
    given.mtime = format::Timestamp{5, 6};
    now.mtime = format::Timestamp{};
    now.mtime_now = true;
    EXPECT_EQ(change(*f, given, other), EPERM);
    EXPECT_EQ(change(*f, now, other), EPERM) << "one time alone is the owner's matter, as in the kernel";
    now.atime = format::Timestamp{};
    now.atime_now = true;
    EXPECT_EQ(change(*f, now, other), 0);
    EXPECT_GT(f->mtime().sec, 1000000);
    EXPECT_EQ(change(*f, given, owner), 0);
    EXPECT_EQ(f->mtime(), (format::Timestamp{5, 6}));
    InodeRef closed = file(0644);
    EXPECT_EQ(change(*closed, now, other), EACCES);
    // What may only grow can be touched: both times together.
    InodeRef log = file(0644);
    EXPECT_EQ(flags(*log, get_user_flags(*log) | format::inode_flag::append, root), 0);
    EXPECT_EQ(change(*log, now, owner), 0);
    EXPECT_EQ(change(*log, given, root), EPERM);
    now.mtime.reset();
    now.mtime_now = false;
    EXPECT_EQ(change(*log, now, root), EPERM) << "one time alone is no touch, as in the kernel";
}

TEST_F(Permissions, WritesTakePrivileges) {
    InodeRef f = file(06755);
    privileges_go(*f, root);
    EXPECT_EQ(f->mode() & 07777, 06755);
    privileges_go(*f, owner);
    EXPECT_EQ(f->mode() & 07777, 0755);
    privileges_go(*f, owner);
    EXPECT_TRUE(f->nosec.load());
    expect_ok(volume.set(*f, "security.capability", std::as_bytes(std::span("caps"))));
    privileges_go(*f, root);
    EXPECT_EQ(code_of(get_xattr(*f, "security.capability")), ENODATA) << "root's writes take it too";
    EXPECT_EQ(change(*f, mode(04755), owner), 0);
    EXPECT_FALSE(f->nosec.load());
    privileges_go(*f, owner);
    EXPECT_EQ(f->mode() & 07777, 0755);
}

TEST_F(Permissions, Flags) {
    namespace flag = format::inode_flag;
    InodeRef f = file(0644);
    const std::uint32_t fixed = get_user_flags(*f);
    EXPECT_EQ(flags(*f, fixed | flag::nodump, other), EPERM);
    EXPECT_EQ(flags(*f, fixed | flag::nodump | flag::noatime, owner), 0);
    EXPECT_TRUE(f->has_flag(flag::nodump) && f->has_flag(flag::noatime) && f->uses_extents());
    EXPECT_EQ(flags(*f, fixed & ~flag::extents, owner), 0);
    EXPECT_TRUE(f->uses_extents()) << "that is for the file layer to change";
    EXPECT_EQ(flags(*f, fixed | 0x80000000u, owner), EOPNOTSUPP);
    EXPECT_EQ(flags(*f, fixed | flag::topdir, owner), EOPNOTSUPP);
    // What the kernel's ext4 answers, flag by flag.
    for (const std::uint32_t refused : {flag::imagic, flag::huge_file, flag::ea_inode, 0x800000u, 0x1000000u,
                                        0x4000000u, 0x8000000u, flag::casefold, flag::dirsync, flag::projinherit})
        EXPECT_EQ(flags(*f, fixed | refused, owner), EOPNOTSUPP) << refused;
    for (const std::uint32_t kept :
         {flag::dirty, flag::comprblk, flag::nocompr, flag::encrypt, flag::index, flag::verity, flag::inline_data}) {
        EXPECT_EQ(flags(*f, fixed | kept, owner), 0) << kept;
        EXPECT_EQ(get_user_flags(*f), fixed) << kept;
    }
    for (const std::uint32_t set :
         {flag::secrm, flag::unrm, flag::compr, flag::sync, flag::notail, flag::eofblocks, flag::dax}) {
        EXPECT_EQ(flags(*f, fixed | set, owner), 0) << set;
        EXPECT_EQ(get_user_flags(*f), fixed | set) << set;
    }
    EXPECT_EQ(flags(*f, fixed | flag::dax | flag::journal_data, root), EOPNOTSUPP);
    EXPECT_EQ(flags(*f, fixed | flag::immutable, owner), EPERM);
    EXPECT_EQ(flags(*f, fixed | flag::immutable, root), 0);
    EXPECT_EQ(may(*f, root, w), EPERM);
    EXPECT_EQ(change(*f, mode(0600), root), EPERM);
    EXPECT_EQ(code_of(check_xattr_access(*f, root, "user.a", true)), EPERM);
    EXPECT_EQ(flags(*f, fixed | flag::immutable | flag::sync, root), EPERM);
    EXPECT_EQ(flags(*f, fixed, root), 0);
    EXPECT_EQ(may(*f, owner, w), 0);
    volume.check();
}

TEST_F(Permissions, AttributeNames) {
    InodeRef f = file(0644), link = volume.make(S_IFIFO | 0666, 1000, 100);
    EXPECT_EQ(code_of(check_xattr_access(*f, owner, "user.a", true)), 0);
    EXPECT_EQ(code_of(check_xattr_access(*f, other, "user.a", true)), EACCES);
    EXPECT_EQ(code_of(check_xattr_access(*f, other, "user.a", false)), 0);
    EXPECT_EQ(code_of(check_xattr_access(*link, owner, "user.a", true)), EPERM);
    EXPECT_EQ(code_of(check_xattr_access(*link, owner, "user.a", false)), ENODATA);
    EXPECT_EQ(code_of(check_xattr_access(*f, owner, "trusted.a", true)), EPERM);
    EXPECT_EQ(code_of(check_xattr_access(*f, owner, "trusted.a", false)), ENODATA);
    EXPECT_EQ(code_of(check_xattr_access(*f, root, "trusted.a", true)), 0);
    EXPECT_EQ(code_of(check_xattr_access(*f, owner, "security.capability", true)), EPERM);
    EXPECT_EQ(code_of(check_xattr_access(*f, other, "system.posix_acl_access", true)), EPERM);
    EXPECT_EQ(code_of(check_xattr_access(*f, owner, "system.posix_acl_access", true)), 0);
    InodeRef top = volume.get(InodeNr(2));
    EXPECT_EQ(change(*top, mode(01777), root), 0);
    EXPECT_EQ(code_of(check_xattr_access(*top, other, "user.a", true)), EPERM) << "sticky and somebody else's";
}

}  // namespace
}  // namespace uext4
