// What the path forms and the file forms of attribute calls share.
#pragma once

#include "capi/handles.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/limits.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cstring>

namespace uext4::capi {

inline int change_mode(uext4_fs* fs, Inode& inode, mode_t mode) {
    AttributeChange change;
    change.mode = static_cast<std::uint16_t>(mode & 07777);
    return status(fs->fs->set_attributes(inode, change, identity(fs), true));
}

inline int change_owner(uext4_fs* fs, Inode& inode, uid_t uid, gid_t gid) {
    AttributeChange change;
    change.is_chown = true;
    if (uid != static_cast<uid_t>(-1)) change.uid = uid;
    if (gid != static_cast<gid_t>(-1)) change.gid = gid;
    return status(fs->fs->set_attributes(inode, change, identity(fs), true));
}

// What the system calls look at before the path.
inline int check_attribute_call(const char* name, std::size_t size, int flags) {
    if (!name) return invalid("a NULL argument");
    if (flags & ~(XATTR_CREATE | XATTR_REPLACE)) return invalid("unknown flags");
    const std::size_t length = ::strnlen(name, XATTR_NAME_MAX + 1);
    if (length == 0 || length > XATTR_NAME_MAX)
        return report(Error{ERANGE, fmt::format("an attribute's name of {} bytes", length)});
    if (size > XATTR_SIZE_MAX) return report(Error{E2BIG, fmt::format("an attribute of {} bytes", size)});
    return 0;
}

inline bool valid_time(const timespec& t) {
    return t.tv_nsec == UTIME_OMIT || t.tv_nsec == UTIME_NOW || (t.tv_nsec >= 0 && t.tv_nsec <= 999999999);
}

inline int change_times(uext4_fs* fs, Inode& inode, const timespec times[2]) {
    AttributeChange change;
    const timespec now[2] = {{0, UTIME_NOW}, {0, UTIME_NOW}};
    if (!times) times = now;
    auto set = [](const timespec& t, std::optional<format::Timestamp>& to, bool& is_now) {
        if (t.tv_nsec == UTIME_OMIT) return;
        is_now = t.tv_nsec == UTIME_NOW;
        to = is_now ? format::Timestamp{} : format::Timestamp{t.tv_sec, static_cast<std::uint32_t>(t.tv_nsec)};
    };
    if (!valid_time(times[0]) || !valid_time(times[1])) return invalid("a time's nanoseconds are out of range");
    set(times[0], change.atime, change.atime_now);
    set(times[1], change.mtime, change.mtime_now);
    if (!change.atime && !change.mtime) return 0;
    return status(fs->fs->set_attributes(inode, change, identity(fs), true));
}

// Size 0 asks for the size.
inline ssize_t copy_out(ConstBytes value, void* out, std::size_t size) {
    if (size == 0) return static_cast<ssize_t>(value.size());
    if (size < value.size()) return report(Error{ERANGE, fmt::format("{} bytes do not fit in {}", value.size(), size)});
    if (!out) return invalid("the buffer is NULL");
    std::memcpy(out, value.data(), value.size());
    return static_cast<ssize_t>(value.size());
}

inline ssize_t get_attribute(uext4_fs* fs, Inode& inode, const char* name, void* value, std::size_t size) {
    const Result<std::vector<std::byte>> found = fs->fs->get_xattr(inode, name, identity(fs), true);
    return found ? copy_out(*found, value, size) : report(found.error());
}

inline ssize_t list_attributes(uext4_fs* fs, Inode& inode, char* list, std::size_t size) {
    const Result<std::vector<std::string>> names = fs->fs->list_xattrs(inode, identity(fs), true);
    if (!names) return report(names.error());
    std::string all;
    for (const std::string& name : *names) all.append(name).push_back('\0');
    return copy_out(bytes_of_string(all.data(), all.size()), list, size);
}

}  // namespace uext4::capi
