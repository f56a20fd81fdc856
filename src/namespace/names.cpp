// The checks before an operation on names, the locks around it and the bookkeeping after it.
#include "base/seam.h"
#include "inode/attributes.h"
#include "namespace/entry_inode.h"
#include "namespace/operations.h"

#include <algorithm>
#include <bit>

namespace uext4 {

Namespace::Namespace(FsContext& fs, InodeTable& inodes, OrphanList& orphans)
    : state_(new State{{fs, inodes, orphans}}) {}
Namespace::~Namespace() = default;

Result<InodeRef> Namespace::lookup(Inode& directory, std::string_view name, const Credentials* who) {
    InodeRef found = TRY(find(directory, name, who));
    if (!found) return fail(ENOENT, "no such entry in directory {}", directory.number());
    return found;
}

Result<InodeRef> Namespace::find(Inode& directory, std::string_view name, const Credentials* who) {
    if (!directory.is_directory()) return fail(ENOTDIR, "inode {} is not a directory", directory.number());
    ReadLock lock(directory.rw);
    if (who) TRY(check_access(directory, *who, access_execute));
    TRY(names::check_name(name));
    return with_report(state_->fs, names::find_inode_optional(*state_, directory, name));
}

Result<InodeNr> Namespace::parent_of(Inode& directory) {
    if (!directory.is_directory()) return fail(ENOTDIR, "inode {} is not a directory", directory.number());
    ReadLock lock(directory.rw);
    return with_report(state_->fs, Directory(directory).parent());
}

namespace names {

Result<void> check_name(std::string_view name) {
    if (name.empty()) return fail(ENOENT, "the empty name");
    if (name.size() > name_max) return fail(ENAMETOOLONG, "a name of {} bytes", name.size());
    if (name.find('/') != name.npos || name.find('\0') != name.npos)
        return fail(EINVAL, "a name cannot hold '/' or a zero byte");
    return {};
}

Result<void> check_not_removed(const Inode& directory) {
    if (!directory.is_directory()) return fail(ENOTDIR, "inode {} is not a directory", directory.number());
    if (directory.links() == 0) return fail(ENOENT, "directory {} was removed", directory.number());
    return {};
}

std::uint32_t group_for_new_inode(const FsContext& fs, const Inode& directory, const Credentials& who) {
    return (directory.mode() & S_ISGID) || fs.options.grpid ? directory.gid() : who.gid;
}

Result<void> check_may_create(Inode& directory, const Credentials& who, bool check) {
    if (check) TRY(check_access(directory, who, access_write | access_execute));
    if (directory.has_flag(format::inode_flag::immutable))
        return fail(EPERM, "directory {} is immutable", directory.number());
    return check_can_link(directory);
}

Result<void> check_can_link(const Inode& directory) {
    if (directory.has_flag(format::inode_flag::encrypt))
        return fail(ENOKEY, "directory {} is encrypted, and uext4 has no key to write a name with", directory.number());
    return check_can_unlink(directory);
}

Result<void> check_can_unlink(const Inode& directory) {
    if (directory.has_flag(format::inode_flag::casefold))
        return fail(EOPNOTSUPP, "directory {} is casefolded (flag F): uext4 changes no names there",
                    directory.number());
    if (directory.has_flag(format::inode_flag::encrypt) && directory.is_inline())
        return fail(EOPNOTSUPP, "directory {} is encrypted and in its inode: uext4 changes no names there",
                    directory.number());
    return {};
}

Result<void> check_may_remove(Inode& directory, const Inode& victim, const Credentials& who, bool check) {
    if (check) TRY(check_access(directory, who, access_write | access_execute));
    if (directory.has_flag(format::inode_flag::immutable) || directory.has_flag(format::inode_flag::append))
        return fail(EPERM, "directory {} is immutable or append-only", directory.number());
    if (check && (directory.mode() & S_ISVTX) && who.uid != victim.uid() && who.uid != directory.uid() &&
        !who.capabilities.fowner)
        return fail(EPERM, "directory {} is sticky and inode {} belongs to user {}", directory.number(),
                    victim.number(), victim.uid());
    if (victim.has_flag(format::inode_flag::immutable) || victim.has_flag(format::inode_flag::append))
        return fail(EPERM, "inode {} is immutable or append-only", victim.number());
    return check_can_unlink(directory);
}

bool LockedInodes::holds(const Inode& inode) const {
    return std::ranges::any_of(held_, [&](const auto& entry) { return entry.first == &inode; });
}

void LockedInodes::add(Inode& inode, SourceLocation where) {
    if (holds(inode)) return;
    held_.emplace_back(&inode, UniqueWriteLock::lock_ordered(inode.rw, held_.size() + 1, where));
}

bool LockedInodes::try_add(Inode& inode, SourceLocation where) {
    if (holds(inode)) return true;
    if (!UEXT4_SEAM(directories_are_tried)) {
        add(inode, where);
        return true;
    }
    UniqueWriteLock lock = UniqueWriteLock::try_lock_ordered(inode.rw, held_.size() + 1, where);
    if (!lock) return false;
    held_.emplace_back(&inode, std::move(lock));
    return true;
}

void LockedInodes::wait_for(Inode& inode, SourceLocation where) { const WriteLock until_free(inode.rw, where); }

void LockedInodes::release() {
    while (!held_.empty()) held_.pop_back();
}

Result<InodeRef> get_entry_inode(NamespaceState& state, Inode& directory, std::string_view name, InodeNr number) {
    if (number == directory.number() && !is_dot_or_dotdot(name))
        return fail(EUCLEAN, "directory {}: an entry names the directory itself", directory.number());
    const std::uint64_t first = directory.fs().geometry.first_inode;
    if (number.value < first && number.value != format::special_inode::root)
        return fail(EUCLEAN, "directory {}: an entry names inode {}, which is reserved", directory.number(), number);
    auto inode = state.inodes.get(number);
    if (!inode && inode.error().code == ESTALE)
        return fail(EUCLEAN, "directory {}: an entry names inode {}, which is not in use ({})", directory.number(),
                    number, inode.error().what);
    if (inode) TRY(check_directory_entry_inode(**inode));
    return inode;
}

std::size_t NamespaceState::dentry_cache_slots(const FsContext& fs) {
    return std::bit_floor(std::clamp<std::size_t>(fs.pages.limit() / 4096, 1024, 32768));
}

namespace {

// The number in the name's entry; none where there is no entry.
Result<InodeNr> find_number(NamespaceState& state, Inode& directory, std::string_view name) {
    if (const auto known = state.dentries.find(directory.number(), name)) return *known;
    const auto found = TRY(Directory(directory).find(name));
    const InodeNr number = found ? found->inode : InodeNr();
    // Other names may stand for entries whose own names are not shown.
    if (!has_encrypted_names(directory) && !directory.has_flag(format::inode_flag::casefold))
        state.dentries.insert(directory.number(), name, number);
    return number;
}

}  // namespace

Result<InodeRef> find_inode_optional(NamespaceState& state, Inode& directory, std::string_view name) {
    if (directory.links() == 0) return InodeRef();
    const InodeNr number = TRY(find_number(state, directory, name));
    if (!number) return InodeRef();
    return get_entry_inode(state, directory, name, number);
}

Result<bool> has_name(NamespaceState& state, Inode& directory, std::string_view name) {
    return static_cast<bool>(TRY(find_number(state, directory, name)));
}

Result<InodeRef> find_inode(NamespaceState& state, Inode& directory, std::string_view name) {
    InodeRef found = TRY(find_inode_optional(state, directory, name));
    if (!found) return fail(ENOENT, "no such entry in directory {}", directory.number());
    return found;
}

std::uint8_t type_of_mode(std::uint16_t mode) {
    return format::dt_of_file_type(static_cast<std::uint8_t>(format::file_type_of_mode(mode)));
}

Result<void> get_write_access(Handle& handle, std::initializer_list<Inode*> inodes) {
    for (Inode* inode : inodes) {
        if (!inode) continue;
        MutexLock map(inode->map_lock);
        TRY(inode->get_write_access(handle));
    }
    return {};
}

Result<bool> prepare_drop_link(NamespaceState& state, Handle& handle, Inode& inode) {
    const bool last = inode.is_directory() || inode.links() <= 1;
    if (last) TRY(state.orphans.add(handle, inode));
    return last;
}

Result<void> update_directory_times(Handle& handle, Inode& directory) {
    return update_directory_times(handle, directory, 0);
}

Result<void> update_directory_times(Handle& handle, Inode& directory, int delta) {
    MutexLock map(directory.map_lock);
    const auto now = current_time(directory.fs());
    directory.set_mtime(now);
    directory.set_ctime(now);
    directory.bump_version();
    // A count of 1 says "too many to count" and stays.
    const std::uint32_t links = directory.links();
    if (delta > 0 && links != 1) directory.set_links(links + 1 > link_max ? 1 : links + 1);
    if (delta < 0 && links > 2) directory.set_links(links - 1);
    return directory.store(handle);
}

Result<void> drop_link(NamespaceState& state, Handle& handle, Inode& inode) {
    bool gone;
    {
        MutexLock map(inode.map_lock);
        const std::uint32_t links = inode.links();
        inode.set_links(inode.is_directory() || links == 0 ? 0 : links - 1);
        gone = inode.links() == 0;
        inode.set_ctime(current_time(inode.fs()));
        inode.bump_version();
        TRY(inode.store(handle));
    }
    if (!gone) return {};
    return state.orphans.add(handle, inode);
}

Result<void> add_link(Handle& handle, Inode& inode) {
    MutexLock map(inode.map_lock);
    inode.set_links(inode.is_directory() ? 2 : inode.links() + 1);
    inode.set_ctime(current_time(inode.fs()));
    inode.bump_version();
    return inode.store(handle);
}

Result<void> change_ctime(Handle& handle, Inode& inode) {
    MutexLock map(inode.map_lock);
    inode.set_ctime(current_time(inode.fs()));
    inode.bump_version();
    return inode.store(handle);
}

void undo_create(NamespaceState& state, Handle& handle, Inode& inode) {
    if (auto added = state.orphans.add(handle, inode); !added && state.fs.log)
        state.fs.log(
            fmt::format("inode {} could not be recorded as an orphan: {}", inode.number(), added.error().what));
}

Result<void> check_subdirectory_limit(const Inode& directory) {
    // Only an indexed directory may have more subdirectories than can be counted: e2fsck wants the others' count right.
    const format::Geometry& g = directory.fs().geometry;
    const bool countless = g.has_ro_compat(format::ro_compat::dir_nlink) && g.has_compat(format::compat::dir_index) &&
                           directory.has_flag(format::inode_flag::index);
    if (directory.links() >= link_max && !countless)
        return fail(EMLINK, "directory {} has {} links", directory.number(), directory.links());
    return {};
}

}  // namespace names
}  // namespace uext4
