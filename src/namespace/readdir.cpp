// Reading a directory.
#include "namespace/operations.h"

namespace uext4 {

Result<void> Namespace::read(Inode& directory, std::uint64_t cookie,
                             const std::function<bool(const DirectoryEntry&)>& visit) {
    if (!directory.is_directory()) return fail(ENOTDIR, "inode {} is not a directory", directory.number());
    ReadLock lock(directory.rw);
    if (directory.links() == 0) return fail(ENOENT, "directory {} was removed", directory.number());
    const auto pass_on = [&](const Directory::Entry& entry) {
        return visit(DirectoryEntry{entry.name, entry.inode, entry.type, entry.next_cookie, entry.has_wrong_type});
    };
    return with_report(state_->fs, Directory(directory).iterate(cookie, pass_on));
}

}  // namespace uext4
