// Reading a directory.
#include "inode/attributes.h"
#include "namespace/operations.h"

namespace uext4 {

namespace {

constexpr std::int64_t relatime_seconds = 24 * 60 * 60;

bool atime_is_stale(const Inode& directory, format::Timestamp now) {
    const FsOptions& options = directory.fs().options;
    if (options.atime == AtimePolicy::never || options.nodiratime || directory.fs().read_only.load()) return false;
    if (directory.has_flag(format::inode_flag::noatime)) return false;
    const format::Timestamp atime = directory.atime();
    if (options.atime == AtimePolicy::strict) return atime != now;
    return atime <= directory.mtime() || atime <= directory.ctime() || now.sec - atime.sec >= relatime_seconds;
}

// A time alone is no reason for a handle: it is stored with the next change, or at the next sync.
void note_access(Inode& directory) {
    const format::Timestamp now = current_time();
    MutexLock map(directory.map_lock);
    if (!atime_is_stale(directory, now)) return;
    directory.set_atime(now);
    directory.note_times_pending();
}

}  // namespace

Result<void> Namespace::read(Inode& directory, std::uint64_t cookie,
                             const std::function<bool(const DirectoryEntry&)>& visit) {
    if (!directory.is_directory()) return fail(ENOTDIR, "inode {} is not a directory", directory.number());
    ReadLock lock(directory.rw);
    if (directory.links() == 0) return fail(ENOENT, "directory {} was removed", directory.number());
    const auto pass_on = [&](const Directory::Visited& entry) {
        return visit(DirectoryEntry{entry.name, entry.inode, entry.type, entry.next, entry.odd_type});
    };
    TRY(reported(state_->fs, Directory(directory).iterate(cookie, pass_on)));
    note_access(directory);
    return {};
}

}  // namespace uext4
