#include "capi/attributes.h"

using namespace uext4;
using namespace uext4::capi;

namespace {

// Runs `use(inode)` on what the path names; its status, or the lookup's.
template <class Use>
auto with(uext4_fs* fs, const char* path, bool follow, Use use) -> decltype(use(std::declval<Inode&>())) {
    if (!fs || !path) return invalid("a NULL argument");
    Result<InodeRef> inode = fs->fs->resolve(path, identity(fs), follow);
    if (!inode) return report(inode.error());
    return use(**inode);
}

template <class Use>
int with_parent(uext4_fs* fs, const char* path, Use use) {
    if (!fs || !path) return invalid("a NULL argument");
    Result<FileSystem::Parent> parent = fs->fs->resolve_parent(path, identity(fs));
    if (!parent) return report(parent.error());
    return status(use(*parent->directory, parent->name));
}

int stat_of(uext4_fs* fs, const char* path, struct stat* out, bool follow) {
    if (!out) return invalid("the result is NULL");
    return with(fs, path, follow, [&](Inode& inode) {
        inode.fill_stat(*out);
        return 0;
    });
}

int set_attribute(uext4_fs* fs, const char* path, bool follow, const char* name, const void* value, std::size_t size,
                  int flags) {
    if (!name || (!value && size)) return invalid("a NULL argument");
    return with(fs, path, follow, [&](Inode& inode) {
        return status(
            fs->fs->set_xattr(inode, name, {static_cast<const std::byte*>(value), size}, flags, identity(fs), true));
    });
}

int make(uext4_fs* fs, const char* path, mode_t mode, dev_t device, std::string_view target) {
    return with_parent(fs, path, [&](Inode& directory, const std::string& name) -> Result<void> {
        TRY(fs->fs->create(directory, name, mode, device, target, identity(fs), true));
        return {};
    });
}

}  // namespace

