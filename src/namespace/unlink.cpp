// Taking names away. What has no name left becomes an orphan in the same handle; its last reference deletes it.
#include "base/seam.h"
#include "namespace/operations.h"

namespace uext4 {

namespace {

using names::LockedInodes;

enum class Removal { done, victim_is_busy };

Result<Removal> remove_name(names::NamespaceState& state, Inode& directory, std::string_view name,
                            const Credentials& who, bool check, bool want_directory, InodeRef& victim,
                            LockedInodes& locks) {
    locks.add(directory);
    TRY(names::check_not_removed(directory));
    Directory entries(directory);
    auto place = TRY(entries.locate(name));
    if (!place) return fail(ENOENT, "no such entry in directory {}", directory.number());
    victim = TRY(names::get_entry_inode(state, directory, name, place->entry.inode));
    if (victim.get() == &directory)
        return fail(EUCLEAN, "directory {}: an entry names the directory itself", directory.number());
    TRY(names::check_may_remove(directory, *victim, who, check));
    if (want_directory && !victim->is_directory())
        return fail(ENOTDIR, "inode {} is not a directory", victim->number());
    if (!want_directory && victim->is_directory()) return fail(EISDIR, "inode {} is a directory", victim->number());
    if (UEXT4_SEAM(removal_locks_victim)) {
        if (!want_directory) locks.add(*victim);
        else if (!locks.try_add(*victim)) return Removal::victim_is_busy;
    }
    if (want_directory && !TRY(Directory(*victim).is_empty()))
        return fail(ENOTEMPTY, "directory {} is not empty", victim->number());

    Handle handle =
        TRY(state.fs.journal.start(entries.change_credits() + OrphanList::credits() + 3 * Inode::store_credits()));
    TRY(names::get_write_access(handle, {&directory, victim.get()}));
    const PinnedEntry entry = TRY(entries.pin(handle, name, std::move(*place)));
    (void)TRY(names::prepare_drop_link(state, handle, *victim));
    state.dentries.erase(directory.number(), name);
    TRY(entries.remove(handle, entry));
    TRY(names::update_directory_times(handle, directory, want_directory ? -1 : 0));
    TRY(names::drop_link(state, handle, *victim));
    return Removal::done;
}

}  // namespace

Result<void> Namespace::unlink(Inode& directory, std::string_view name, const Credentials& who, bool check) {
    TRY(names::check_name(name));
    if (names::is_dot_or_dotdot(name)) return fail(EISDIR, "\".\" and \"..\" are directories");
    InodeRef victim;  // dropped after the locks: the last reference queues the deletion
    LockedInodes locks;
    (void)TRY(with_report(state_->fs, remove_name(*state_, directory, name, who, check, false, victim, locks)));
    return {};
}

Result<void> Namespace::rmdir(Inode& directory, std::string_view name, const Credentials& who, bool check) {
    TRY(names::check_name(name));
    if (name == ".") return fail(EINVAL, "\".\" cannot be removed");
    if (name == "..") return fail(ENOTEMPTY, "\"..\" cannot be removed");
    for (;;) {
        InodeRef victim;
        {
            LockedInodes locks;
            if (TRY(with_report(state_->fs, remove_name(*state_, directory, name, who, check, true, victim, locks))) ==
                Removal::done)
                return {};
        }
        LockedInodes::wait_for(*victim);
    }
}

}  // namespace uext4
