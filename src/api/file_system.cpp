#include "api/file_system.h"

#include "api/change_guard.h"
#include "api/transfer_buffer.h"
#include "base/seam.h"
#include "device/open_device.h"
#include "device/slice_device.h"
#include "inode/superblock.h"
#include "inode/system_inode.h"
#include "inode/xattr.h"
#include "namespace/dir_layouts.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/posix_acl_xattr.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cstring>

namespace uext4 {

Result<std::unique_ptr<FileSystem>> FileSystem::mount(const std::string& image, std::string_view options,
                                                      LogCallback log) {
    const VolumeOptions o = TRY(parse_all_options(options));
    FileDeviceOptions device;
    device.writable = !o.fs.read_only;
    device.offset = o.offset;
    std::shared_ptr<BlockDevice> opened = TRY(open_device(image, device));
    return mount_device(std::move(opened), o, std::move(log));
}

Result<std::unique_ptr<FileSystem>> FileSystem::mount_device(std::shared_ptr<BlockDevice> device,
                                                             const VolumeOptions& options, LogCallback log) {
    std::unique_ptr<Volume> volume = TRY(Volume::open(std::move(device), options, std::move(log)));
    return std::unique_ptr<FileSystem>(new FileSystem(std::move(volume)));
}

FileSystem::FileSystem(std::unique_ptr<Volume> volume) : volume_(std::move(volume)), maps_(*volume_) {
    // What stores leave from then on would be lost, and nobody be told.
    volume_->set_read_only_callback([this] { maps_.end_stores(); });
}

FileSystem::~FileSystem() {
    volume_->set_read_only_callback({});
    if (volume_->gate().is_closed()) (void)volume_->thaw();  // the maps' helper may wait for it
}

Result<void> FileSystem::unmount() {
    TRY(maps_.check_can_stop());
    // What files without maps are held for waits for the thaw.
    Result<void> thawed;
    if (volume_->gate().is_closed()) thawed = thaw();
    TRY(maps_.stop());
    has_root_.store(false);
    root_.reset();
    Result<void> closed = volume_->close();
    return closed ? thawed : closed;
}

// Whether it has gone well or not: where the gate is open, stores that waited go on, or end.
Result<void> FileSystem::freeze() {
    if (!volume_->gate().is_closed()) maps_.detach_files();  // what was removed is not there any more
    // Also where memory runs out.
    struct Resumes {
        FileMaps& maps;
        bool frozen = false;
        ~Resumes() {
            if (!frozen) maps.resume();
        }
    } stores{maps_};
    Result<void> done = volume_->freeze();
    stores.frozen = done.has_value();
    return done;
}

Result<void> FileSystem::thaw() {
    Result<void> done = volume_->thaw();
    maps_.resume();
    return done;
}

Result<void> FileSystem::check_writable() const {
    if (!volume_->read_only()) return {};
    return fail(EROFS, "the file system is read-only");
}

Result<void> FileSystem::check_changeable(const Inode& inode) const {
    TRY(check_writable());
    if (!is_system_inode(inode)) return {};
    return fail(EPERM, "inode {} belongs to the file system itself and cannot be changed", inode.number());
}

namespace {

// Where nothing can be written, a name that is to be made is looked at all the same: as in the kernel, what is wrong
// with it, and that it is there, is told first. What is to be taken away is not looked for.
Result<void> name_is_free(Volume& volume, Inode& directory, std::string_view name) {
    if (!volume.read_only()) return {};
    const Result<InodeRef> there = volume.names().lookup(directory, name, nullptr);
    if (there) return fail(EEXIST, "the name exists in directory {}", directory.number());
    return there.error().code == ENOENT ? Result<void>() : fail(there.error());
}

Result<void> may_be_renamed(std::string_view from, std::string_view to, unsigned flags) {
    if (is_dot_or_dotdot(from)) return fail(EBUSY, "\".\" and \"..\" cannot be renamed");
    if (is_dot_or_dotdot(to))
        return fail(flags & RENAME_NOREPLACE ? EEXIST : EBUSY, "\".\" and \"..\" cannot be replaced");
    return {};
}

// Nobody here has a key. Blocks that are kept for group descriptors are mapped in a form of its own.
Result<void> has_contents(const Inode& inode) {
    if (inode.is_regular() && inode.has_flag(format::inode_flag::encrypt))
        return fail(ENOKEY, "inode {} is encrypted", inode.number());
    if (inode.number().value != format::special_inode::resize) return {};
    return fail(EPERM, "inode {} holds the blocks for more group descriptors, and no bytes", inode.number());
}

// ENOKEY, EPERM: what encryption or verity protects stays as it is.
Result<void> has_writable_contents(const Inode& inode) {
    TRY(has_contents(inode));
    if (!inode.has_flag(format::inode_flag::verity)) return {};
    return fail(EPERM, "inode {} is sealed by verity (flag V): its contents cannot change", inode.number());
}

}  // namespace

Result<InodeRef> FileSystem::root() {
    if (has_root_.load(std::memory_order_acquire)) return root_;
    InodeRef found = TRY(volume_->inodes().get(InodeNr(format::special_inode::root)));
    MutexLock guard(root_lock_);
    if (has_root_.load(std::memory_order_relaxed)) return root_;
    root_ = found;
    has_root_.store(true, std::memory_order_release);
    return found;
}
Result<InodeRef> FileSystem::inode(InodeNr number, bool unlinked) {
    volume_->shrink_inodes();
    return volume_->inodes().get(number, unlinked);
}

Result<InodeRef> FileSystem::lookup(Inode& directory, std::string_view name, const Credentials& who, bool check) {
    volume_->shrink_inodes();
    return volume_->names().lookup(directory, name, check ? &who : nullptr);
}

Result<InodeRef> FileSystem::find(Inode& directory, std::string_view name, const Credentials& who, bool check) {
    volume_->shrink_inodes();
    return volume_->names().find(directory, name, check ? &who : nullptr);
}

std::uint64_t FileSystem::unreserved_dirty_bytes(Inode& inode) { return uext4::inode_unreserved_dirty_bytes(inode); }

Result<struct stat> FileSystem::attributes(Inode& inode) {
    struct stat out{};
    inode.fill_stat(out);
    return out;
}

std::optional<format::Timestamp> FileSystem::birth_time(Inode& inode) {
    MutexLock guard(inode.map_lock);
    return inode.crtime();
}

Result<void> FileSystem::set_attributes(Inode& inode, const AttributeChange& change, const Credentials& who,
                                        bool check) {
    TRY(check_changeable(inode));
    std::optional<ChangeGuard> pass;
    if (UEXT4_SEAM(setattr_waits_for_thaw)) pass.emplace(maps_);
    {
        WriteLock guard(inode.rw);
        TRY(apply_attribute_change(inode, change, who, check));
    }
    return finish_call(inode);
}

Result<void> FileSystem::remove_suid(Inode& inode, const Credentials& who) {
    TRY(check_writable());
    ChangeGuard pass(maps_);
    WriteLock guard(inode.rw);
    return uext4::file_remove_privs(inode, who);
}

Result<void> FileSystem::truncate(Inode& inode, std::uint64_t size, const Credentials& who, bool check) {
    if (inode.is_directory()) return fail(EISDIR, "inode {} is a directory", inode.number());
    if (!inode.is_regular()) return fail(EINVAL, "inode {} is no regular file", inode.number());
    TRY(check_changeable(inode));
    if (check) TRY(check_access(inode, who, access_write));
    if (inode.has_flag(format::inode_flag::immutable) || inode.has_flag(format::inode_flag::append))
        return fail(EPERM, "inode {} is immutable or append-only", inode.number());
    TRY(has_writable_contents(inode));
    const UniqueWriteLock call = check ? UniqueWriteLock(inode.call_lock) : UniqueWriteLock();
    return retry_on_enospc([&]() -> Result<void> {
        ChangeGuard pass(maps_);
        TRY(truncate_file(inode, size, volume_->orphans(), &who));
        return finish_call(inode);
    });
}

Result<std::uint64_t> FileSystem::trim(std::uint64_t least) {
    TRY(check_writable());
    ChangeGuard pass(maps_);
    const format::Geometry& g = volume_->geometry();
    const std::uint64_t longest = std::uint64_t{g.blocks_per_group} * g.block_size;
    if (least > longest)
        return fail(EINVAL, "no free run of a group is {} bytes long, but {} at the most", least, longest);
    return volume_->fs().allocator.trim(std::max<std::uint64_t>(1, divide_up(least, g.block_size)));
}

Result<void> FileSystem::finish_call(Inode& inode) {
    const VolumeOptions& o = volume_->options();
    const bool wanted = o.sync || inode.has_flag(format::inode_flag::sync) ||
                        (inode.is_directory() && (o.dirsync || inode.has_flag(format::inode_flag::dirsync)));
    return wanted ? sync_file(inode, false) : Result<void>();
}

Result<InodeRef> FileSystem::create(Inode& directory, std::string_view name, mode_t mode, dev_t rdev,
                                    std::string_view target, const Credentials& who, bool check) {
    TRY(name_is_free(*volume_, directory, name));
    TRY(check_changeable(directory));
    return retry_on_enospc([&]() -> Result<InodeRef> {
        ChangeGuard pass(maps_);
        InodeRef made = TRY(volume_->names().create(directory, CreateRequest{name, mode, rdev, target, who}, check));
        TRY(finish_call(directory));
        return made;
    });
}

Result<InodeRef> FileSystem::create_tmpfile(Inode& directory, mode_t mode, int flags, const Credentials& who,
                                            bool check) {
    TRY(check_changeable(directory));
    return retry_on_enospc([&]() -> Result<InodeRef> {
        ChangeGuard pass(maps_);
        InodeRef made = TRY(volume_->names().create_tmpfile(directory, CreateRequest{{}, mode, 0, {}, who}, check));
        if (flags & O_EXCL) made->is_tmpfile.store(false);  // never to have a name
        return made;
    });
}

Result<void> FileSystem::link(Inode& target, Inode& directory, std::string_view name, const Credentials& who,
                              bool check) {
    TRY(name_is_free(*volume_, directory, name));
    TRY(check_changeable(target));
    TRY(check_changeable(directory));
    return retry_on_enospc([&]() -> Result<void> {
        ChangeGuard pass(maps_);
        TRY(volume_->names().link(target, directory, name, who, check));
        return finish_call(directory);
    });
}

Result<void> FileSystem::unlink(Inode& directory, std::string_view name, const Credentials& who, bool check) {
    if (is_dot_or_dotdot(name)) return fail(EISDIR, "\".\" and \"..\" are directories");
    TRY(check_changeable(directory));
    ChangeGuard pass(maps_);
    TRY(volume_->names().unlink(directory, name, who, check));
    return finish_call(directory);
}

Result<void> FileSystem::rmdir(Inode& directory, std::string_view name, const Credentials& who, bool check) {
    if (name == ".") return fail(EINVAL, "\".\" cannot be removed");
    if (name == "..") return fail(ENOTEMPTY, "\"..\" cannot be removed");
    TRY(check_changeable(directory));
    ChangeGuard pass(maps_);
    TRY(volume_->names().rmdir(directory, name, who, check));
    return finish_call(directory);
}

Result<void> FileSystem::rename(Inode& from_dir, std::string_view from, Inode& to_dir, std::string_view to,
                                unsigned flags, const Credentials& who, bool check, TrailingSlash slashes) {
    TRY(may_be_renamed(from, to, flags));
    TRY(check_changeable(from_dir));
    TRY(check_changeable(to_dir));
    auto flush = [this](Inode& inode) -> Result<void> {
        return volume_->options().fs.auto_da_alloc && inode.is_regular() ? write_back(inode) : Result<void>();
    };
    return retry_on_enospc([&]() -> Result<void> {
        ChangeGuard pass(maps_);
        TRY(volume_->names().rename(from_dir, from, to_dir, to, flags, who, check, flush, slashes));
        TRY(finish_call(from_dir));
        return finish_call(to_dir);
    });
}

Result<std::string> FileSystem::read_link(Inode& inode) {
    std::string target = TRY(volume_->names().read_link(inode));
    update_atime(inode);
    volume_->shrink_inodes();
    return target;
}

Result<void> FileSystem::read_directory(Inode& directory, std::uint64_t cookie,
                                        const std::function<bool(const DirectoryEntry&)>& visit, int flags) {
    TRY(volume_->names().read(directory, cookie, visit));
    if (!(flags & O_NOATIME)) update_atime(directory);
    volume_->shrink_inodes();
    return {};
}

Result<std::unique_ptr<OpenFile>> FileSystem::open(const InodeRef& inode, int flags, const Credentials& who,
                                                   bool check) {
    const int mode = flags & O_ACCMODE;
    const bool writes = mode != O_RDONLY;
    if (inode->is_directory() && (writes || (flags & O_TRUNC)))
        return fail(EISDIR, "inode {} is a directory", inode->number());
    if ((flags & O_DIRECTORY) && !inode->is_directory())
        return fail(ENOTDIR, "inode {} is no directory", inode->number());
    if (inode->is_symlink() && !(flags & O_PATH)) return fail(ELOOP, "inode {} is a symbolic link", inode->number());
    if (inode->is_regular() && (writes || (flags & O_TRUNC))) TRY(check_changeable(*inode));
    TRY(has_contents(*inode));
    if (check)
        TRY(check_access(*inode, who,
                         (mode != O_WRONLY ? access_read : 0) | (writes || (flags & O_TRUNC) ? access_write : 0)));
    if (writes && inode->has_flag(format::inode_flag::immutable))
        return fail(EPERM, "inode {} is immutable", inode->number());
    if (inode->has_flag(format::inode_flag::append) && ((writes && !(flags & O_APPEND)) || (flags & O_TRUNC)))
        return fail(EPERM, "inode {} is append-only", inode->number());
    if (inode->is_regular() && (writes || (flags & O_TRUNC))) TRY(has_writable_contents(*inode));
    if ((flags & O_NOATIME) && check && !is_owner_or_capable(*inode, who))
        return fail(EPERM, "inode {}: O_NOATIME is for the owner", inode->number());
    if (!inode->is_regular() && !inode->is_directory() && !inode->is_symlink())
        return fail(ENXIO, "inode {} is a special file", inode->number());
    if ((flags & O_DIRECT) && inode->is_directory())
        return fail(EINVAL, "inode {} is a directory: O_DIRECT is for files", inode->number());
    std::unique_ptr<OpenFile> file(new OpenFile(*this, inode, flags, who));
    if ((flags & O_TRUNC) && inode->is_regular()) {
        const UniqueWriteLock call = check ? UniqueWriteLock(inode->call_lock) : UniqueWriteLock();
        ChangeGuard pass(maps_);
        TRY(truncate_file(*inode, 0, volume_->orphans(), &who));
        TRY(finish_call(*inode));
    }
    return file;
}

std::uint32_t FileSystem::get_flags(Inode& inode) { return get_user_flags(inode); }

Result<void> FileSystem::set_flags(Inode& inode, std::uint32_t flags, const Credentials& who, bool check) {
    TRY(check_changeable(inode));
    const bool extents = (flags & format::inode_flag::extents) != 0;
    // Who saw the contents in the inode saw no kind of map, and asks for none: they may have left it since.
    const bool any_map = !extents && (flags & format::inode_flag::inline_data) != 0;
    {
        ChangeGuard pass(maps_);
        const bool journal = (flags & format::inode_flag::journal_data) != 0;
        const bool switches = journal != inode.has_flag(format::inode_flag::journal_data);
        if (switches && !who.capabilities.sys_resource) return fail(EPERM, "the flag j needs CAP_SYS_RESOURCE");
        {
            WriteLock guard(inode.rw);
            TRY(set_user_flags(inode, flags, who, check));
            if (flags & format::inode_flag::immutable) TRY(write_protect_file(inode));
        }
        if (switches) TRY(set_journal_flag(inode, journal));
        TRY(finish_call(inode));
    }
    if (any_map || inode.has_flag(format::inode_flag::extents) == extents) return {};
    if (inode.has_flag(format::inode_flag::verity))
        return fail(EOPNOTSUPP, "inode {} is sealed by verity (flag V): its map cannot change", inode.number());
    return retry_on_enospc([&]() -> Result<void> {
        ChangeGuard pass(maps_);
        TRY(set_extents_flag(inode, extents, may_use_reserved_blocks(volume_->fs(), who)));
        return finish_call(inode);
    });
}

Result<void> FileSystem::access(Inode& inode, int mask, const Credentials& who) {
    if (mask & ~(R_OK | W_OK | X_OK)) return fail(EINVAL, "access mask {:#x}", mask);
    return check_access(inode, who, mask);
}

Result<void> FileSystem::extents(Inode& inode, std::uint64_t offset, std::uint64_t length,
                                 const std::function<bool(const Mapping&)>& visit) {
    TRY(has_contents(inode));
    return for_each_extent(inode, offset, length, visit);
}

Result<std::size_t> FileSystem::copy_range(OpenFile& from, std::uint64_t from_offset, OpenFile& to,
                                           std::uint64_t to_offset, std::size_t length, const Credentials* who) {
    if (from.inode().is_directory() || to.inode().is_directory()) return fail(EISDIR, "a directory has no bytes");
    if (!from.inode().is_regular() || !to.inode().is_regular()) return fail(EINVAL, "only regular files are copied");
    if ((from.flags() & O_ACCMODE) == O_WRONLY || (to.flags() & O_ACCMODE) == O_RDONLY || (to.flags() & O_APPEND))
        return fail(EBADF, "the source is not open for reading, or the target not for writing at an offset");
    if (to.inode().has_flag(format::inode_flag::immutable))
        return fail(EPERM, "inode {} is immutable", to.inode().number());
    const std::uint64_t size = from.inode().size_hint();
    length = std::min<std::uint64_t>(length, size > from_offset ? size - from_offset : 0);
    if (const std::uint64_t most = volume_->geometry().max_extent_file_size; to_offset >= most)
        return fail(EFBIG, "inode {}: a copy to {}, at most {}", to.inode().number(), to_offset, most);
    if (&from.inode() == &to.inode() && from_offset < to_offset + length && to_offset < from_offset + length)
        return fail(EINVAL, "inode {}: the ranges overlap", from.inode().number());
    const TransferBuffer room(length);
    std::vector<std::byte> buffer(room.size());
    std::size_t done = 0;
    while (done < length) {
        const Result<std::size_t> read =
            from.read(from_offset + done, Bytes(buffer).first(std::min(buffer.size(), length - done)));
        if (!read && done) return done;
        const std::size_t n = TRY(read);
        if (n == 0) break;
        Result<std::size_t> written = to.write(to_offset + done, ConstBytes(buffer).first(n), who);
        if (!written) {
            if (done) return done;
            return fail(written.error());
        }
        done += *written;
        if (*written < n) break;
    }
    return done;
}

Result<void> FileSystem::sync() { return volume_->sync(); }

Result<struct statvfs> FileSystem::statistics() {
    if (!volume_->gate().is_closed()) maps_.detach_files();  // what was removed counts as free
    struct statvfs out{};
    const format::Geometry& g = volume_->geometry();
    const SpaceCounts counts = volume_->counts();
    out.f_bsize = out.f_frsize = g.block_size;
    out.f_blocks = g.blocks_count - std::min(g.blocks_count, volume_->overhead_blocks());
    out.f_bfree = counts.free_blocks;
    out.f_bavail = counts.available_blocks;
    out.f_files = counts.inodes;
    out.f_ffree = out.f_favail = counts.free_inodes;
    out.f_namemax = format::max_name_length;
    std::uint64_t id[2] = {};
    std::memcpy(id, g.uuid.data(), sizeof id);
    out.f_fsid = id[0] ^ id[1];
    if (volume_->read_only()) out.f_flag |= ST_RDONLY;
    return out;
}

Result<std::string> FileSystem::label() {
    const format::SuperBlock super = TRY(read_superblock(volume_->fs()));
    return std::string(super.volume_name, ::strnlen(super.volume_name, sizeof super.volume_name));
}

Result<void> FileSystem::set_label(std::string_view label) {
    TRY(check_writable());
    if (label.size() > sizeof(format::SuperBlock::volume_name))
        return fail(EINVAL, "a label has at most 16 bytes, not {}", label.size());
    ChangeGuard pass(maps_);
    Handle handle = TRY(volume_->fs().journal.start(1));
    return update_superblock(volume_->fs(), handle, [&](format::SuperBlock& super) {
        std::memset(super.volume_name, 0, sizeof super.volume_name);
        std::memcpy(super.volume_name, label.data(), label.size());
    });
}

}  // namespace uext4