extern "C" {

int uext4_stat(uext4_fs* fs, const char* path, struct stat* out) { return stat_of(fs, path, out, true); }
int uext4_lstat(uext4_fs* fs, const char* path, struct stat* out) { return stat_of(fs, path, out, false); }

int uext4_birthtime(uext4_fs* fs, const char* path, timespec* out) {
    if (!out) return invalid("the result is NULL");
    return with(fs, path, false, [&](Inode& inode) {
        const format::Timestamp t = fs->fs->birth_time(inode);
        *out = {t.sec, static_cast<long>(t.nsec)};
        return 0;
    });
}

int uext4_mkdir(uext4_fs* fs, const char* path, mode_t mode) { return make(fs, path, S_IFDIR | (mode & 07777), 0, {}); }

int uext4_mknod(uext4_fs* fs, const char* path, mode_t mode, dev_t device) {
    if ((mode & S_IFMT) == 0) mode |= S_IFREG;
    if (S_ISDIR(mode) || S_ISLNK(mode))
        return report(Error{EPERM, "uext4_mknod: directories and links have calls of their own"});
    return make(fs, path, mode, device, {});
}

int uext4_symlink(uext4_fs* fs, const char* target, const char* path) {
    if (!target) return invalid("a NULL argument");
    return make(fs, path, S_IFLNK | 0777, 0, target);
}

int uext4_rmdir(uext4_fs* fs, const char* path) {
    return with_parent(fs, path,
                       [&](Inode& d, const std::string& name) { return fs->fs->rmdir(d, name, identity(fs), true); });
}
int uext4_unlink(uext4_fs* fs, const char* path) {
    return with_parent(fs, path,
                       [&](Inode& d, const std::string& name) { return fs->fs->unlink(d, name, identity(fs), true); });
}
int uext4_rename(uext4_fs* fs, const char* from, const char* to, unsigned int flags) {
    return with_parent(fs, from, [&](Inode& d, const std::string& name) -> Result<void> {
        if (!to) return fail(EINVAL, "a NULL argument");
        FileSystem::Parent target = TRY(fs->fs->resolve_parent(to, identity(fs)));
        return fs->fs->rename(d, name, *target.directory, target.name, flags, identity(fs), true);
    });
}
int uext4_link(uext4_fs* fs, const char* target, const char* path) {
    return with(fs, target, false, [&](Inode& inode) {
        return with_parent(fs, path, [&](Inode& d, const std::string& name) {
            return fs->fs->link(inode, d, name, identity(fs), true);
        });
    });
}

ssize_t uext4_readlink(uext4_fs* fs, const char* path, char* buffer, size_t size) {
    if (!buffer || size == 0) return invalid("uext4_readlink: no buffer");
    return with(fs, path, false, [&](Inode& inode) -> ssize_t {
        if (!inode.is_symlink()) return invalid("not a symbolic link");
        const Result<std::string> target = fs->fs->read_link(inode);
        if (!target) return report(target.error());
        const std::size_t n = std::min(size, target->size());
        std::memcpy(buffer, target->data(), n);
        return static_cast<ssize_t>(n);
    });
}

int uext4_chmod(uext4_fs* fs, const char* path, mode_t mode) {
    return with(fs, path, true, [&](Inode& inode) { return change_mode(fs, inode, mode); });
}
int uext4_chown(uext4_fs* fs, const char* path, uid_t uid, gid_t gid) {
    return with(fs, path, true, [&](Inode& inode) { return change_owner(fs, inode, uid, gid); });
}
int uext4_lchown(uext4_fs* fs, const char* path, uid_t uid, gid_t gid) {
    return with(fs, path, false, [&](Inode& inode) { return change_owner(fs, inode, uid, gid); });
}
int uext4_utimensat(uext4_fs* fs, const char* path, const timespec times[2], int flags) {
    if (flags & ~AT_SYMLINK_NOFOLLOW) return invalid("uext4_utimensat: unknown flags");
    return with(fs, path, !(flags & AT_SYMLINK_NOFOLLOW), [&](Inode& inode) { return change_times(fs, inode, times); });
}
int uext4_truncate(uext4_fs* fs, const char* path, off_t size) {
    if (size < 0) return invalid("uext4_truncate: a negative size");
    return with(fs, path, true, [&](Inode& inode) {
        return status(fs->fs->truncate(inode, static_cast<std::uint64_t>(size), identity(fs), true));
    });
}
int uext4_access(uext4_fs* fs, const char* path, int mask) {
    return with(fs, path, true, [&](Inode& inode) { return status(fs->fs->access(inode, mask, identity(fs))); });
}

ssize_t uext4_getxattr(uext4_fs* fs, const char* path, const char* name, void* value, size_t size) {
    if (!name) return invalid("a NULL argument");
    return with(fs, path, true, [&](Inode& inode) { return get_attribute(fs, inode, name, value, size); });
}
ssize_t uext4_lgetxattr(uext4_fs* fs, const char* path, const char* name, void* value, size_t size) {
    if (!name) return invalid("a NULL argument");
    return with(fs, path, false, [&](Inode& inode) { return get_attribute(fs, inode, name, value, size); });
}
int uext4_setxattr(uext4_fs* fs, const char* path, const char* name, const void* value, size_t size, int flags) {
    return set_attribute(fs, path, true, name, value, size, flags);
}
int uext4_lsetxattr(uext4_fs* fs, const char* path, const char* name, const void* value, size_t size, int flags) {
    return set_attribute(fs, path, false, name, value, size, flags);
}
ssize_t uext4_listxattr(uext4_fs* fs, const char* path, char* list, size_t size) {
    return with(fs, path, true, [&](Inode& inode) { return list_attributes(fs, inode, list, size); });
}
ssize_t uext4_llistxattr(uext4_fs* fs, const char* path, char* list, size_t size) {
    return with(fs, path, false, [&](Inode& inode) { return list_attributes(fs, inode, list, size); });
}
int uext4_removexattr(uext4_fs* fs, const char* path, const char* name) {
    if (!name) return invalid("a NULL argument");
    return with(fs, path, true,
                [&](Inode& inode) { return status(fs->fs->remove_xattr(inode, name, identity(fs), true)); });
}
int uext4_lremovexattr(uext4_fs* fs, const char* path, const char* name) {
    if (!name) return invalid("a NULL argument");
    return with(fs, path, false,
                [&](Inode& inode) { return status(fs->fs->remove_xattr(inode, name, identity(fs), true)); });
}

int uext4_getflags(uext4_fs* fs, const char* path, unsigned int* flags) {
    if (!flags) return invalid("the result is NULL");
    return with(fs, path, true, [&](Inode& inode) {
        *flags = fs->fs->get_flags(inode);
        return 0;
    });
}
int uext4_setflags(uext4_fs* fs, const char* path, unsigned int flags) {
    return with(fs, path, true,
                [&](Inode& inode) { return status(fs->fs->set_flags(inode, flags, identity(fs), true)); });
}

}  // extern "C"
