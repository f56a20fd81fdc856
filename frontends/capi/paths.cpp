#include "capi/attributes.h"
#include "capi/call.h"
#include "capi/text.h"
#include "namespace/dir_layouts.h"

using namespace uext4;
using namespace uext4::capi;

namespace {

// Runs `use(inode)` on what the path names; its status, or the lookup's.
template <class Use>
auto with(uext4_fs* fs, const CallerString& path, bool follow, Use use) -> decltype(use(std::declval<Inode&>())) {
    if (!fs || !path) return invalid("a NULL argument");
    Result<InodeRef> inode = fs->fs->resolve(*path, identity(fs), follow);
    if (!inode) return report(inode.error());
    return use(**inode);
}

template <class Use>
int with_parent(uext4_fs* fs, const CallerString& path, Use use) {
    if (!fs || !path) return invalid("a NULL argument");
    Result<FileSystem::Parent> parent = fs->fs->resolve_parent(*path, identity(fs));
    if (!parent) return report(parent.error());
    return status(use(*parent));
}

int stat_of(uext4_fs* fs, const CallerString& path, struct stat* out, bool follow) {
    if (!out) return invalid("the result is NULL");
    return with(fs, path, follow, [&](Inode& inode) {
        struct stat filled{};  // with a lock held; the program's memory may be a map of this file
        inode.fill_stat(filled);
        *out = filled;
        return 0;
    });
}

int set_attribute(uext4_fs* fs, const CallerString& path, bool follow, const CallerString& name, const void* value,
                  std::size_t size, int flags) {
    if (!value && size) return invalid("a NULL argument");
    if (const int bad = check_attribute_call(*name, size, flags)) return bad;
    return with(fs, path, follow, [&](Inode& inode) {
        return status(
            fs->fs->set_xattr(inode, *name, {static_cast<const std::byte*>(value), size}, flags, identity(fs), true));
    });
}

bool is_root(const CallerString& path) {
    const std::string_view text(path ? *path : "");
    return !text.empty() && text.find_first_not_of('/') == text.npos;
}

// A name to be made for something that is no directory: it may not go on with a slash.
Result<void> check_new_name(uext4_fs* fs, const FileSystem::Parent& parent) {
    if (!parent.slash) return {};
    TRY(fs->fs->lookup(*parent.directory, parent.name, identity(fs), true));  // ENOENT
    return fail(EEXIST, "'{}' exists", parent.name);
}

// A name that goes on with a slash is never unlinked: a directory is not, and nothing else is called so. Where nothing
// can be taken away, it is not looked for.
Result<void> check_slash(uext4_fs* fs, const FileSystem::Parent& parent) {
    if (fs->fs->read_only()) return {};
    if (!parent.slash || is_dot_or_dotdot(parent.name)) return {};
    const InodeRef inode = TRY(fs->fs->lookup(*parent.directory, parent.name, identity(fs), true));
    if (inode->is_directory()) return fail(EISDIR, "'{}' is a directory", parent.name);
    return fail(ENOTDIR, "'{}' is no directory", parent.name);
}

int make(uext4_fs* fs, const CallerString& path, mode_t mode, dev_t device, std::string_view target) {
    if (fs && is_root(path)) return report(Error{EEXIST, "'/' exists"});
    return with_parent(fs, path, [&](const FileSystem::Parent& parent) -> Result<void> {
        if (!S_ISDIR(mode)) TRY(check_new_name(fs, parent));
        TRY(fs->fs->create(*parent.directory, parent.name, mode, device, target, identity(fs), true));
        return {};
    });
}

// In the kernel's order: both directories, and the names that have none; the rest is told of one moment, by the rename.
Result<void> rename(uext4_fs* fs, const CallerString& from, const CallerString& to, unsigned int flags) {
    std::optional<FileSystem::Parent> source, target;  // none: the root
    if (!is_root(from)) source = TRY(fs->fs->resolve_parent(*from, identity(fs)));
    if (!is_root(to)) target = TRY(fs->fs->resolve_parent(*to, identity(fs)));
    if (!source || (!target && is_dot_or_dotdot(source->name))) return fail(EBUSY, "'{}' cannot be renamed", *from);
    if (!target) return fail(flags & RENAME_NOREPLACE ? EEXIST : EBUSY, "'/' cannot be replaced");
    return fs->fs->rename(*source->directory, source->name, *target->directory, target->name, flags, identity(fs), true,
                          {.from = source->slash, .to = target->slash});
}

}  // namespace

