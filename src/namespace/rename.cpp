// Rename. The locks, outer to inner: Topology when the directories differ; the two directories, an ancestor first, else
// by number; then what moves and what is replaced, directories before others, by number. Under Topology no directory
// changes its parent, so what was an ancestor before the locks still is. Only the second of the two directories is
// waited for with another one held; and as nobody else who holds one waits for one, that is so whatever a damaged image
// says.
#include "base/seam.h"
#include "inode/acl.h"
#include "namespace/operations.h"

#include <dirent.h>
#include <linux/fs.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <unordered_set>

namespace uext4 {

namespace {

using names::LockedInodes;

// The numbers from `start` (included) up to the root.
using Ancestry = std::unordered_set<std::uint64_t>;
using References = std::vector<InodeRef>;

constexpr std::uint64_t root_number = 2;

// Topology held and nothing of rank Inode. What it refers to goes to `kept`: no last reference may go under a lock.
Result<Ancestry> ancestry_of(names::NamespaceState& state, Inode& start, References& kept) {
    Ancestry seen{start.number().value};
    Inode* directory = &start;
    while (directory->number().value != root_number) {
        InodeNr parent;
        {
            ReadLock lock(directory->rw);
            if (directory->links() == 0) return fail(ENOENT, "directory {} was removed", directory->number());
            parent = TRY(Directory(*directory).parent());
        }
        if (!seen.insert(parent.value).second)
            return fail(EUCLEAN, "directory {}: entry \"..\" names inode {}, its own descendant", directory->number(),
                        parent);
        InodeRef next = TRY(names::get_entry_inode(state, *directory, "..", parent));
        if (!next->is_directory())
            return fail(EUCLEAN, "directory {}: entry \"..\" names inode {}, not a directory", directory->number(),
                        parent);
        directory = next.get();
        kept.push_back(std::move(next));
    }
    return seen;
}

struct Move {
    names::NamespaceState& state;
    Inode& from_dir;
    Inode& to_dir;
    std::string_view from, to;
    unsigned flags;
    TrailingSlash slashes;
    const Credentials& who;
    bool check;
    Ancestry from_ancestry, to_ancestry;  // only when the directories differ

