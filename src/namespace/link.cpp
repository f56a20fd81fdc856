// Another name for a file; the first one for an unnamed file.
#include "namespace/operations.h"

namespace uext4 {

namespace {

using names::LockedInodes;

Result<void> check_target(const Inode& target) {
    if (target.has_flag(format::inode_flag::immutable) || target.has_flag(format::inode_flag::append))
        return fail(EPERM, "inode {} is immutable or append-only", target.number());
    if (target.links() == 0 && !target.is_tmpfile.load()) return fail(ENOENT, "inode {} was removed", target.number());
    if (target.links() >= names::link_max)
        return fail(EMLINK, "inode {} has {} links", target.number(), target.links());
    return {};
}

Result<void> link_locked(names::NamespaceState& state, Inode& target, Inode& directory, std::string_view name,
                         const Credentials& who, bool check, LockedInodes& locks) {
    locks.add(directory);
    TRY(names::check_not_removed(directory));
    Directory entries(directory);
    if (TRY(names::has_name(state, directory, name)))
        return fail(EEXIST, "the name exists in directory {}", directory.number());
    TRY(names::check_may_create(directory, who, check));
    if (target.is_directory()) return fail(EPERM, "inode {} is a directory: no second name", target.number());
    locks.add(target);
    TRY(check_target(target));

    Handle handle =
        TRY(state.fs.journal.start(entries.add_credits() + OrphanList::credits() + 3 * Inode::store_credits()));
    TRY(names::get_write_access(handle, {&directory, &target}));
    const bool orphan = target.links() == 0;
    if (orphan) TRY(state.orphans.remove(handle, target));
    state.dentries.erase(directory.number(), name);
    if (Result<void> added = entries.add(handle, name, target.number(), names::type_of_mode(target.mode()),
                                         may_use_reserved_blocks(state.fs, who));
        !added) {
        if (orphan) names::undo_create(state, handle, target);
        return added;
    }
    if (orphan) target.is_tmpfile.store(false);
    TRY(names::add_link(handle, target));
    return names::update_directory_times(handle, directory);
}

}  // namespace

Result<void> Namespace::link(Inode& target, Inode& directory, std::string_view name, const Credentials& who,
                             bool check) {
    TRY(names::check_name(name));
    if (names::is_dot_or_dotdot(name)) return fail(EEXIST, "\".\" and \"..\" exist");
    LockedInodes locks;
    return with_report(state_->fs, link_locked(*state_, target, directory, name, who, check, locks));
}

}  // namespace uext4
