// ioctl: inode flags, generation, label; freezing on the root.
#include "fuse/ioctls.h"
#include "fuse/operations.h"

#include <linux/fs.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <ctime>
#include <optional>
#include <thread>

namespace uext4::fuse {

namespace {

// For what concerns the whole mount.
bool may_administer(fuse_req_t request) {
    const uid_t uid = fuse_req_ctx(request)->uid;
    return uid == 0 || uid == geteuid();
}

// The numbers of these calls speak of longs, but what they carry always had 32 bits.
void reply_integer(fuse_req_t request, std::uint32_t value, std::size_t room) {
    if (room < sizeof value) fuse_reply_err(request, EINVAL);
    else fuse_reply_ioctl(request, 0, &value, sizeof value);
}

// Whatever is stamped after this is later than what it returns.
timespec end_of_tick() {
    timespec last{}, now{};
    ::clock_gettime(CLOCK_REALTIME_COARSE, &last);
    for (int i = 0; i < 100; ++i) {
        ::clock_gettime(CLOCK_REALTIME_COARSE, &now);
        if (now.tv_sec != last.tv_sec || now.tv_nsec != last.tv_nsec) break;
        std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    return last;
}

// What a call carries, if it is as large as it has to be.
template <class T>
std::optional<T> carried(const void* data, std::size_t size) {
    T out{};
    if (size < sizeof out) return std::nullopt;
    std::memcpy(&out, data, sizeof out);
    return out;
}

// The flags become `wanted`, and those of `kept` stay as they are.
void set_flags(fuse_req_t request, Server& server, fuse_ino_t node, std::uint32_t wanted, std::uint32_t kept = 0) {
    server.later(
        [&server, request, node, wanted, kept] {
            const InodeRef inode = UEXT4_FUSE_TRY(request, server.inode(node));
            const std::uint32_t flags = wanted | (server.fs().get_flags(*inode) & kept);
            // What the kernel holds was written before: it comes now, not when the file takes it no more.
            const bool forbids = (flags & (FS_APPEND_FL | FS_IMMUTABLE_FL)) != 0;
            if (forbids && server.has_writers(*inode)) fuse_lowlevel_notify_inval_inode(server.session(), node, 0, 0);
            UEXT4_FUSE_TRY(request, server.fs().set_flags(*inode, flags, credentials_of(request), false));
            if (forbids) server.inodes().forbid_times_after(node, end_of_tick());
            // The kernel does not know that this has changed the time of change.
            fuse_lowlevel_notify_inval_inode(server.session(), node, -1, 0);
            fuse_reply_ioctl(request, 0, nullptr, 0);
        },
        true);
}

struct ExtendedFlag {
    std::uint32_t flag, extended;
};
constexpr ExtendedFlag extended_flags[] = {
    {FS_SYNC_FL, FS_XFLAG_SYNC},     {FS_IMMUTABLE_FL, FS_XFLAG_IMMUTABLE}, {FS_APPEND_FL, FS_XFLAG_APPEND},
    {FS_NODUMP_FL, FS_XFLAG_NODUMP}, {FS_NOATIME_FL, FS_XFLAG_NOATIME},     {FS_PROJINHERIT_FL, FS_XFLAG_PROJINHERIT}};

// The kernel looks here before it passes a change of flags on.
void get_extended_flags(fuse_req_t request, std::uint32_t flags, std::size_t room) {
    struct fsxattr out{};
    for (const ExtendedFlag& pair : extended_flags)
        if (flags & pair.flag) out.fsx_xflags |= pair.extended;
    if (room < sizeof out) fuse_reply_err(request, EINVAL);
    else fuse_reply_ioctl(request, 0, &out, sizeof out);
}

// Of a file system that may be written no file has a project. Flags that have no name here stay; hints that this file
// system has no use for are not kept, as by the kernel's ext4.
void set_extended_flags(fuse_req_t request, Server& server, fuse_ino_t node, const struct fsxattr& in) {
    if (in.fsx_projid != 0) {
        fuse_reply_err(request, EOPNOTSUPP);
        return;
    }
    std::uint32_t flags = 0, named = 0;
    for (const ExtendedFlag& pair : extended_flags) {
        named |= pair.flag;
        if (in.fsx_xflags & pair.extended) flags |= pair.flag;
    }
    set_flags(request, server, node, flags, ~named);
}

void set_label(fuse_req_t request, Server& server, const void* data, std::size_t size) {
    const std::string label(static_cast<const char*>(data), strnlen(static_cast<const char*>(data), size));
    server.change([&server, request, label] {
        UEXT4_FUSE_TRY(request, server.fs().set_label(label));
        fuse_reply_ioctl(request, 0, nullptr, 0);
    });
}

void get_label(fuse_req_t request, Server& server, std::size_t room) {
    const std::string label = UEXT4_FUSE_TRY(request, server.fs().label());
    char out[FSLABEL_MAX] = {};
    std::memcpy(out, label.data(), std::min(label.size(), sizeof out - 1));
    fuse_reply_ioctl(request, 0, out, std::min(room, sizeof out));
}

// fstrim(8). Of the whole file system only: it is what everybody asks for.
void trim(fuse_req_t request, Server& server, const void* data, std::size_t size) {
    const auto asked = carried<struct fstrim_range>(data, size);
    if (!asked) {
        fuse_reply_err(request, EINVAL);
        return;
    }
    struct fstrim_range range = *asked;
    const struct statvfs all = UEXT4_FUSE_TRY(request, server.fs().statistics());
    if (range.start != 0 || range.len < all.f_blocks * all.f_frsize) {
        fuse_reply_err(request, EOPNOTSUPP);
        return;
    }
    server.later(
        [&server, request, range]() mutable {
            range.len = UEXT4_FUSE_TRY(request, server.fs().trim(range.minlen));
            fuse_reply_ioctl(request, 0, &range, sizeof range);
        },
        true);
}

// One for each descriptor.
void set_mark(fuse_req_t request, Server& server, OpenHandle& handle, std::size_t room) {
    if (handle.mark == 0) handle.mark = server.marks().make();
    reply_integer(request, handle.mark, room);
}

void wait_for_mark(fuse_req_t request, Server& server, std::uint32_t mark) {
    if (server.is_frozen()) {
        fuse_reply_err(request, EBUSY);
        return;
    }
    server.marks().when_gone(mark, [request](bool is_gone) {
        if (is_gone) fuse_reply_ioctl(request, 0, nullptr, 0);
        else fuse_reply_err(request, EBUSY);
    });
}

void control(fuse_req_t request, fuse_ino_t node, unsigned command, void*, fuse_file_info* info, unsigned flags,
             const void* in, std::size_t in_size, std::size_t out_size) {
    Server& server = server_of(request);
    if (flags & FUSE_IOCTL_COMPAT) {
        fuse_reply_err(request, ENOTTY);
        return;
    }
    const bool concerns_all = command == UEXT4_IOC_FREEZE || command == UEXT4_IOC_THAW || command == UEXT4_IOC_MARK ||
                              command == UEXT4_IOC_ARRIVED || command == FS_IOC_SETFSLABEL || command == FITRIM;
    if (concerns_all && !may_administer(request)) {
        fuse_reply_err(request, EPERM);
        return;
    }
    if (node == FUSE_ROOT_ID) {
        switch (command) {
            case UEXT4_IOC_FREEZE: return server.freeze(request);
            case UEXT4_IOC_THAW: return server.thaw(request);
            case UEXT4_IOC_FROZEN: return reply_integer(request, server.is_frozen() ? 1 : 0, out_size);
            case UEXT4_IOC_SERVER: return reply_integer(request, static_cast<std::uint32_t>(getpid()), out_size);
            case UEXT4_IOC_MARK: return set_mark(request, server, Server::handle(*info), out_size);
            case UEXT4_IOC_ARRIVED: {
                const auto mark = carried<std::uint32_t>(in, in_size);
                if (mark) return wait_for_mark(request, server, *mark);
                break;
            }
            default: break;
        }
    }
    switch (command) {
        case FS_IOC_GETFLAGS:
        case FS_IOC_GETVERSION: {
            const InodeRef inode = UEXT4_FUSE_TRY(request, server.inode(node));
            return reply_integer(
                request, command == FS_IOC_GETFLAGS ? server.fs().get_flags(*inode) : inode->generation(), out_size);
        }
        case FS_IOC_FSGETXATTR: {
            const InodeRef inode = UEXT4_FUSE_TRY(request, server.inode(node));
            return get_extended_flags(request, server.fs().get_flags(*inode), out_size);
        }
        case FITRIM: return trim(request, server, in, in_size);
        case FS_IOC_SETFLAGS: {
            const auto wanted = carried<std::uint32_t>(in, in_size);
            if (wanted) return set_flags(request, server, node, *wanted);
            break;
        }
        case FS_IOC_FSSETXATTR: {
            const auto wanted = carried<struct fsxattr>(in, in_size);
            if (wanted) return set_extended_flags(request, server, node, *wanted);
            break;
        }
        case FS_IOC_GETFSLABEL: return get_label(request, server, out_size);
        case FS_IOC_SETFSLABEL: return set_label(request, server, in, in_size);
        default: fuse_reply_err(request, ENOTTY); return;
    }
    fuse_reply_err(request, EINVAL);  // too small for what it should carry
}

}  // namespace

void add_ioctl_operations(fuse_lowlevel_ops& table) { table.ioctl = control; }

}  // namespace uext4::fuse
