#include "capi/attributes.h"
#include "capi/call.h"
#include "capi/handles.h"
#include "capi/text.h"

#include <sys/mman.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <limits>
#include <optional>

using namespace uext4;
using namespace uext4::capi;

namespace {

Bytes bytes(void* p, std::size_t n) { return {static_cast<std::byte*>(p), n}; }
ConstBytes bytes(const void* p, std::size_t n) { return {static_cast<const std::byte*>(p), n}; }

constexpr std::size_t most = 0x7FFFF000;  // of one call, as Linux

// As the system calls: a range that ends beyond the largest offset is EINVAL, a long one is cut.
bool sane(off_t offset, std::size_t length) {
    return offset >= 0 && length <= static_cast<std::size_t>(std::numeric_limits<off_t>::max() - offset);
}

// All parts together, at most what one call does; nullopt when they are none.
std::optional<std::size_t> sane(const iovec* parts, int count, off_t offset) {
    if (count < 0 || count > IOV_MAX || (count > 0 && !parts)) return std::nullopt;
    std::size_t total = 0;
    for (int i = 0; i < count; ++i) {
        if (parts[i].iov_len > SSIZE_MAX - total || (!parts[i].iov_base && parts[i].iov_len)) return std::nullopt;
        total += parts[i].iov_len;
    }
    total = std::min(total, most);
    return sane(offset, total) ? std::optional(total) : std::nullopt;
}

// The parts as spans, `total` bytes in all.
template <class Span>
std::vector<Span> spans(const iovec* parts, std::size_t total) {
    std::vector<Span> out;
    for (; total > 0; ++parts) {
        const std::size_t n = std::min(parts->iov_len, total);
        out.emplace_back(static_cast<std::byte*>(parts->iov_base), n);
        total -= n;
    }
    return out;
}

}  // namespace

