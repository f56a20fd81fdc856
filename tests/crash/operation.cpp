#include "tests/crash/operation.h"

#include "format/acl.h"
#include "format/journal.h"
#include "tests/root.h"

#include <fcntl.h>
#include <sys/xattr.h>

#include <cstdlib>
#include <cstring>
#include <memory>

namespace uext4::crash {

namespace {

using Kind = Operation::Kind;
namespace flag = format::inode_flag;

Result<void> write_through(FileSystem& fs, const Operation& o, int flags, unsigned serial) {
    auto file = TRY(fs.open_path(o.path, flags, 0644, root));
    const auto data = bytes_of_write(serial, o.offset, o.length);
    auto whole = [&](std::size_t written) -> Result<void> {
        if (written == data.size()) return {};
        const struct statvfs free = TRY(fs.statistics());
        constexpr std::uint64_t for_the_map = 16384;  // what has to stay for the mapping of what waits in the cache
        const bool is_full = free.f_bavail * free.f_frsize < data.size() - written + for_the_map;
        return fail(is_full ? ENOSPC : EIO, "{}: {} of {} bytes written", o.path, written, data.size());
    };
    if (!(flags & O_DIRECT)) return whole(TRY(file->write(o.offset, data)));
    std::unique_ptr<std::byte, void (*)(void*)> aligned(
        static_cast<std::byte*>(std::aligned_alloc(4096, round_up(data.size(), std::uint64_t{4096}))),
        [](void* p) { std::free(p); });
    std::copy(data.begin(), data.end(), aligned.get());
    return whole(TRY(file->write(o.offset, ConstBytes(aligned.get(), data.size()))));
}

Result<void> sync_path(FileSystem& fs, const Operation& o) {
    if (o.kind == Kind::Sync) return fs.sync();
    auto inode = TRY(fs.resolve(o.path, root, false));
    auto file = TRY(fs.open(inode, O_RDONLY, root, false));
    return file->sync(o.kind == Kind::Fdatasync);
}

Result<void> fill(FileSystem& fs, const Operation& o) {
    const struct statvfs free = TRY(fs.statistics());
    const std::uint64_t bytes = free.f_bavail * free.f_frsize;
    if (bytes <= o.length) return fail(ENOSPC, "{} bytes are free", bytes);
    auto file = TRY(fs.open_path(o.path, O_CREAT | O_RDWR, 0644, root));
    const Result<void> reserved = file->fallocate(FALLOC_FL_KEEP_SIZE, 0, bytes - o.length);
    if (reserved || reserved.error().code != EOPNOTSUPP) return reserved;
    file.reset();
    // Without extents, room for the indirect blocks stays.
    return write_through(fs, {Kind::Write, o.path, {}, 0, (bytes - o.length) / 128 * 127}, O_RDWR, 0);
}

// What lies between is another file's until it is done. From its end, so that nodes of the tree are split in the
// middle.
Result<void> scatter(FileSystem& fs, const Operation& o, unsigned serial) {
    const std::uint64_t block = fs.volume().geometry().block_size, pieces = o.length / block;
    const std::string between = o.path + ".between";
    auto write = [&](const std::string& path, std::uint64_t at, std::uint64_t length) {
        return write_through(fs, {Kind::Direct, path, {}, at, length}, O_RDWR | O_CREAT | O_DIRECT, serial);
    };
    for (std::uint64_t n = pieces; n-- > 0;) {
        TRY(write(between, (pieces - 1 - n) * o.offset, o.offset));
        TRY(write(o.path, n * block, block));
        for (const char* more : {".1", ".2", ".3"})
            if (n % 8 == 0) TRY(write(o.path + more, n / 8 * block, block));
    }
    auto parent = TRY(fs.resolve_parent(between, root));
    TRY(fs.unlink(*parent.directory, parent.name, root, true));
    fs.volume().wait_for_deletions();
    return {};
}

Result<void> rename_path(FileSystem& fs, const Operation& o) {
    auto from = TRY(fs.resolve_parent(o.path, root));
    auto to = TRY(fs.resolve_parent(o.other, root));
    return fs.rename(*from.directory, from.name, *to.directory, to.name, o.kind == Kind::Exchange ? 2u : 0u, root,
                     true);
}

Result<void> make(FileSystem& fs, const Operation& o) {
    auto parent = TRY(fs.resolve_parent(o.path, root));
    switch (o.kind) {
        case Kind::Create: TRY(fs.open_path(o.path, O_CREAT | O_RDWR, 0644, root)); return {};
        case Kind::Mkdir: TRY(fs.create(*parent.directory, parent.name, S_IFDIR | 0755, 0, {}, root, true)); return {};
        case Kind::Mknod:
            TRY(fs.create(*parent.directory, parent.name, static_cast<mode_t>(o.mode), o.device, {}, root, true));
            return {};
        case Kind::Symlink:
            TRY(fs.create(*parent.directory, parent.name, S_IFLNK | 0777, 0, o.other, root, true));
            return {};
        case Kind::Link: {
            auto target = TRY(fs.resolve(o.other, root, false));
            return fs.link(*target, *parent.directory, parent.name, root, true);
        }
        case Kind::Unlink: return fs.unlink(*parent.directory, parent.name, root, true);
        default: return fs.rmdir(*parent.directory, parent.name, root, true);
    }
}

// Neither is in this century, and that of access lies behind all others, so that reading moves it nowhere.
AttributeChange times(int which, unsigned serial) {
    constexpr std::int64_t year_2200 = 7258118400, year_1938 = -1000000000;
    const unsigned n = serial % 1000;
    AttributeChange change;
    if (which & 1) change.atime = format::Timestamp{year_2200 + n * 86413, 1 + n * 1000003 % 999999999};
    if (which & 2) change.mtime = format::Timestamp{year_1938 - n * 86413, 2 + n * 1000003 % 999999997};
    return change;
}

std::vector<std::byte> access_list(const Operation& o) {
    using format::AclTag;
    const auto rights = static_cast<std::uint16_t>(o.mode);
    return format::encode_xattr_acl({{AclTag::user_obj, 6},
                                     {AclTag::user, rights, o.uid},
                                     {AclTag::group_obj, 4},
                                     {AclTag::mask, 6},
                                     {AclTag::other, 0}});
}

Result<void> change(FileSystem& fs, const Operation& o, unsigned serial) {
    auto inode = TRY(fs.resolve(o.path, root, false));
    switch (o.kind) {
        case Kind::Truncate: return fs.truncate(*inode, o.length, root, true);
        case Kind::Setxattr: return fs.set_xattr(*inode, o.other, bytes_of_write(serial, 0, o.length), 0, root, true);
        case Kind::JournalData:
            return fs.set_flags(*inode, fs.get_flags(*inode) | format::inode_flag::journal_data, root, true);
        case Kind::Removexattr: return fs.remove_xattr(*inode, o.other, root, true);
        case Kind::Chmod: {
            AttributeChange mode;
            mode.mode = static_cast<mode_t>(o.mode);
            return fs.set_attributes(*inode, mode, root, true);
        }
        case Kind::Chown: {
            AttributeChange owner;
            owner.uid = o.uid;
            owner.gid = o.gid;
            return fs.set_attributes(*inode, owner, root, true);
        }
        case Kind::Utimens: return fs.set_attributes(*inode, times(o.mode, serial), root, true);
        case Kind::Chattr: {
            constexpr std::uint32_t ours = flag::noatime | flag::nodump | flag::append | flag::immutable;
            return fs.set_flags(*inode, (fs.get_flags(*inode) & ~ours) | static_cast<std::uint32_t>(o.mode), root,
                                true);
        }
        case Kind::Extents: {
            const std::uint32_t others = fs.get_flags(*inode) & ~flag::extents;
            return fs.set_flags(*inode, o.mode ? others | flag::extents : others, root, true);
        }
        case Kind::Setfacl: return fs.set_xattr(*inode, "system.posix_acl_" + o.other, access_list(o), 0, root, true);
        default: {
            auto file = TRY(fs.open(inode, O_RDWR, root, false));
            return file->fallocate(o.mode, o.offset, o.length);
        }
    }
}

constexpr const char* names[] = {"creat",     "write",     "direct_write", "mapped_store", "truncate", "replace",
                                 "fallocate", "link",      "unlink",       "rename",       "exchange", "mkdir",
                                 "rmdir",     "symlink",   "setxattr",     "removexattr",  "chmod",    "chown",
                                 "mknod",     "utimens",   "chattr",       "extents",      "setfacl",  "journal_data",
                                 "scatter",   "fill",      "hold",         "give_up",      "commit",   "write_sync",
                                 "fsync",     "fdatasync", "msync",        "sync"};
static_assert(std::size(names) == static_cast<std::size_t>(Kind::Sync) + 1);

}  // namespace

std::vector<std::byte> bytes_of_write(unsigned serial, std::uint64_t offset, std::uint64_t length) {
    std::vector<std::byte> out(length);
    for (std::uint64_t i = 0; i < length; ++i) {
        std::uint64_t x = (offset + i) / 512 * 0x9e3779b97f4a7c15u + (serial + 1) * 0xbf58476d1ce4e5b9u;
        x ^= x >> 29;
        x *= 0x94d049bb133111ebu;
        out[i] = static_cast<std::byte>((x >> 40) % 255 + 1);
    }
    const Be32 magic = format::journal::magic;
    if (serial % 8 == 5)
        for (std::uint64_t at = round_up(offset, std::uint64_t{1024}); at + sizeof magic <= offset + length; at += 1024)
            std::memcpy(out.data() + (at - offset), &magic, sizeof magic);
    return out;
}

std::string describe(const Operation& o) {
    std::string text = names[static_cast<int>(o.kind)];
    if (!o.path.empty()) text += " " + o.path;
    if (!o.other.empty()) text += " " + (o.other.size() > 40 ? o.other.substr(0, 37) + "..." : o.other);
    if (o.kind == Kind::Truncate || o.kind == Kind::Setxattr) text += fmt::format(" {}", o.length);
    else if (o.length) text += fmt::format(" {}+{}", o.offset, o.length);
    if (o.kind == Kind::WriteSync && o.mode & Operation::data_alone) text += " data";
    if (o.kind == Kind::WriteSync && o.mode & Operation::direct) text += " direct";
    if (o.kind == Kind::Fallocate) text += fmt::format(" mode {:#x}", o.mode);
    if (o.kind == Kind::Chmod || o.kind == Kind::Mknod) text += fmt::format(" {:o}", o.mode);
    if (o.kind == Kind::Mknod) text += fmt::format(" {:#x}", o.device);
    if (o.kind == Kind::Chown) text += fmt::format(" {}:{}", o.uid, o.gid);
    if (o.kind == Kind::Chattr) text += fmt::format(" {:#x}", o.mode);
    if (o.kind == Kind::Extents) text += o.mode ? " on" : " off";
    if (o.kind == Kind::Utimens) text += o.mode == 1 ? " access" : o.mode == 2 ? " change" : " both";
    if (o.kind == Kind::Setfacl) text += fmt::format(" user {} {}", o.uid, o.mode);
    return text;
}

Result<void> perform(FileSystem& fs, const Operation& o, unsigned serial) {
    switch (o.kind) {
        case Kind::Write: return write_through(fs, o, O_RDWR | O_CREAT, serial);
        case Kind::WriteSync:
            return write_through(fs, o,
                                 O_RDWR | O_CREAT | (o.mode & Operation::data_alone ? O_DSYNC : O_SYNC) |
                                     (o.mode & Operation::direct ? O_DIRECT : 0),
                                 serial);
        case Kind::Direct: return write_through(fs, o, O_RDWR | O_CREAT | O_DIRECT, serial);
        case Kind::Reopen: return write_through(fs, o, O_RDWR | O_CREAT | O_TRUNC, serial);
        case Kind::Rename:
        case Kind::Exchange: return rename_path(fs, o);
        case Kind::Create:
        case Kind::Mkdir:
        case Kind::Mknod:
        case Kind::Symlink:
        case Kind::Link:
        case Kind::Unlink:
        case Kind::Rmdir: return make(fs, o);
        case Kind::Scatter: return scatter(fs, o, serial);
        case Kind::Fill: return fill(fs, o);
        case Kind::Commit: fs.volume().wait_for_deletions(); return fs.volume().fs().journal.commit_all();
        case Kind::Fsync:
        case Kind::Fdatasync:
        case Kind::Sync: return sync_path(fs, o);
        default: return change(fs, o, serial);
    }
}

}  // namespace uext4::crash
