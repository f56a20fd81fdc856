// uext4: ext4 file systems in user space. The C++ interface.
//
// Header only, over the C interface of <uext4/uext4.h>: what a program links against stays stable. Objects own what
// they stand for and give it back when they go; none throws. Every fallible function returns a Result, whose error
// carries a positive errno and a sentence that names structure and number. All functions are thread-safe. Offsets,
// lengths and sizes are bytes. Paths start at the file system's root; "<12>" names inode 12, "<12>/name" an entry of
// it.
//
//     auto fs = uext4::FileSystem::mount("disk.img", "data=ordered");
//     if (!fs) return report(fs.error().message);
//     auto file = fs->open("/notes", O_CREAT | O_RDWR, 0644);
//     auto written = file->write(0, std::as_bytes(std::span("hello", 5)));
//     auto synced = file->sync();

// (g++ 12 says 202100 with -std=c++23.)
#if __cplusplus < 202100L
#error "<uext4/uext4.hpp> needs C++23: compile with -std=c++23 (in CMake: cxx_std_23)"
#elif !defined(UEXT4_HPP)
#define UEXT4_HPP

#include <uext4/uext4.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace uext4 {
inline namespace v1 {

struct Error {
    int code = 0;         // a positive errno
    std::string message;  // one sentence
};
template <class T = void>
using Result = std::expected<T, Error>;

namespace detail {
inline std::unexpected<Error> failure(long code) {
    return std::unexpected(Error{static_cast<int>(-code), uext4_strerror()});
}
inline Result<void> done(int result) {
    if (result < 0) return failure(result);
    return {};
}
template <class T>
Result<T> value(long result) {
    if (result < 0) return failure(result);
    return static_cast<T>(result);
}
// A list or value whose size is asked for first; it may grow in between.
template <class Bytes, class Ask>
Result<Bytes> whole(Ask ask) {
    for (;;) {
        const ssize_t size = ask(nullptr, 0);
        if (size < 0) return failure(size);
        Bytes out(static_cast<std::size_t>(size), {});
        const ssize_t got = ask(out.data(), out.size());
        if (got == -ERANGE) continue;
        if (got < 0) return failure(got);
        out.resize(static_cast<std::size_t>(got));
        return out;
    }
}
inline std::vector<std::string> split(const std::string& list) {
    std::vector<std::string> out;
    for (std::size_t at = 0; at < list.size(); at += out.back().size() + 1) out.emplace_back(list.c_str() + at);
    return out;
}
}  // namespace detail

using Extent = uext4_extent;

// Memory that is a file (MAP_SHARED) or a private copy of it. Unmapped when the object goes; the file may be closed
// before that.
class Map {
public:
    Map() = default;
    Map(Map&& other) noexcept
        : address_(std::exchange(other.address_, nullptr)), length_(std::exchange(other.length_, 0)) {}
    Map& operator=(Map&& other) noexcept {
        std::swap(address_, other.address_);
        std::swap(length_, other.length_);
        return *this;
    }
    ~Map() { (void)unmap(); }

    std::span<std::byte> bytes() const { return {static_cast<std::byte*>(address_), length_}; }
    explicit operator bool() const { return address_ != nullptr; }
    // Stores made so far are durable on return. Errors: those of fsync.
    Result<void> sync() { return detail::done(uext4_msync(address_, length_, MS_SYNC)); }
    Result<void> unmap() {
        if (!address_) return {};
        return detail::done(uext4_unmap(std::exchange(address_, nullptr), std::exchange(length_, 0)));
    }

private:
    friend class File;
    Map(void* address, std::size_t length) : address_(address), length_(length) {}
    void* address_ = nullptr;
    std::size_t length_ = 0;
};

// An open file. It has no position of its own. Must go before its FileSystem is unmounted.
class File {
public:
    File() = default;
    File(File&& other) noexcept : file_(std::exchange(other.file_, nullptr)) {}
    File& operator=(File&& other) noexcept {
        std::swap(file_, other.file_);
        return *this;
    }
    ~File() { (void)close(); }
    explicit operator bool() const { return file_ != nullptr; }
    uext4_file* handle() const { return file_; }

    // Bytes read; fewer than asked for only at the end of the file.
    Result<std::size_t> read(std::uint64_t offset, std::span<std::byte> out) const {
        return detail::value<std::size_t>(uext4_pread(file_, out.data(), out.size(), static_cast<off_t>(offset)));
    }
    // Bytes written; fewer than given when space ran out in the middle. ENOSPC, EFBIG, EROFS, EBADF.
    Result<std::size_t> write(std::uint64_t offset, std::span<const std::byte> in) {
        return detail::value<std::size_t>(uext4_pwrite(file_, in.data(), in.size(), static_cast<off_t>(offset)));
    }
    // Everything of the file is durable on return; EIO when data could not be written since the last report.
    Result<void> sync() { return detail::done(uext4_fsync(file_)); }
    Result<void> sync_data() { return detail::done(uext4_fdatasync(file_)); }
    Result<void> truncate(std::uint64_t size) { return detail::done(uext4_ftruncate(file_, static_cast<off_t>(size))); }
    // `mode`: FALLOC_FL_*. EOPNOTSUPP for one that the file's format cannot do.
    Result<void> allocate(int mode, std::uint64_t offset, std::uint64_t length) {
        return detail::done(uext4_fallocate(file_, mode, static_cast<off_t>(offset), static_cast<off_t>(length)));
    }
    // `whence`: SEEK_SET, SEEK_END, SEEK_DATA, SEEK_HOLE. ENXIO past the last data.
    Result<std::uint64_t> seek(std::int64_t offset, int whence) const {
        return detail::value<std::uint64_t>(uext4_lseek(file_, offset, whence));
    }
    Result<struct stat> status() const {
        struct stat out{};
        if (const int r = uext4_fstat(file_, &out); r < 0) return detail::failure(r);
        return out;
    }
    // Where the bytes of a range lie, in order; holes are left out. What was not written back has no place yet.
    Result<std::vector<Extent>> extents(std::uint64_t offset = 0, std::uint64_t length = INT64_MAX) const {
        std::vector<Extent> out;
        const auto take = [](void* list, const uext4_extent* e) {
            static_cast<std::vector<Extent>*>(list)->push_back(*e);
            return 0;
        };
        if (const int r = uext4_extents(file_, static_cast<off_t>(offset), static_cast<off_t>(length), take, &out);
            r < 0)
            return detail::failure(r);
        return out;
    }
    // `offset`: a multiple of the page size. `protection`: PROT_*; `flags`: MAP_SHARED, MAP_PRIVATE, MAP_POPULATE.
    // EOPNOTSUPP where the kernel or the process's rights do not allow it; the message says what to do.
    Result<Map> map(std::uint64_t offset, std::size_t length, int protection, int flags = MAP_SHARED) {
        void* address = nullptr;
        const int r = uext4_map(file_, static_cast<off_t>(offset), length, protection, flags, &address);
        if (r < 0) return detail::failure(r);
        return Map(address, length);
    }
    Result<std::vector<std::byte>> attribute(const std::string& name) const {
        return detail::whole<std::vector<std::byte>>(
            [&](void* to, std::size_t size) { return uext4_fgetxattr(file_, name.c_str(), to, size); });
    }
    Result<void> set_attribute(const std::string& name, std::span<const std::byte> value, int flags = 0) {
        return detail::done(uext4_fsetxattr(file_, name.c_str(), value.data(), value.size(), flags));
    }
    // Also done when the object goes, its error then lost.
    Result<void> close() {
        if (!file_) return {};
        return detail::done(uext4_close(std::exchange(file_, nullptr)));
    }

private:
    friend class FileSystem;
    explicit File(uext4_file* file) : file_(file) {}
    uext4_file* file_ = nullptr;
};

// An open directory, read from its start. Must go before its FileSystem is unmounted.
class Directory {
public:
    struct Entry {
        std::string name;
        std::uint64_t inode = 0;
        unsigned char type = 0;  // DT_*; DT_UNKNOWN where the format does not say
    };
    Directory(Directory&& other) noexcept : dir_(std::exchange(other.dir_, nullptr)) {}
    Directory& operator=(Directory&& other) noexcept {
        std::swap(dir_, other.dir_);
        return *this;
    }
    ~Directory() {
        if (dir_) uext4_closedir(dir_);
    }
    // The next entry, "." and ".." among them; an empty name at the end.
    Result<Entry> next() {
        errno = 0;
        const dirent* e = uext4_readdir(dir_);
        if (e) return Entry{e->d_name, e->d_ino, e->d_type};
        if (errno != 0) return detail::failure(-errno);
        return Entry{};
    }
    long position() const { return uext4_telldir(dir_); }  // stays true while entries come and go
    void seek(long position) { uext4_seekdir(dir_, position); }

private:
    friend class FileSystem;
    explicit Directory(uext4_dir* dir) : dir_(dir) {}
    uext4_dir* dir_ = nullptr;
};

// Who asks. Without an identity calls act as root: uid 0, all capabilities, umask 022.
struct Identity {
    uid_t uid = 0;
    gid_t gid = 0;
    std::vector<gid_t> groups;  // supplementary
    mode_t umask = 022;
    std::uint64_t capabilities = 0;  // UEXT4_CAP_*; none comes with a uid

    uext4_credentials credentials() const {
        return {sizeof(uext4_credentials), uid, gid, groups.data(), groups.size(), umask, capabilities};
    }
};

// The calling thread's calls act as `who` as long as the object lives, on every mount; around a call, that call alone.
// Nests. Ends on the thread that it began on.
class ActingAs {
public:
    // EINVAL for capabilities that are none of a file system's: then nothing changes.
    static Result<ActingAs> begin(Identity who) {
        ActingAs made(std::make_unique<const Identity>(std::move(who)));
        const uext4_credentials c = made.who_->credentials();
        if (const int r = uext4_set_thread_credentials(&c); r < 0) {
            made.who_.reset();
            return detail::failure(r);
        }
        now() = made.who_.get();
        return made;
    }
    ActingAs(ActingAs&& other) noexcept = default;
    ActingAs& operator=(ActingAs&&) = delete;
    ~ActingAs() {
        if (!who_) return;
        now() = before_;
        if (!before_) {
            (void)uext4_set_thread_credentials(nullptr);
        } else {
            const uext4_credentials c = before_->credentials();
            (void)uext4_set_thread_credentials(&c);
        }
    }

private:
    explicit ActingAs(std::unique_ptr<const Identity> who) : who_(std::move(who)), before_(now()) {}
    static const Identity*& now() {
        static thread_local const Identity* current = nullptr;
        return current;
    }
    std::unique_ptr<const Identity> who_;
    const Identity* before_;
};

// A mounted file system. Calls act as root unless set_identity() or an ActingAs says otherwise.
class FileSystem {
public:
    // `image`: a path, IMAGE@N (partition N), /dev/fd/N or a block device. `options`: as `uext4 mount -o`.
    // EBUSY in use, EROFS or EOPNOTSUPP a feature that forbids it, EUCLEAN damage.
    static Result<FileSystem> mount(const std::string& image, const std::string& options = {}) {
        uext4_fs* fs = nullptr;
        if (const int r = uext4_mount(image.c_str(), options.c_str(), &fs); r < 0) return detail::failure(r);
        return FileSystem(fs);
    }
    // The callbacks may come from several threads at once until the file system is unmounted.
    static Result<FileSystem> mount(const uext4_device& device, const std::string& options = {}) {
        uext4_fs* fs = nullptr;
        if (const int r = uext4_mount_device(&device, options.c_str(), &fs); r < 0) return detail::failure(r);
        return FileSystem(fs);
    }
    FileSystem(FileSystem&& other) noexcept : fs_(std::exchange(other.fs_, nullptr)) {}
    FileSystem& operator=(FileSystem&& other) noexcept {
        std::swap(fs_, other.fs_);
        return *this;
    }
    ~FileSystem() { (void)unmount(); }
    uext4_fs* handle() const { return fs_; }

    // Of all calls but those of threads that are ActingAs somebody. EINVAL as there.
    Result<void> set_identity(const Identity& who) {
        const uext4_credentials c = who.credentials();
        return detail::done(uext4_set_credentials(fs_, &c));
    }
    Result<void> act_as_root() { return detail::done(uext4_set_credentials(fs_, nullptr)); }

    // Everything durable, the image clean; also when the object goes, the error then lost. EBUSY while files,
    // directories or maps are open: it is still mounted then. They must go before the object does.
    Result<void> unmount() {
        if (!fs_) return {};
        const int r = uext4_umount(fs_);
        if (r != -EBUSY) fs_ = nullptr;
        return detail::done(r);
    }
    // `flags` and `mode` as open(2).
    Result<File> open(const std::string& path, int flags, mode_t mode = 0) {
        uext4_file* file = nullptr;
        if (const int r = uext4_open(fs_, path.c_str(), flags, mode, &file); r < 0) return detail::failure(r);
        return File(file);
    }
    Result<Directory> open_directory(const std::string& path) {
        uext4_dir* dir = nullptr;
        if (const int r = uext4_opendir(fs_, path.c_str(), &dir); r < 0) return detail::failure(r);
        return Directory(dir);
    }
    Result<struct stat> status(const std::string& path, bool follow = true) const {
        struct stat out{};
        const int r = follow ? uext4_stat(fs_, path.c_str(), &out) : uext4_lstat(fs_, path.c_str(), &out);
        if (r < 0) return detail::failure(r);
        return out;
    }
    Result<struct statvfs> statistics() const {
        struct statvfs out{};
        if (const int r = uext4_statfs(fs_, &out); r < 0) return detail::failure(r);
        return out;
    }
    Result<void> sync() { return detail::done(uext4_syncfs(fs_)); }
    // A copy of the image needs no replay; changes wait for the thaw. Does not nest: EBUSY for what is frozen, EINVAL
    // for the thaw of what is not.
    Result<void> freeze() { return detail::done(uext4_freeze(fs_)); }
    Result<void> thaw() { return detail::done(uext4_thaw(fs_)); }

    Result<void> create_directory(const std::string& path, mode_t mode = 0777) {
        return detail::done(uext4_mkdir(fs_, path.c_str(), mode));
    }
    Result<void> remove_directory(const std::string& path) { return detail::done(uext4_rmdir(fs_, path.c_str())); }
    Result<void> remove(const std::string& path) { return detail::done(uext4_unlink(fs_, path.c_str())); }
    // `flags`: RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT.
    Result<void> rename(const std::string& from, const std::string& to, unsigned flags = 0) {
        return detail::done(uext4_rename(fs_, from.c_str(), to.c_str(), flags));
    }
    Result<void> link(const std::string& target, const std::string& path) {
        return detail::done(uext4_link(fs_, target.c_str(), path.c_str()));
    }
    Result<void> symlink(const std::string& target, const std::string& path) {
        return detail::done(uext4_symlink(fs_, target.c_str(), path.c_str()));
    }
    Result<std::string> read_link(const std::string& path) const {
        std::string out(4096, '\0');
        const ssize_t size = uext4_readlink(fs_, path.c_str(), out.data(), out.size());
        if (size < 0) return detail::failure(size);
        out.resize(static_cast<std::size_t>(size));
        return out;
    }
    Result<void> create_node(const std::string& path, mode_t mode, dev_t device = 0) {
        return detail::done(uext4_mknod(fs_, path.c_str(), mode, device));
    }
    Result<void> set_mode(const std::string& path, mode_t mode) {
        return detail::done(uext4_chmod(fs_, path.c_str(), mode));
    }
    Result<void> set_owner(const std::string& path, uid_t uid, gid_t gid, bool follow = true) {
        return detail::done((follow ? uext4_chown : uext4_lchown)(fs_, path.c_str(), uid, gid));
    }
    // As utimensat(2), UTIME_NOW and UTIME_OMIT included.
    Result<void> set_times(const std::string& path, const timespec& access, const timespec& change,
                           bool follow = true) {
        const timespec both[2] = {access, change};
        return detail::done(uext4_utimensat(fs_, path.c_str(), both, follow ? 0 : AT_SYMLINK_NOFOLLOW));
    }
    Result<void> truncate(const std::string& path, std::uint64_t size) {
        return detail::done(uext4_truncate(fs_, path.c_str(), static_cast<off_t>(size)));
    }
    Result<void> access(const std::string& path, int mask) const {
        return detail::done(uext4_access(fs_, path.c_str(), mask));
    }
    Result<std::vector<std::byte>> attribute(const std::string& path, const std::string& name) const {
        return detail::whole<std::vector<std::byte>>(
            [&](void* to, std::size_t size) { return uext4_getxattr(fs_, path.c_str(), name.c_str(), to, size); });
    }
    Result<std::vector<std::string>> attributes(const std::string& path) const {
        auto list = detail::whole<std::string>(
            [&](char* to, std::size_t size) { return uext4_listxattr(fs_, path.c_str(), to, size); });
        if (!list) return std::unexpected(std::move(list).error());
        return detail::split(*list);
    }
    // `flags`: XATTR_CREATE, XATTR_REPLACE.
    Result<void> set_attribute(const std::string& path, const std::string& name, std::span<const std::byte> value,
                               int flags = 0) {
        return detail::done(uext4_setxattr(fs_, path.c_str(), name.c_str(), value.data(), value.size(), flags));
    }
    Result<void> remove_attribute(const std::string& path, const std::string& name) {
        return detail::done(uext4_removexattr(fs_, path.c_str(), name.c_str()));
    }
    // FS_IOC_GETFLAGS's bits.
    Result<unsigned> flags(const std::string& path) const {
        unsigned out = 0;
        if (const int r = uext4_getflags(fs_, path.c_str(), &out); r < 0) return detail::failure(r);
        return out;
    }
    Result<void> set_flags(const std::string& path, unsigned flags) {
        return detail::done(uext4_setflags(fs_, path.c_str(), flags));
    }

private:
    explicit FileSystem(uext4_fs* fs) : fs_(fs) {}
    uext4_fs* fs_ = nullptr;
};

}  // namespace v1
}  // namespace uext4

#endif