extern "C" {

int uext4_open(uext4_fs* fs, const char* path, int flags, mode_t mode, uext4_file** file) try {
    const Call call;
    const CallerString name(path);
    if (!fs || !name || !file) return invalid("uext4_open: NULL");
    if (flags & O_PATH) return invalid("uext4_open: O_PATH, where calls by path do");
    Result<std::unique_ptr<OpenFile>> opened = fs->fs->open_path(*name, flags, mode, identity(fs));
    if (!opened) return report(opened.error());
    *file = new uext4_file{fs, std::move(*opened)};
    fs->open_handles.fetch_add(1);
    return 0;
}
UEXT4_NOTHING_THROWN

int uext4_close(uext4_file* file) try {
    const Call call(Cancelled::goes_on);
    if (!file) return invalid("uext4_close: NULL");
    uext4_fs* fs = file->fs;
    delete file;
    fs->open_handles.fetch_sub(1);
    return 0;
}
UEXT4_NOTHING_THROWN

ssize_t uext4_pread(uext4_file* file, void* buffer, size_t length, off_t offset) try {
    const Call call;
    if (!file || (!buffer && length)) return invalid("uext4_pread: NULL");
    if (!sane(offset, length)) return invalid("uext4_pread: a negative offset, or one beyond the largest");
    const Result<std::size_t> n =
        file->file->read(static_cast<std::uint64_t>(offset), bytes(buffer, std::min(length, most)));
    return n ? static_cast<ssize_t>(*n) : report(n.error());
}
UEXT4_NOTHING_THROWN

ssize_t uext4_pwrite(uext4_file* file, const void* buffer, size_t length, off_t offset) try {
    const Call call;
    if (!file || (!buffer && length)) return invalid("uext4_pwrite: NULL");
    if (!sane(offset, length)) return invalid("uext4_pwrite: a negative offset, or one beyond the largest");
    const Credentials who = identity(file->fs);
    const Result<std::size_t> n =
        file->file->write(static_cast<std::uint64_t>(offset), bytes(buffer, std::min(length, most)), &who);
    return n ? static_cast<ssize_t>(*n) : report(n.error());
}
UEXT4_NOTHING_THROWN

ssize_t uext4_preadv(uext4_file* file, const iovec* parts, int count, off_t offset) try {
    const Call call;
    const std::optional<std::size_t> total = sane(parts, count, offset);
    if (!file || !total) return invalid("uext4_preadv: bad arguments");
    const Result<std::size_t> n = file->file->read(static_cast<std::uint64_t>(offset), spans<Bytes>(parts, *total));
    return n ? static_cast<ssize_t>(*n) : report(n.error());
}
UEXT4_NOTHING_THROWN

ssize_t uext4_pwritev(uext4_file* file, const iovec* parts, int count, off_t offset) try {
    const Call call;
    const std::optional<std::size_t> total = sane(parts, count, offset);
    if (!file || !total) return invalid("uext4_pwritev: bad arguments");
    const Credentials who = identity(file->fs);
    const Result<std::size_t> n =
        file->file->write(static_cast<std::uint64_t>(offset), spans<ConstBytes>(parts, *total), &who);
    return n ? static_cast<ssize_t>(*n) : report(n.error());
}
UEXT4_NOTHING_THROWN

int uext4_fsync(uext4_file* file) try {
    const Call call;
    return file ? status(file->file->sync(false)) : invalid("uext4_fsync: NULL");
}
UEXT4_NOTHING_THROWN
int uext4_fdatasync(uext4_file* file) try {
    const Call call;
    return file ? status(file->file->sync(true)) : invalid("uext4_fdatasync: NULL");
}
UEXT4_NOTHING_THROWN

int uext4_ftruncate(uext4_file* file, off_t size) try {
    const Call call;
    if (!file || size < 0) return invalid("uext4_ftruncate: bad arguments");
    const Credentials who = identity(file->fs);
    return status(file->file->truncate(static_cast<std::uint64_t>(size), &who));
}
UEXT4_NOTHING_THROWN

int uext4_fallocate(uext4_file* file, int mode, off_t offset, off_t length) try {
    const Call call;
    if (!file || offset < 0 || length <= 0) return invalid("uext4_fallocate: bad arguments");
    const Credentials who = identity(file->fs);
    return status(
        file->file->fallocate(mode, static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(length), &who));
}
UEXT4_NOTHING_THROWN

off_t uext4_lseek(uext4_file* file, off_t offset, int whence) try {
    const Call call;
    if (!file) return invalid("uext4_lseek: NULL");
    if (offset < 0 && (whence == SEEK_DATA || whence == SEEK_HOLE))
        return report(Error{ENXIO, "uext4_lseek: a negative offset"});
    if (whence == SEEK_CUR) return invalid("uext4_lseek: a file has no position of its own");
    const Result<std::uint64_t> at = file->file->seek(static_cast<std::uint64_t>(offset), whence);
    if (!at) return report(at.error());
    return static_cast<off_t>(*at);
}
UEXT4_NOTHING_THROWN

int uext4_fstat(uext4_file* file, struct stat* out) try {
    const Call call;
    if (!file || !out) return invalid("uext4_fstat: NULL");
    struct stat filled{};  // with a lock held; the program's memory may be a map of this file
    file->file->inode().fill_stat(filled);
    *out = filled;
    return 0;
}
UEXT4_NOTHING_THROWN

int uext4_fchmod(uext4_file* file, mode_t mode) try {
    const Call call;
    if (!file) return invalid("uext4_fchmod: NULL");
    return change_mode(file->fs, file->file->inode(), mode);
}
UEXT4_NOTHING_THROWN
int uext4_fchown(uext4_file* file, uid_t uid, gid_t gid) try {
    const Call call;
    if (!file) return invalid("uext4_fchown: NULL");
    return change_owner(file->fs, file->file->inode(), uid, gid);
}
UEXT4_NOTHING_THROWN
int uext4_futimens(uext4_file* file, const timespec times[2]) try {
    const Call call;
    if (!file) return invalid("uext4_futimens: NULL");
    return change_times(file->fs, file->file->inode(), times);
}
UEXT4_NOTHING_THROWN
ssize_t uext4_fgetxattr(uext4_file* file, const char* name, void* value, size_t size) try {
    const Call call;
    if (!file) return invalid("uext4_fgetxattr: NULL");
    const CallerString own(name);
    if (const int bad = check_attribute_call(*own, 0, 0)) return bad;
    return get_attribute(file->fs, file->file->inode(), *own, value, size);
}
UEXT4_NOTHING_THROWN
int uext4_fsetxattr(uext4_file* file, const char* name, const void* value, size_t size, int flags) try {
    const Call call;
    if (!file || (!value && size)) return invalid("uext4_fsetxattr: NULL");
    const CallerString own(name);
    if (const int bad = check_attribute_call(*own, size, flags)) return bad;
    return status(
        file->fs->fs->set_xattr(file->file->inode(), *own, bytes(value, size), flags, identity(file->fs), true));
}
UEXT4_NOTHING_THROWN
ssize_t uext4_flistxattr(uext4_file* file, char* list, size_t size) try {
    const Call call;
    if (!file) return invalid("uext4_flistxattr: NULL");
    return list_attributes(file->fs, file->file->inode(), list, size);
}
UEXT4_NOTHING_THROWN
int uext4_fremovexattr(uext4_file* file, const char* name) try {
    const Call call;
    if (!file) return invalid("uext4_fremovexattr: NULL");
    const CallerString own(name);
    if (const int bad = check_attribute_call(*own, 0, 0)) return bad;
    return status(file->fs->fs->remove_xattr(file->file->inode(), *own, identity(file->fs), true));
}
UEXT4_NOTHING_THROWN
int uext4_fgetflags(uext4_file* file, unsigned int* flags) try {
    const Call call;
    if (!file || !flags) return invalid("uext4_fgetflags: NULL");
    *flags = file->fs->fs->get_flags(file->file->inode());
    return 0;
}
UEXT4_NOTHING_THROWN
int uext4_fsetflags(uext4_file* file, unsigned int flags) try {
    const Call call;
    if (!file) return invalid("uext4_fsetflags: NULL");
    return status(file->fs->fs->set_flags(file->file->inode(), flags, identity(file->fs), true));
}
UEXT4_NOTHING_THROWN

int uext4_map(uext4_file* file, off_t offset, size_t length, int prot, int flags, void** address) try {
    const Call call;
    if (!file || !address) return invalid("uext4_map: NULL");
    if (offset < 0) return invalid("uext4_map: a negative offset");
    const Result<void*> memory = file->file->map(static_cast<std::uint64_t>(offset), length, prot, flags);
    if (!memory) return report(memory.error());
    *address = *memory;
    return 0;
}
UEXT4_NOTHING_THROWN

int uext4_unmap(void* address, size_t length) try {
    const Call call(Cancelled::goes_on);
    // Maps are found by their address, whichever file system they belong to.
    return status(ClientMaps::unmap(address, length));
}
UEXT4_NOTHING_THROWN

int uext4_msync(void* address, size_t length, int flags) try {
    const Call call;
    constexpr int known = MS_ASYNC | MS_SYNC | MS_INVALIDATE;
    if ((flags & ~known) || ((flags & MS_ASYNC) && (flags & MS_SYNC))) return invalid("uext4_msync: flags");
    // Without MS_SYNC nothing is to be waited for: background writeback sees every stored page anyway.
    return status(FileSystem::sync_maps(address, length, (flags & MS_SYNC) != 0));
}
UEXT4_NOTHING_THROWN

ssize_t uext4_copy_file_range(uext4_file* from, off_t from_offset, uext4_file* to, off_t to_offset, size_t length) try {
    const Call call;
    if (!from || !to) return invalid("uext4_copy_file_range: bad arguments");
    if (from->fs != to->fs) return report(Error{EXDEV, "uext4_copy_file_range: two file systems"});
    // In this order, and of offsets without a sign, as the kernel sees them.
    const auto ends_beyond = [length](off_t offset) {
        return length > std::numeric_limits<std::size_t>::max() - static_cast<std::size_t>(offset);
    };
    if (ends_beyond(from_offset) || ends_beyond(to_offset))
        return report(Error{EOVERFLOW, "uext4_copy_file_range: beyond the largest offset"});
    if (from_offset < 0 || to_offset < 0) return invalid("uext4_copy_file_range: an offset below zero");
    const Credentials who = identity(to->fs);
    const Result<std::size_t> n =
        from->fs->fs->copy_range(*from->file, static_cast<std::uint64_t>(from_offset), *to->file,
                                 static_cast<std::uint64_t>(to_offset), std::min(length, most), &who);
    return n ? static_cast<ssize_t>(*n) : report(n.error());
}
UEXT4_NOTHING_THROWN

}  // extern "C"