    InodeRef source, target;  // target: what has the new name now, if anything
    InodeRef whiteout;        // what takes the old name
    InodeRef busy;            // a directory that moves or is replaced, which somebody has
    References kept;
    bool crossing() const { return &from_dir != &to_dir; }
    bool exchange() const { return (flags & RENAME_EXCHANGE) != 0; }
};

void lock_directories(Move& move, LockedInodes& locks) {
    Inode* first = &move.from_dir;
    Inode* second = &move.to_dir;
    if (move.crossing()) {
        const bool to_is_ancestor = move.from_ancestry.contains(second->number().value);
        const bool from_is_ancestor = move.to_ancestry.contains(first->number().value);
        const bool swap = to_is_ancestor || (!from_is_ancestor && second->number() < first->number());
        if (swap) std::swap(first, second);
    }
    locks.add(*first);
    if (move.crossing()) locks.add(*second);
}

// False where one of them is busy.
bool lock_children(Move& move, LockedInodes& locks) {
    std::array<InodeRef, 2> children{move.source, move.target};
    if (children[0] == children[1]) children[1].reset();
    std::ranges::sort(children, [](const InodeRef& a, const InodeRef& b) {
        if (!a || !b) return a && !b;
        if (a->is_directory() != b->is_directory()) return a->is_directory();
        return a->number() < b->number();
    });
    for (const InodeRef& child : children) {
        if (!child || child.get() == &move.from_dir || child.get() == &move.to_dir) continue;
        if (!child->is_directory()) {
            locks.add(*child);
        } else if (!locks.try_add(*child)) {
            move.busy = child;
            return false;
        }
    }
    return true;
}

// Finds source and target; the directories are locked.
Result<void> find_both(Move& move) {
    move.source = TRY(names::find_inode(move.state, move.from_dir, move.from));
    TRY(names::check_name(move.to));  // only now: that there is nothing to be renamed is told first
    const auto found = TRY(Directory(move.to_dir).find(move.to));
    if (!found) {
        move.target.reset();
        if (move.exchange()) return fail(ENOENT, "no entry to exchange with in directory {}", move.to_dir.number());
        return {};
    }
    if (move.flags & RENAME_NOREPLACE) return fail(EEXIST, "the new name exists in directory {}", move.to_dir.number());
    move.target = TRY(names::get_entry_inode(move.state, move.to_dir, move.to, found->inode));
    return {};
}

Result<void> check_slashes(const Move& move) {
    const auto is_directory = [](const Inode& inode) -> Result<void> {
        return inode.is_directory() ? Result<void>() : fail(ENOTDIR, "inode {} is not a directory", inode.number());
    };
    if (move.slashes.to && move.exchange()) TRY(is_directory(*move.target));
    // A new name with a slash is a directory's that moves there.
    if (move.slashes.from || (move.slashes.to && !move.exchange())) TRY(is_directory(*move.source));
    return {};
}

Result<void> check_cycles(const Move& move) {
    const auto source = move.source->number();
    const bool into_itself = source == move.to_dir.number() || move.to_ancestry.contains(source.value);
    if (move.source->is_directory() && into_itself) return fail(EINVAL, "directory {} cannot move into itself", source);
    if (!move.target || !move.target->is_directory()) return {};
    const auto target = move.target->number();
    if (target == move.from_dir.number() || move.from_ancestry.contains(target.value)) {
        if (move.exchange()) return fail(EINVAL, "directory {} cannot move into itself", target);
        return fail(ENOTEMPTY, "directory {} is not empty", target);
    }
    return {};
}

Result<void> check_same_kind(const Move& move) {
    if (!move.target || move.exchange()) return {};
    if (move.source->is_directory() && !move.target->is_directory())
        return fail(ENOTDIR, "inode {} is not a directory", move.target->number());
    if (!move.source->is_directory() && move.target->is_directory())
        return fail(EISDIR, "inode {} is a directory", move.target->number());
    return {};
}

Result<void> check_permission(const Move& move) {
    TRY(names::check_may_remove(move.from_dir, *move.source, move.who, move.check));
    if (!move.target) TRY(names::check_may_create(move.to_dir, move.who, move.check));
    else TRY(names::check_may_remove(move.to_dir, *move.target, move.who, move.check));
    TRY(names::check_can_link(move.from_dir));
    TRY(names::check_can_link(move.to_dir));
    TRY(check_same_kind(move));
    // A directory that gets another parent has its ".." rewritten.
    if (move.crossing() && move.check) {
        if (move.source->is_directory()) TRY(check_access(*move.source, move.who, access_write));
        if (move.exchange() && move.target->is_directory()) TRY(check_access(*move.target, move.who, access_write));
    }
    if (move.flags & RENAME_WHITEOUT) TRY(names::check_may_create(move.from_dir, move.who, move.check));
    return {};
}

Result<void> check_kinds(const Move& move) {
    if (move.target && !move.exchange()) {
        if (move.target->is_directory() && !TRY(Directory(*move.target).is_empty()))
            return fail(ENOTEMPTY, "directory {} is not empty", move.target->number());
    }
    if (!move.crossing()) return {};
    const bool target_leaves = move.target && move.target->is_directory();
    if (move.source->is_directory() && !target_leaves) TRY(names::check_subdirectory_limit(move.to_dir));
    if (move.exchange() && target_leaves && !move.source->is_directory())
        TRY(names::check_subdirectory_limit(move.from_dir));
    return {};
}

unsigned credits_for(const Move& move) {
    const Directory from(move.from_dir), to(move.to_dir);
    unsigned credits = 2 * from.change_credits() + 2 * to.change_credits() + 6 * Inode::store_credits();
    credits += Directory(*move.source).change_credits();
    if (move.target) credits += Directory(*move.target).change_credits() + OrphanList::credits();
    else credits += to.add_credits();
    if (move.flags & RENAME_WHITEOUT)
        credits += InodeTable::create_credits() + OrphanList::credits() + acl_inherit_credits(move.from_dir) + 1;
    return credits;
}

// What is going to be changed, read and in the transaction before the first change: a device that fails leaves
// everything as it was.
struct Held {
    PinnedEntry from;
    std::optional<PinnedEntry> to;                            // with a target
    std::optional<PinnedEntry> source_parent, target_parent;  // ".." of a directory that gets another parent
};

Result<Held> hold_all(Handle& handle, Move& move) {
    TRY(names::get_write_access(handle, {&move.from_dir, &move.to_dir, move.target.get()}));
    if (UEXT4_SEAM(moved_inodes_join)) TRY(names::get_write_access(handle, {move.source.get()}));
    move.state.dentries.erase(move.from_dir.number(), move.from);
    move.state.dentries.erase(move.to_dir.number(), move.to);
    Held held;
    held.from = TRY(Directory(move.from_dir).pin(handle, move.from));
    if (move.target) held.to = TRY(Directory(move.to_dir).pin(handle, move.to));
    if (!move.crossing()) return held;
    if (move.source->is_directory()) held.source_parent = TRY(Directory(*move.source).pin(handle, ".."));
    if (move.exchange() && move.target->is_directory())
        held.target_parent = TRY(Directory(*move.target).pin(handle, ".."));
    return held;
}

Result<void> point_to(Handle& handle, Inode& directory, const PinnedEntry& entry, const Inode& inode) {
    return Directory(directory).replace(handle, entry, inode.number(), names::type_of_mode(inode.mode()));
}

Result<void> exchange_entries(Handle& handle, Move& move, const Held& held) {
    Inode& source = *move.source;
    Inode& target = *move.target;
    TRY(point_to(handle, move.to_dir, *held.to, source));
    TRY(point_to(handle, move.from_dir, held.from, target));
    int from_delta = 0, to_delta = 0;
    if (held.source_parent) {
        TRY(point_to(handle, source, *held.source_parent, move.to_dir));
        --from_delta;
        ++to_delta;
    }
    if (held.target_parent) {
        TRY(point_to(handle, target, *held.target_parent, move.from_dir));
        ++from_delta;
        --to_delta;
    }
    if (move.crossing()) TRY(names::update_directory_times(handle, move.to_dir, to_delta));
    TRY(names::update_directory_times(handle, move.from_dir, from_delta));
    TRY(names::change_ctime(handle, target));
    return names::change_ctime(handle, source);
}

// The node that takes the old name.
Result<void> make_whiteout(Handle& handle, Move& move) {
    NewInode what;
    what.parent = move.from_dir.number();
    what.mode = S_IFCHR;
    what.uid = move.who.uid;
    what.gid = names::group_for_new_inode(move.state.fs, move.from_dir, move.who);
    what.rdev = makedev(0, 0);
    move.whiteout = TRY(move.state.inodes.create(handle, what));
    return inherit_acl(handle, move.from_dir, *move.whiteout, move.who);
}

// The old name goes, or becomes the whiteout's.
Result<void> leave_old_name(Handle& handle, Move& move, const PinnedEntry& entry) {
    if (!move.whiteout) return Directory(move.from_dir).remove(handle, entry);
    TRY(point_to(handle, move.from_dir, entry, *move.whiteout));
    return names::add_link(handle, *move.whiteout);
}

// A name that was not there. Adding it may find no room, and in the same directory it moves entries around, so that the
// old one has to be looked for again: what fails changes nothing.
Result<void> add_new_name(Handle& handle, Move& move, PinnedEntry& from) {
    Directory to(move.to_dir);
    const bool privileged = may_use_reserved_blocks(move.state.fs, move.who);
    TRY(to.add(handle, move.to, move.source->number(), names::type_of_mode(move.source->mode()), privileged));
    if (move.crossing()) return {};
    Result<PinnedEntry> again = to.pin(handle, move.from);
    if (!again) {
        (void)to.remove(handle, move.to);
        return fail(again.error());
    }
    from = std::move(*again);
    return {};
}

// All that may fail, the names' own blocks held already.
Result<void> begin_move(Handle& handle, Move& move, Held& held) {
    if (move.flags & RENAME_WHITEOUT) TRY(make_whiteout(handle, move));
    if (!move.target) return add_new_name(handle, move, held.from);
    (void)TRY(names::prepare_drop_link(move.state, handle, *move.target));
    return point_to(handle, move.to_dir, *held.to, *move.source);
}

Result<void> move_entry(Handle& handle, Move& move, Held& held) {
    Inode& source = *move.source;
    if (Result<void> begun = begin_move(handle, move, held); !begun) {
        if (move.whiteout) names::undo_create(move.state, handle, *move.whiteout);
        return begun;
    }
    TRY(leave_old_name(handle, move, held.from));
    int from_delta = 0, to_delta = 0;
    if (source.is_directory()) {
        if (held.source_parent) TRY(point_to(handle, source, *held.source_parent, move.to_dir));
        --from_delta;
        ++to_delta;
    }
    if (move.target && move.target->is_directory()) --to_delta;
    if (move.crossing()) {
        TRY(names::update_directory_times(handle, move.to_dir, to_delta));
        TRY(names::update_directory_times(handle, move.from_dir, from_delta));
    } else {
        TRY(names::update_directory_times(handle, move.from_dir, from_delta + to_delta));
    }
    if (move.target) TRY(names::drop_link(move.state, handle, *move.target));
    return UEXT4_SEAM(moved_inodes_join) ? names::change_ctime(handle, source) : Result<void>();
}

enum class Attempt { done, flush_source, wait_for_busy };

// One try with all locks; flush_source asks for the source's data first, unless the source is `flushed`, wait_for_busy
// for another try when `busy` is free.
Result<Attempt> attempt(Move& move, LockedInodes& locks, bool may_ask, const InodeRef& flushed) {
    lock_directories(move, locks);
    TRY(names::check_not_removed(move.from_dir));
    TRY(names::check_not_removed(move.to_dir));
    TRY(find_both(move));
    TRY(check_slashes(move));
    TRY(check_cycles(move));
    if (move.source == move.target) return Attempt::done;
    TRY(check_permission(move));
    const bool replaces_file =
        move.target && !move.exchange() && move.target->is_regular() && move.source->is_regular();
    if (UEXT4_SEAM(replacements_are_flushed) && may_ask && replaces_file && move.source != flushed)
        return Attempt::flush_source;
    if (UEXT4_SEAM(rename_locks_children) && !lock_children(move, locks)) return Attempt::wait_for_busy;
    TRY(check_kinds(move));
    Handle handle = TRY(move.state.fs.journal.start(credits_for(move)));
    Held held = TRY(hold_all(handle, move));
    TRY(move.exchange() ? exchange_entries(handle, move, held) : move_entry(handle, move, held));
    return Attempt::done;
}

Result<void> check_arguments(std::string_view from, std::string_view to, unsigned flags) {
    if (flags & ~static_cast<unsigned>(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
        return fail(EINVAL, "unknown rename flags {:#x}", flags);
    if ((flags & RENAME_EXCHANGE) && (flags & (RENAME_NOREPLACE | RENAME_WHITEOUT)))
        return fail(EINVAL, "rename flags {:#x} exclude each other", flags);
    TRY(names::check_name(from));
    if (names::is_dot_or_dotdot(from)) return fail(EBUSY, "\".\" and \"..\" cannot be renamed");
    if (names::is_dot_or_dotdot(to))
        return fail(flags & RENAME_NOREPLACE ? EEXIST : EBUSY, "\".\" and \"..\" cannot be replaced");
    return {};
}

}  // namespace

Result<void> Namespace::rename(Inode& from_dir, std::string_view from, Inode& to_dir, std::string_view to,
                               unsigned flags, const Credentials& who, bool check,
                               const std::function<Result<void>(Inode&)>& before_replace, TrailingSlash slashes) {
    TRY(check_arguments(from, to, flags));
    // The file that was flushed for a replacement; another file under the name by then is flushed in its turn, a few
    // times.
    constexpr int most_flushes = 4;
    InodeRef flushed;
    for (int round = 0;;) {
        Move move{*state_, from_dir, to_dir, from, to, flags, slashes, who, check, {}, {}, {}, {}, {}, {}, {}};
        Result<Attempt> result = Attempt::done;
        {
            UniqueLock topology;
            if (move.crossing()) {
                topology = UniqueLock(state_->topology);
                move.from_ancestry = TRY(with_report(state_->fs, ancestry_of(*state_, from_dir, move.kept)));
                move.to_ancestry = TRY(with_report(state_->fs, ancestry_of(*state_, to_dir, move.kept)));
            }
            LockedInodes locks;
            result = attempt(move, locks, before_replace != nullptr && round < most_flushes, flushed);
            if (result && *result == Attempt::flush_source) flushed = move.source;
        }
        if (!result) return std::unexpected(report_corruption(state_->fs, std::move(result.error())));
        if (*result == Attempt::done) return {};
        if (*result == Attempt::wait_for_busy) {
            LockedInodes::wait_for(*move.busy);
            continue;
        }
        TRY(before_replace(*flushed));
        ++round;
    }
}

}  // namespace uext4
