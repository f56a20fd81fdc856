#include "inode/attributes.h"

#include "base/seam.h"
#include "inode/acl.h"
#include "inode/xattr.h"
#include "sync/atomic_point.h"

#include <ctime>
#include <limits>

namespace uext4 {

// The clock of the kernel's own stamps: on a mount it stamps what it caches, and a finer clock would put what was made
// before behind that.
format::Timestamp current_time() {
    timespec t{};
    ::clock_gettime(CLOCK_REALTIME_COARSE, &t);
    return {t.tv_sec, static_cast<std::uint32_t>(t.tv_nsec)};
}

format::Timestamp current_time(const FsContext& fs) {
    return fs.options.fixed_time ? format::Timestamp{*fs.options.fixed_time, 0} : current_time();
}

namespace {

constexpr const char* capability = "security.capability";

Result<bool> has_capability(Inode& inode) {
    if (!inode.is_regular()) return false;
    return TRY(find_xattr_raw(inode, capability))
    .has_value();
}

// The ends of the range that the format has stand for what is beyond them: who sets them gets no nanoseconds.
format::Timestamp settable(const Inode& inode, format::Timestamp time) {
    constexpr std::int64_t lowest = std::numeric_limits<std::int32_t>::min();
    const std::int64_t highest = inode.fs().geometry.inode_size > format::classic_inode_size
                                     ? std::int64_t{0x37FFFFFFF}
                                     : std::int64_t{std::numeric_limits<std::int32_t>::max()};
    if (time.sec <= lowest || time.sec >= highest) time.nsec = 0;
    return time;
}

Result<void> may_change(Inode& inode, const AttributeChange& c, const Credentials& who) {
    const bool owner = is_owner_or_capable(inode, who);
    if (c.mode && !owner) return fail(EPERM, "inode {} belongs to user {}", inode.number(), inode.uid());
    if (c.uid && *c.uid != inode.uid() && !who.capabilities.chown)
        return fail(EPERM, "inode {}: its owner cannot be changed", inode.number());
    if (c.uid && *c.uid == inode.uid() && who.uid != inode.uid() && !who.capabilities.chown)
        return fail(EPERM, "inode {}: belongs to user {}", inode.number(), inode.uid());
    if (c.gid && !who.capabilities.chown &&
        (who.uid != inode.uid() || (*c.gid != inode.gid() && !who.in_group(*c.gid))))
        return fail(EPERM, "inode {}: its group cannot be changed to {}", inode.number(), *c.gid);
    // A chown that takes set-id bits changes the mode.
    const bool set_gid = (inode.mode() & S_ISGID) && ((inode.mode() & S_IXGRP) || !who.in_group(inode.gid()));
    if (c.is_chown && !inode.is_directory() && ((inode.mode() & S_ISUID) || set_gid) && !owner)
        return fail(EPERM, "inode {} belongs to user {}", inode.number(), inode.uid());
    const bool both_now = c.atime && c.atime_now && c.mtime && c.mtime_now;
    if ((c.atime || c.mtime) && !both_now && !owner)
        return fail(EPERM, "inode {} belongs to user {}", inode.number(), inode.uid());
    if (both_now && !owner) TRY(check_access(inode, who, access_write));
    return {};
}

}  // namespace

Result<void> apply_attribute_change(Inode& inode, const AttributeChange& c, const Credentials& who, bool check) {
    namespace f = format::inode_flag;
    // Both times together, as touch does: one of them alone is a change like any other.
    const bool both_now = c.atime && c.atime_now && c.mtime && c.mtime_now;
    const bool only_now = !c.mode && !c.uid && !c.gid && (both_now || (!c.atime && !c.mtime));
    if (!c.is_deferred_write_time && (inode.has_flag(f::immutable) || (inode.has_flag(f::append) && !only_now)))
        return fail(EPERM, "inode {} is immutable or append-only", inode.number());
    if (check) TRY(may_change(inode, c, who));
    const bool changes_mode = c.mode.has_value();
    const bool owner = c.uid || c.gid || c.is_chown;
    auto set_times = [&] {
        const format::Timestamp now = current_time(inode.fs());
        if (c.atime) inode.set_atime(c.atime_now ? now : settable(inode, *c.atime));
        // Of a "now" that comes with the time of the change, the other clock's is the same.
        if (c.mtime) inode.set_mtime(c.mtime_now && !c.ctime ? now : settable(inode, *c.mtime));
        inode.set_ctime(c.ctime.value_or(now));
        inode.bump_version();
    };
    // Times of a file without a name: no crash leaves anything of them. (A mount's kernel sends them after an unlink.)
    atomic_point("Inode::has_links", &inode);
    if (!changes_mode && !owner && !inode.has_links_hint()) {
        MutexLock guard(inode.map_lock);
        set_times();
        inode.note_times_pending();
        return {};
    }
    const bool loses_capability = owner && TRY(has_capability(inode));
    Handle handle =
        TRY(inode.fs().journal.start(Inode::store_credits() + (changes_mode ? chmod_acl_credits(inode) : 0) +
                                     (loses_capability ? xattr_credits(inode, 0) : 0)));
    if (loses_capability) TRY(remove_xattr_raw(handle, inode, capability, true));
    {
        MutexLock guard(inode.map_lock);
        TRY(inode.get_write_access(handle));  // what cannot be stored is met before it changes
        std::uint16_t mode = inode.mode();
        if (owner) {
            const bool in_group = who.in_group(inode.gid());
            inode.set_owner(c.uid.value_or(inode.uid()), c.gid.value_or(inode.gid()));
            if (!inode.is_directory()) {
                mode &= static_cast<std::uint16_t>(~S_ISUID);
                if (mode & S_IXGRP) mode &= static_cast<std::uint16_t>(~S_ISGID);
                else if ((check || c.checks_setgid) && !who.capabilities.fsetid && !in_group)
                    mode &= static_cast<std::uint16_t>(~S_ISGID);
            }
        }
        if (c.mode) {
            mode = static_cast<std::uint16_t>((mode & S_IFMT) | (*c.mode & 07777));
            if (check && !who.capabilities.fsetid && !who.in_group(inode.gid()))
                mode &= static_cast<std::uint16_t>(~S_ISGID);
        }
        inode.set_mode(mode);
        set_times();
        TRY(inode.store(handle, c.mode || c.uid || c.gid));
    }
    if (changes_mode && inode.fs().options.acl && !inode.is_symlink()) return update_acl_for_chmod(handle, inode);
    return {};
}

Result<void> file_remove_privs(Inode& inode, const Credentials& who) {
    if (!inode.is_regular() || inode.nosec.load(std::memory_order_relaxed)) return {};
    const std::uint16_t mode = inode.mode();
    // Without the group's right to execute the bit once meant mandatory locks; the group may keep it.
    const bool set_gid = (mode & S_ISGID) && ((mode & S_IXGRP) || !who.in_group(inode.gid())),
               set_id = (mode & S_ISUID) || set_gid;
    const bool capable = TRY(has_capability(inode));
    if (!set_id && !capable) {
        if (!(mode & S_ISGID)) inode.nosec.store(true, std::memory_order_relaxed);
        return {};
    }
    if (who.capabilities.fsetid && !capable) return {};
    Handle handle = TRY(inode.fs().journal.start(Inode::store_credits() + (capable ? xattr_credits(inode, 0) : 0)));
    if (capable) TRY(remove_xattr_raw(handle, inode, capability, true));
    if (who.capabilities.fsetid || !set_id) return {};
    MutexLock guard(inode.map_lock);
    std::uint16_t fresh = static_cast<std::uint16_t>(mode & ~S_ISUID);
    if (set_gid) fresh &= static_cast<std::uint16_t>(~S_ISGID);
    inode.set_mode(fresh);
    inode.set_ctime(current_time(inode.fs()));
    return inode.store(handle);
}

std::uint32_t get_user_flags(const Inode& inode) {
    namespace f = format::inode_flag;
    return inode.flags() & (user_settable_flags | user_ignored_flags | f::extents | f::casefold);
}

Result<void> set_user_flags(Inode& inode, std::uint32_t wanted, const Credentials& who, bool check) {
    namespace f = format::inode_flag;
    const std::uint32_t old = inode.flags();
    if (check && !is_owner_or_capable(inode, who))
        return fail(EPERM, "inode {} belongs to user {}", inode.number(), inode.uid());
    const std::uint32_t known = user_settable_flags | user_ignored_flags | f::extents | (old & f::casefold);
    if (wanted & ~known) return fail(EOPNOTSUPP, "flags {:#x} cannot be set", wanted & ~known);
    if (old & ~wanted & f::casefold) return fail(EOPNOTSUPP, "the flag F cannot be taken away");
    if (((wanted ^ old) & (f::immutable | f::append)) && check && !who.capabilities.linux_immutable)
        return fail(EPERM, "the flags i and a need CAP_LINUX_IMMUTABLE");
    // What it speaks of, memory that is the storage, has no room for these; a directory only hands it on.
    const std::uint32_t against_dax =
        f::verity | f::encrypt | f::journal_data | (inode.is_directory() ? 0 : f::inline_data);
    if (((wanted & f::dax) && (old & against_dax)) || ((old & f::dax) && (wanted & against_dax)))
        return fail(EOPNOTSUPP, "inode {}: the flag x does not go with its others", inode.number());
    if ((old & wanted & f::immutable) && ((wanted ^ old) & (user_settable_flags | f::extents)))
        return fail(EPERM, "inode {} is immutable", inode.number());
    std::uint32_t settable = user_settable_flags;
    if (inode.is_regular()) settable &= ~(f::dirsync | f::topdir | f::projinherit);
    else if (!inode.is_directory()) settable &= f::nodump | f::noatime;
    if (wanted & user_settable_flags & ~settable & ~old)
        return fail(EOPNOTSUPP, "inode {}: flags {:#x} are not for this kind of file", inode.number(),
                    wanted & user_settable_flags & ~settable);
    settable &= ~f::journal_data;
    Handle handle = TRY(inode.fs().journal.start(Inode::store_credits()));
    MutexLock guard(inode.map_lock);
    // Those of now: writeback may have taken the contents out of the inode since the look above.
    const std::uint32_t now = UEXT4_SEAM(flags_are_fresh) ? inode.flags() : old;
    inode.set_flags((now & ~settable) | (wanted & settable));
    inode.set_ctime(current_time(inode.fs()));
    inode.bump_version();
    return inode.store(handle);
}

}  // namespace uext4
