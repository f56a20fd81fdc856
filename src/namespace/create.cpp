// Making files, directories, links and nodes.
#include "inode/acl.h"
#include "namespace/operations.h"
#include "namespace/symlink.h"

namespace uext4 {

namespace {

using names::LockedInodes;

// What the new inode is to be: owner, group, mode after the directory's set-gid bit and the caller's rights.
struct Plan {
    NewInode what;
    bool privileged = false;
};

Plan plan_for(FsContext& fs, Inode& directory, const CreateRequest& request) {
    Plan plan;
    plan.privileged = may_use_reserved_blocks(fs, request.credentials);
    plan.what.parent = directory.number();
    plan.what.uid = request.credentials.uid;
    plan.what.gid = names::group_for_new_inode(fs, directory, request.credentials);
    plan.what.rdev = S_ISCHR(request.mode) || S_ISBLK(request.mode) ? request.rdev : 0;
    plan.what.inherited_flags = directory.flags();
    mode_t mode = request.mode & (S_IFMT | 07777);
    const bool set_gid = (directory.mode() & S_ISGID) != 0;
    if (set_gid && S_ISDIR(mode)) mode |= S_ISGID;
    // A program that is to run with the directory's group must be made by a member of it.
    if (set_gid && !S_ISDIR(mode) && (mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
        !request.credentials.in_group(plan.what.gid) && !request.credentials.capabilities.fsetid)
        mode &= ~static_cast<mode_t>(S_ISGID);
    if (S_ISLNK(mode)) mode = S_IFLNK | 0777;
    plan.what.mode = static_cast<std::uint16_t>(mode);
    return plan;
}

Result<void> check_request(const FsContext& fs, const CreateRequest& request, bool check) {
    // The node 0:0 is a whiteout, which gives access to no device.
    const bool device = S_ISCHR(request.mode) || S_ISBLK(request.mode);
    if (check && device && !(S_ISCHR(request.mode) && request.rdev == 0) && !request.credentials.capabilities.mknod)
        return fail(EPERM, "user {} may not make device nodes", request.credentials.uid);
    switch (request.mode & S_IFMT) {
        case S_IFREG:
        case S_IFDIR:
        case S_IFCHR:
        case S_IFBLK:
        case S_IFIFO:
        case S_IFSOCK: return {};
        case S_IFLNK: return check_symlink_target(fs, request.target);
        default: return fail(EINVAL, "mode {:o} has no known file type", request.mode);
    }
}

// Contents and attributes of the new inode; it has no name yet.
Result<void> fill(Handle& handle, Inode& directory, Inode& fresh, const CreateRequest& request, const Plan& plan) {
    TRY(inherit_acl(handle, directory, fresh, request.credentials));
    if (fresh.is_directory()) return Directory(fresh).initialise(handle, directory.number(), plan.privileged);
    if (fresh.is_symlink()) return write_symlink(handle, fresh, request.target, plan.privileged);
    return {};
}

// The new inode and its contents; its name is extra.
unsigned inode_credits(Inode& directory) {
    return InodeTable::create_credits() + acl_inherit_credits(directory) + symlink_credits(directory) +
           OrphanList::credits() + 4 * Inode::store_credits();
}

Result<void> create_locked(names::NamespaceState& state, Inode& directory, const CreateRequest& request, bool check,
                           InodeRef& fresh, LockedInodes& locks) {
    locks.add(directory);
    TRY(names::check_not_removed(directory));
    Directory entries(directory);
    if (TRY(names::has_name(state, directory, request.name)))
        return fail(EEXIST, "the name exists in directory {}", directory.number());
    TRY(names::check_may_create(directory, request.credentials, check));
    TRY(check_request(state.fs, request, check));
    if (S_ISDIR(request.mode)) TRY(names::check_subdirectory_limit(directory));

    const Plan plan = plan_for(state.fs, directory, request);
    Handle handle = TRY(state.fs.journal.start(inode_credits(directory) + entries.add_credits()));
    TRY(names::get_write_access(handle, {&directory}));
    fresh = TRY(state.inodes.create(handle, plan.what));
    auto made = fill(handle, directory, *fresh, request, plan);
    state.dentries.erase(directory.number(), request.name);
    if (made)
        made = entries.add(handle, request.name, fresh->number(), names::type_of_mode(fresh->mode()), plan.privileged);
    if (!made) {
        names::undo_create(state, handle, *fresh);
        return made;
    }
    state.dentries.insert(directory.number(), request.name, fresh->number());
    TRY(names::add_link(handle, *fresh));
    return names::update_directory_times(handle, directory, fresh->is_directory() ? 1 : 0);
}

Result<void> create_unnamed_locked(names::NamespaceState& state, Inode& directory, const CreateRequest& request,
                                   bool check, InodeRef& fresh, LockedInodes& locks) {
    locks.add(directory);
    // Unlike a name, for which the directory has to be there.
    if (directory.links() == 0) return fail(EPERM, "directory {} was removed", directory.number());
    TRY(names::check_not_removed(directory));
    if (!S_ISREG(request.mode)) return fail(EINVAL, "an unnamed file must be a regular one");
    if (check) TRY(check_access(directory, request.credentials, access_write | access_execute));
    // Its contents would be encrypted.
    if (has_encrypted_names(directory)) TRY(names::check_can_link(directory));

    const Plan plan = plan_for(state.fs, directory, request);
    Handle handle = TRY(state.fs.journal.start(inode_credits(directory)));
    fresh = TRY(state.inodes.create(handle, plan.what));
    const auto made = fill(handle, directory, *fresh, request, plan);
    TRY(state.orphans.add(handle, *fresh));
    if (made) fresh->is_tmpfile.store(true);
    return made;
}

}  // namespace

Result<InodeRef> Namespace::create(Inode& directory, const CreateRequest& request, bool check) {
    TRY(names::check_name(request.name));
    if (names::is_dot_or_dotdot(request.name)) return fail(EEXIST, "\".\" and \"..\" exist");
    InodeRef fresh;  // dropped after the locks
    {
        LockedInodes locks;
        TRY(with_report(state_->fs, create_locked(*state_, directory, request, check, fresh, locks)));
    }
    return fresh;
}

Result<InodeRef> Namespace::create_tmpfile(Inode& directory, const CreateRequest& request, bool check) {
    InodeRef fresh;
    {
        LockedInodes locks;
        TRY(with_report(state_->fs, create_unnamed_locked(*state_, directory, request, check, fresh, locks)));
    }
    return fresh;
}

}  // namespace uext4
