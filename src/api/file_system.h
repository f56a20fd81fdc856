// The file system as front ends see it: operations on inodes and paths, with permissions, freezing and errors settled.
// Thread-safe. The C ABI and the mount are thin layers over it.
#pragma once

#include "api/file_maps.h"
#include "inode/access.h"
#include "inode/attributes.h"
#include "volume/volume.h"

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace uext4 {

class FileSystem;
struct WriteRequest;

// An open file. `flags` are open(2)'s. Closing writes back a file that replaced another (auto_da_alloc).
class OpenFile {
public:
    ~OpenFile();
    OpenFile(const OpenFile&) = delete;
    // Positioned; short only at the end of the file or before what cannot be read (read), or when space ran out
    // (write). O_APPEND, O_DIRECT, O_SYNC and O_DSYNC mean what they mean. EBADF against the access mode. A vector of
    // parts is one call: others see all of a write or nothing, but for reads through the cache; so do direct reads.
    Result<std::size_t> read(std::uint64_t offset, Bytes out) { return read(offset, std::span<const Bytes>(&out, 1)); }
    Result<std::size_t> read(std::uint64_t offset, std::span<const Bytes> parts);
    // `who` acts, which decides on set-id bits and reserved blocks; without one, who opened the file.
    Result<std::size_t> write(std::uint64_t offset, ConstBytes in, const Credentials* who = nullptr) {
        return write(offset, std::span<const ConstBytes>(&in, 1), who);
    }
    Result<std::size_t> write(std::uint64_t offset, std::span<const ConstBytes> parts,
                              const Credentials* who = nullptr);
    // For a cache above that was told ENOSPC, and has answered the program long ago: kept here, within bounds, and
    // written once there is space; until then each sync of the file says ENOSPC. Short, or ENOSPC, where the bounds are
    // reached, or the contents are journaled or leave the inode.
    Result<std::size_t> write_beyond_reserved_space(std::uint64_t offset, ConstBytes in);
    Result<void> sync(bool data_only);
    Result<void> truncate(std::uint64_t size, const Credentials* who = nullptr);
    Result<void> fallocate(int mode, std::uint64_t offset, std::uint64_t length, const Credentials* who = nullptr);
    Result<std::uint64_t> seek(std::uint64_t offset, int whence);  // SEEK_DATA and SEEK_HOLE, SEEK_SET and SEEK_END
    // A memory map of [offset, offset + length); offset in whole pages. `protection`: PROT_*; `flags`: MAP_SHARED or
    // MAP_PRIVATE, with MAP_POPULATE. Lives on when the file is closed; ends by ClientMaps::unmap. EACCES against the
    // access mode, EINVAL, ENODEV (not a regular file), EOPNOTSUPP and EPERM where there are no maps.
    Result<void*> map(std::uint64_t offset, std::size_t length, int protection, int flags);
    std::uint64_t largest_size() const;  // that the file may grow to, in bytes
    Inode& inode() { return *inode_; }
    const InodeRef& inode_ref() const { return inode_; }
    int flags() const { return flags_; }
    // A mount with the kernel's writeback cache: sizes and times are the kernel's, reads come through any descriptor.
    void set_kernel_cached(bool on) { kernel_cached_ = on; }
    // There, of a direct request: EINVAL where a descriptor with O_DIRECT would be told that it is not in sectors.
    Result<void> check_direct_read(std::uint64_t offset, Bytes out);
    Result<void> check_direct_write(std::uint64_t offset, ConstBytes in) const;
    // For a cache above that takes writes before they are made: EROFS, or ENOSPC when fewer blocks are left to whoever
    // opened the file than it takes to go on.
    Result<void> check_can_continue_writing() const;
    // The same for a file that has no block, and nothing in its inode, so that whatever is written next needs one:
    // ENOSPC when what is left is too little to promise it. Waits for space that is on its way back.
    Result<void> check_can_start_writing();
    std::uint64_t available_blocks() const;  // free blocks that the opener of this file may use
    // Whether the next read has a new access time to note, so that a cache above must let it through.
    bool needs_atime_update() const;

private:
    friend class FileSystem;
    Result<std::size_t> read_into(std::uint64_t offset, Bytes out);
    // What lies before that which cannot be read; its error, if nothing does.
    Result<std::size_t> read_front(std::uint64_t offset, Bytes out);
    Result<std::size_t> read_part(std::uint64_t offset, Bytes out);
    WriteRequest make_write_request(const Credentials& who) const;
    Result<bool> try_overwrite(std::uint64_t offset, std::span<const ConstBytes> parts, const Credentials& who);
    Result<std::size_t> write_from(std::uint64_t offset, ConstBytes in, const Credentials& who);
    Result<std::size_t> write_parts(std::uint64_t offset, std::span<const ConstBytes> parts, const Credentials& who);
    // O_SYNC, O_DSYNC and the flag sync: what was done is durable. Not waited for where the file system is frozen:
    // there all is.
    Result<void> finish_call();
    // Others wait until the call is done. On a mount the kernel sees to it.
    UniqueWriteLock lock_call(SourceLocation where = SourceLocation::current()) {
        return kernel_cached_ ? UniqueWriteLock() : UniqueWriteLock(inode_->call_lock, where);
    }
    OpenFile(FileSystem& fs, InodeRef inode, int flags, Credentials who);
    FileSystem& fs_;
    InodeRef inode_;
    int flags_;
    Credentials credentials_;
    bool kernel_cached_ = false;
    std::atomic<std::uint64_t> errors_seen_{0};
};

class FileSystem {
public:
    // image: a path, IMAGE@N (partition), /dev/fd/N, a block device. options: as `uext4 mount -o`, comma-separated.
    static Result<std::unique_ptr<FileSystem>> mount(const std::string& image, std::string_view options,
                                                     LogCallback log = {});
    static Result<std::unique_ptr<FileSystem>> mount_device(std::shared_ptr<BlockDevice> device,
                                                            const VolumeOptions& options, LogCallback log = {});
    ~FileSystem();
    Result<void> unmount();  // everything durable, image clean

    Volume& volume() { return *volume_; }
    bool read_only() const { return volume_->read_only(); }

    // ---- by inode. `check`: permissions of `who` are enforced (a mount leaves them to the kernel).
    Result<InodeRef> root();
    // ESTALE when not in use; `unlinked`: one whose last name is gone, but which is not deleted yet, is.
    Result<InodeRef> inode(InodeNr number, bool unlinked = false);
    Result<InodeRef> lookup(Inode& directory, std::string_view name, const Credentials& who, bool check);
    // Null where there is no such name.
    Result<InodeRef> find(Inode& directory, std::string_view name, const Credentials& who, bool check);
    Result<struct stat> attributes(Inode& inode);
    // Bytes that OpenFile::write_beyond_reserved_space may take of this file now, more or less; writes back what takes
    // its place.
    static std::uint64_t unreserved_dirty_bytes(Inode& inode);
    // When the inode was made; nothing where it has no room for that.
    std::optional<format::Timestamp> birth_time(Inode& inode);
    Result<void> set_attributes(Inode& inode, const AttributeChange& change, const Credentials& who, bool check);
    // What a write by `who` takes: set-id bits, security.capability. For those whose writes come later than the call.
    Result<void> remove_suid(Inode& inode, const Credentials& who);
    Result<void> truncate(Inode& inode, std::uint64_t size, const Credentials& who, bool check);
    Result<InodeRef> create(Inode& directory, std::string_view name, mode_t mode, dev_t rdev, std::string_view target,
                            const Credentials& who, bool check);  // any file type; `target` for symlinks
    // `flags`: with O_EXCL it never gets a name.
    Result<InodeRef> create_tmpfile(Inode& directory, mode_t mode, int flags, const Credentials& who, bool check);
    Result<void> link(Inode& target, Inode& directory, std::string_view name, const Credentials& who, bool check);
    Result<void> unlink(Inode& directory, std::string_view name, const Credentials& who, bool check);
    Result<void> rmdir(Inode& directory, std::string_view name, const Credentials& who, bool check);
    Result<void> rename(Inode& from_dir, std::string_view from, Inode& to_dir, std::string_view to, unsigned flags,
                        const Credentials& who, bool check, TrailingSlash slashes = {});
    Result<std::string> read_link(Inode& inode);
    // `flags`: O_NOATIME
    Result<void> read_directory(Inode& directory, std::uint64_t cookie,
                                const std::function<bool(const DirectoryEntry&)>& visit, int flags = 0);
    Result<std::unique_ptr<OpenFile>> open(const InodeRef& inode, int flags, const Credentials& who, bool check);

    Result<std::vector<std::byte>> get_xattr(Inode& inode, std::string_view name, const Credentials& who, bool check);
    // Nothing where there is none.
    Result<std::optional<std::vector<std::byte>>> find_xattr(Inode& inode, std::string_view name,
                                                             const Credentials& who, bool check);
    Result<void> set_xattr(Inode& inode, std::string_view name, ConstBytes value, int flags, const Credentials& who,
                           bool check);  // XATTR_CREATE, XATTR_REPLACE
    Result<void> remove_xattr(Inode& inode, std::string_view name, const Credentials& who, bool check);
    Result<std::vector<std::string>> list_xattrs(Inode& inode, const Credentials& who, bool check);
    std::uint32_t get_flags(Inode& inode);  // FS_IOC_GETFLAGS's bits
    // The flag j is for CAP_SYS_RESOURCE, whether `check` is set or not: nobody above knows of that. `e` is the last
    // one: where it cannot be changed, that is the error, and the others have been changed all the same, as by the
    // kernel.
    Result<void> set_flags(Inode& inode, std::uint32_t flags, const Credentials& who, bool check);
    Result<void> access(Inode& inode, int mask, const Credentials& who);  // R_OK | W_OK | X_OK
    Result<void> extents(Inode& inode, std::uint64_t offset, std::uint64_t length,
                         const std::function<bool(const Mapping&)>& visit);
    // Copies a range inside the file system; bytes copied.
    Result<std::size_t> copy_range(OpenFile& from, std::uint64_t from_offset, OpenFile& to, std::uint64_t to_offset,
                                   std::size_t length, const Credentials* who = nullptr);

    // ---- by path, from the root. "<12>" at the start names an inode by its number, "<12>/name" an entry of it. At
    // most 40 symlinks.
    Result<InodeRef> resolve(std::string_view path, const Credentials& who, bool follow_last = true);
    struct Parent {
        InodeRef directory;
        std::string name;
        bool slash = false;  // the path goes on with a slash: it is to be a directory
    };
    // EBUSY for "/", EINVAL for "<12>", which have no name.
    Result<Parent> resolve_parent(std::string_view path, const Credentials& who);
    // O_CREAT, O_EXCL, O_TRUNC, O_NOFOLLOW, O_DIRECTORY, O_TMPFILE as open(2).
    Result<std::unique_ptr<OpenFile>> open_path(std::string_view path, int flags, mode_t mode, const Credentials& who);

    // ---- the whole
    Result<void> sync();
    Result<struct statvfs> statistics();
    Result<void> freeze();
    Result<void> thaw();
    // Gives free space in runs of at least so many bytes back to the device; bytes given. EOPNOTSUPP where it takes
    // none, EINVAL where no run is that long: none is longer than a group.
    Result<std::uint64_t> trim(std::uint64_t least);
    FileMaps& maps() { return maps_; }
    // What stores through maps of [address, address + length) left is durable when `wait` is set. ENOMEM where there is
    // no map.
    static Result<void> sync_maps(void* address, std::size_t length, bool wait);
    // For whoever holds inodes and files on behalf of others, and learns late that they were let go: called with
    // nothing held before an operation that met no space is tried again, by the thread that called it.
    void set_low_space_callback(std::function<void()> let_go) { low_space_callback_ = std::move(let_go); }
    // For whoever answers for inodes by number without references to them: asked when the last reference to one without
    // names goes, by any thread, with a lock held. True: it was copied, and the copy will go when nobody can ask for
    // the inode any more; then this is asked once more. Empty: nobody.
    void set_keep_callback(std::function<bool(const InodeRef&)> keeps) { volume_->set_keep_callback(std::move(keeps)); }
    Result<std::string> label();
    Result<void> set_label(std::string_view label);  // at most 16 bytes

private:
    // Changes of what has the flag sync, and of a directory with dirsync, are durable when they return.
    Result<void> finish_call(Inode& inode);
    friend class OpenFile;
    explicit FileSystem(std::unique_ptr<Volume> volume);

    // Does it again, a number of times, if there was no space, but some is on its way back: others may be faster at
    // taking it, several times over. Nothing is held here: a deletion in the background may wait for a thaw.
    template <typename Operation>
    auto retry_on_enospc(Operation operation) -> decltype(operation()) {
        constexpr int more_attempts = 16;
        for (int attempt = 0;; ++attempt) {
            const std::uint64_t given_back = volume_->free_count_generation();
            auto done = operation();
            if (done || done.error().code != ENOSPC || attempt == more_attempts) return done;
            if (low_space_callback_) low_space_callback_();
            maps_.detach_files();
            if (!volume_->wait_for_space(given_back)) return done;
        }
    }
    Result<void> check_writable() const;
    // EROFS, or EPERM for what only the file system itself changes: `<8>` names its journal, others attributes' values.
    Result<void> check_changeable(const Inode& inode) const;
    // Where a path leads: `found`, or the last part that does not exist in `directory`.
    struct PathLookup {
        InodeRef directory, found;
        std::string name;
        bool slash = false;
    };
    Result<PathLookup> walk_path(std::string_view path, const Credentials& who, bool follow_last);
    Result<std::unique_ptr<OpenFile>> open_tmpfile(std::string_view path, int flags, mode_t mode,
                                                   const Credentials& who);
    std::unique_ptr<Volume> volume_;
    // Once it was asked for, so that each path does not look for it.
    Mutex root_lock_{Rank::Leaf, "FileSystem::root"};
    std::atomic<bool> has_root_{false};
    InodeRef root_;
    FileMaps maps_;
    std::function<void()> low_space_callback_;
};

}  // namespace uext4