extern "C" {

int uext4_stat(uext4_fs* fs, const char* path, struct stat* out) try {
    const Call call;
    return stat_of(fs, path, out, true);
}
UEXT4_NOTHING_THROWN
int uext4_lstat(uext4_fs* fs, const char* path, struct stat* out) try {
    const Call call;
    return stat_of(fs, path, out, false);
}
UEXT4_NOTHING_THROWN

int uext4_birthtime(uext4_fs* fs, const char* path, timespec* out) try {
    const Call call;
    if (!out) return invalid("the result is NULL");
    return with(fs, path, false, [&](Inode& inode) {
        const std::optional<format::Timestamp> born = fs->fs->birth_time(inode);
        if (!born)
            return report({EOPNOTSUPP, fmt::format("inode {} has no room for when it was made", inode.number())});
        *out = {born->sec, static_cast<long>(born->nsec)};
        return 0;
    });
}
UEXT4_NOTHING_THROWN

int uext4_mkdir(uext4_fs* fs, const char* path, mode_t mode) try {
    const Call call;
    return make(fs, path, S_IFDIR | (mode & 01777), 0, {});
}
UEXT4_NOTHING_THROWN

int uext4_mknod(uext4_fs* fs, const char* path, mode_t mode, dev_t device) try {
    const Call call;
    if ((mode & S_IFMT) == 0) mode |= S_IFREG;
    if (S_ISDIR(mode)) return report(Error{EPERM, "uext4_mknod: a directory is made by uext4_mkdir"});
    if (S_ISLNK(mode)) return invalid("uext4_mknod: a symbolic link is made by uext4_symlink");
    return make(fs, path, mode, device, {});
}
UEXT4_NOTHING_THROWN

int uext4_symlink(uext4_fs* fs, const char* target, const char* path) try {
    const Call call;
    const CallerString to(target);
    if (!to) return invalid("a NULL argument");
    if (!**to) return report(Error{ENOENT, "a symbolic link needs a target"});
    if (::strnlen(*to, PATH_MAX) == PATH_MAX)
        return report(Error{ENAMETOOLONG, fmt::format("a symbolic link's target of {} bytes and more", PATH_MAX)});
    return make(fs, path, S_IFLNK | 0777, 0, *to);
}
UEXT4_NOTHING_THROWN

int uext4_rmdir(uext4_fs* fs, const char* path) try {
    const Call call;
    return with_parent(fs, path, [&](const FileSystem::Parent& parent) {
        return fs->fs->rmdir(*parent.directory, parent.name, identity(fs), true);
    });
}
UEXT4_NOTHING_THROWN
int uext4_unlink(uext4_fs* fs, const char* path) try {
    const Call call;
    const CallerString name(path);
    if (fs && is_root(name)) return report(Error{EISDIR, "'/' is a directory"});
    return with_parent(fs, name, [&](const FileSystem::Parent& parent) -> Result<void> {
        TRY(check_slash(fs, parent));
        return fs->fs->unlink(*parent.directory, parent.name, identity(fs), true);
    });
}
UEXT4_NOTHING_THROWN

int uext4_rename(uext4_fs* fs, const char* from, const char* to, unsigned int flags) try {
    const Call call;
    const CallerString source(from), target(to);
    if (!fs || !source || !target) return invalid("a NULL argument");
    if ((flags & ~static_cast<unsigned>(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) ||
        ((flags & RENAME_EXCHANGE) && (flags & (RENAME_NOREPLACE | RENAME_WHITEOUT))))
        return invalid("uext4_rename: flags that are unknown or exclude each other");
    return status(rename(fs, source, target, flags));
}
UEXT4_NOTHING_THROWN

int uext4_link(uext4_fs* fs, const char* target, const char* path) try {
    const Call call;
    const CallerString name(path);
    return with(fs, target, false, [&](Inode& inode) {
        if (is_root(name)) return report(Error{EEXIST, "'/' exists"});
        return with_parent(fs, name, [&](const FileSystem::Parent& parent) -> Result<void> {
            TRY(check_new_name(fs, parent));
            return fs->fs->link(inode, *parent.directory, parent.name, identity(fs), true);
        });
    });
}
UEXT4_NOTHING_THROWN

int uext4_flink(uext4_file* file, const char* path) try {
    const Call call;
    const CallerString name(path);
    if (!file || !name) return invalid("uext4_flink: NULL");
    if (is_root(name)) return report(Error{EEXIST, "'/' exists"});
    return with_parent(file->fs, name, [&](const FileSystem::Parent& parent) -> Result<void> {
        TRY(check_new_name(file->fs, parent));
        return file->fs->fs->link(file->file->inode(), *parent.directory, parent.name, identity(file->fs), true);
    });
}
UEXT4_NOTHING_THROWN

ssize_t uext4_readlink(uext4_fs* fs, const char* path, char* buffer, size_t size) try {
    const Call call;
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
UEXT4_NOTHING_THROWN

int uext4_chmod(uext4_fs* fs, const char* path, mode_t mode) try {
    const Call call;
    return with(fs, path, true, [&](Inode& inode) { return change_mode(fs, inode, mode); });
}
UEXT4_NOTHING_THROWN
int uext4_chown(uext4_fs* fs, const char* path, uid_t uid, gid_t gid) try {
    const Call call;
    return with(fs, path, true, [&](Inode& inode) { return change_owner(fs, inode, uid, gid); });
}
UEXT4_NOTHING_THROWN
int uext4_lchown(uext4_fs* fs, const char* path, uid_t uid, gid_t gid) try {
    const Call call;
    return with(fs, path, false, [&](Inode& inode) { return change_owner(fs, inode, uid, gid); });
}
UEXT4_NOTHING_THROWN
int uext4_utimensat(uext4_fs* fs, const char* path, const timespec times[2], int flags) try {
    const Call call;
    if (flags & ~AT_SYMLINK_NOFOLLOW) return invalid("uext4_utimensat: unknown flags");
    if (times && times[0].tv_nsec == UTIME_OMIT && times[1].tv_nsec == UTIME_OMIT) return 0;  // asks for nothing
    return with(fs, path, !(flags & AT_SYMLINK_NOFOLLOW), [&](Inode& inode) { return change_times(fs, inode, times); });
}
UEXT4_NOTHING_THROWN
int uext4_truncate(uext4_fs* fs, const char* path, off_t size) try {
    const Call call;
    if (size < 0) return invalid("uext4_truncate: a negative size");
    return with(fs, path, true, [&](Inode& inode) {
        return status(fs->fs->truncate(inode, static_cast<std::uint64_t>(size), identity(fs), true));
    });
}
UEXT4_NOTHING_THROWN
int uext4_access(uext4_fs* fs, const char* path, int mask) try {
    const Call call;
    if ((mask & ~(R_OK | W_OK | X_OK)) != 0) return invalid("uext4_access: unknown bits in the mode");
    return with(fs, path, true, [&](Inode& inode) { return status(fs->fs->access(inode, mask, identity(fs))); });
}
UEXT4_NOTHING_THROWN

ssize_t uext4_getxattr(uext4_fs* fs, const char* path, const char* name, void* value, size_t size) try {
    const Call call;
    const CallerString own(name);
    if (const int bad = check_attribute_call(*own, 0, 0)) return bad;
    return with(fs, path, true, [&](Inode& inode) { return get_attribute(fs, inode, *own, value, size); });
}
UEXT4_NOTHING_THROWN
ssize_t uext4_lgetxattr(uext4_fs* fs, const char* path, const char* name, void* value, size_t size) try {
    const Call call;
    const CallerString own(name);
    if (const int bad = check_attribute_call(*own, 0, 0)) return bad;
    return with(fs, path, false, [&](Inode& inode) { return get_attribute(fs, inode, *own, value, size); });
}
UEXT4_NOTHING_THROWN
int uext4_setxattr(uext4_fs* fs, const char* path, const char* name, const void* value, size_t size, int flags) try {
    const Call call;
    return set_attribute(fs, path, true, name, value, size, flags);
}
UEXT4_NOTHING_THROWN
int uext4_lsetxattr(uext4_fs* fs, const char* path, const char* name, const void* value, size_t size, int flags) try {
    const Call call;
    return set_attribute(fs, path, false, name, value, size, flags);
}
UEXT4_NOTHING_THROWN
ssize_t uext4_listxattr(uext4_fs* fs, const char* path, char* list, size_t size) try {
    const Call call;
    return with(fs, path, true, [&](Inode& inode) { return list_attributes(fs, inode, list, size); });
}
UEXT4_NOTHING_THROWN
ssize_t uext4_llistxattr(uext4_fs* fs, const char* path, char* list, size_t size) try {
    const Call call;
    return with(fs, path, false, [&](Inode& inode) { return list_attributes(fs, inode, list, size); });
}
UEXT4_NOTHING_THROWN
int uext4_removexattr(uext4_fs* fs, const char* path, const char* name) try {
    const Call call;
    const CallerString own(name);
    if (const int bad = check_attribute_call(*own, 0, 0)) return bad;
    return with(fs, path, true,
                [&](Inode& inode) { return status(fs->fs->remove_xattr(inode, *own, identity(fs), true)); });
}
UEXT4_NOTHING_THROWN
int uext4_lremovexattr(uext4_fs* fs, const char* path, const char* name) try {
    const Call call;
    const CallerString own(name);
    if (const int bad = check_attribute_call(*own, 0, 0)) return bad;
    return with(fs, path, false,
                [&](Inode& inode) { return status(fs->fs->remove_xattr(inode, *own, identity(fs), true)); });
}
UEXT4_NOTHING_THROWN

int uext4_getflags(uext4_fs* fs, const char* path, unsigned int* flags) try {
    const Call call;
    if (!flags) return invalid("the result is NULL");
    return with(fs, path, true, [&](Inode& inode) {
        *flags = fs->fs->get_flags(inode);
        return 0;
    });
}
UEXT4_NOTHING_THROWN
int uext4_setflags(uext4_fs* fs, const char* path, unsigned int flags) try {
    const Call call;
    return with(fs, path, true,
                [&](Inode& inode) { return status(fs->fs->set_flags(inode, flags, identity(fs), true)); });
}
UEXT4_NOTHING_THROWN

}  // extern "C"
