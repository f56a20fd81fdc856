// getattr, setattr, readlink, statfs.
#include "fuse/operations.h"
#include "fuse/space.h"

namespace uext4::fuse {

namespace {

using StatxNumber = std::optional<std::uint64_t>;  // Server::statx()

void reply_attributes(fuse_req_t request, Server& server, Inode& inode, StatxNumber statx = {}) {
    const struct stat now = UEXT4_FUSE_TRY(request, server.attributes(inode));
    const double last = shorter_if_short_of_space(
        server, server.inodes().attributes_last(node_of(inode.number()), now, asker_of(request)));
    if (!statx) {
        fuse_reply_attr(request, &now, last);
        return;
    }
    std::optional<timespec> born;
    if (const std::optional<format::Timestamp> time = server.fs().birth_time(inode))
        born = {time->sec, static_cast<long>(time->nsec)};
    server.answer_statx(request, Protocol::answer_statx(*statx, now, last, born));
}

// With a descriptor, the kernel asks before it takes a write into its cache. (Or before a read at the end of the file,
// or a seek to it: those who write as well, to a file whose late writes failed, meet the error there. Who may read is
// not told on account of an empty file, which has nothing that would not be there later.)
int refuse_writing(Server& server, fuse_ino_t node, OpenFile& file) {
    const int mode = file.flags() & O_ACCMODE, failure = server.inodes().failure(node);
    if (mode == O_RDONLY) return 0;
    if (failure == 0) {
        if (mode != O_WRONLY) return 0;
        const Result<void> may = file.check_can_start_writing();
        return may ? 0 : may.error().code;
    }
    if (const Result<void> may = file.check_can_continue_writing(); !may) return may.error().code;
    server.inodes().note_failure(node, 0);
    return server.inodes().lost(node);  // there is space again, but what could not be kept is told here once
}

void answer_writer(fuse_req_t request, Server& server, fuse_ino_t node, OpenFile& file, StatxNumber statx) {
    if (const int error = refuse_writing(server, node, file)) fuse_reply_err(request, error);
    else reply_attributes(request, server, file.inode(), statx);
}

void get_attributes(fuse_req_t request, fuse_ino_t node, fuse_file_info* info) {
    Server& server = server_of(request);
    const StatxNumber statx = server.statx();
    if (!info) {
        const InodeRef inode = UEXT4_FUSE_TRY(request, server.inode(node));
        server.inodes().note_look(node);
        return reply_attributes(request, server, *inode, statx);
    }
    OpenFile& file = Server::file(*info);
    if (server.is_space_spoken_for() && !server.parks() && (file.flags() & O_ACCMODE) != O_RDONLY)
        return server.answer_when_free(
            [request, &server, node, &file, statx] { answer_writer(request, server, node, file, statx); });
    const Wanted wanted = to_be_called_in(server, node, file);
    if (wanted == Wanted::nothing) return answer_writer(request, server, node, file, statx);
    server.read_what_is_let_go();  // which only this thread can
    server.later(
        [&server, request, node, &file, wanted, statx] {
            call_in_what_needs_space(server, file.inode_ref(), wanted);
            answer_writer(request, server, node, file, statx);
        },
        true);
}

format::Timestamp time_of(const timespec& time) { return {time.tv_sec, static_cast<std::uint32_t>(time.tv_nsec)}; }

AttributeChange change_of(const struct stat& wanted, int which) {
    AttributeChange change;
    if (which & FUSE_SET_ATTR_MODE) change.mode = static_cast<std::uint16_t>(wanted.st_mode & 07777);
    if (which & FUSE_SET_ATTR_UID) change.uid = wanted.st_uid;
    if (which & FUSE_SET_ATTR_GID) change.gid = wanted.st_gid;
    if (which & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW)) {
        change.atime_now = (which & FUSE_SET_ATTR_ATIME_NOW) != 0;
        change.atime = change.atime_now ? current_time() : time_of(wanted.st_atim);
    }
    if (which & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)) {
        change.mtime_now = (which & FUSE_SET_ATTR_MTIME_NOW) != 0;
        change.mtime = change.mtime_now ? current_time() : time_of(wanted.st_mtim);
    }
    // A kernel that caches writes sends "now" for the modification as a time of its own clock, which it then sends as
    // the time of the change as well: who may write, or has a file that only grows, may ask for that.
    if (change.atime_now && (which & FUSE_SET_ATTR_MTIME) && (which & FUSE_SET_ATTR_CTIME) &&
        change.mtime == time_of(wanted.st_ctim))
        change.mtime_now = true;
    if (which & FUSE_SET_ATTR_CTIME) change.ctime = time_of(wanted.st_ctim);
    return change;
}

// With a cached write behind it the kernel sends times later; all that is asked for in one request is done in an order
// in which the size does not spoil the times.
Result<void> apply(Server& server, Inode& inode, const struct stat& wanted, int which, const Credentials& who,
                   bool of_earlier_write) {
    if (which & FUSE_SET_ATTR_SIZE) {
        const auto size = static_cast<std::uint64_t>(wanted.st_size);
        TRY(server.fs().truncate(inode, size, who, false));
        server.inodes().note_cut(node_of(inode.number()), size);
    }
    constexpr int others = FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID | FUSE_SET_ATTR_ATIME |
                           FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW |
                           FUSE_SET_ATTR_CTIME;
    // A chown to what was there arrives with nothing in it but the time of the change, and takes set-id bits all the
    // same. Somebody else's write, allocation or copy announces itself like that, too: it takes them when it comes.
    if (which & others || !(which & FUSE_SET_ATTR_SIZE)) {
        AttributeChange change = change_of(wanted, which);
        change.is_deferred_write_time = of_earlier_write;
        change.is_chown = (which & ~FUSE_SET_ATTR_CTIME) == 0 && is_owner_or_capable(inode, who);
        change.checks_setgid = true;
        TRY(server.fs().set_attributes(inode, change, who, false));
    }
    return {};
}

// The kernel moves the times of what it is about to change before it asks, and sends them with a handle, which it never
// does with a program's times. Where a flag forbids the change there is nothing to note, and no reason that the next
// sync fails.
bool are_times_of_nothing(const Inode& inode, int which, bool by_kernel) {
    namespace flag = format::inode_flag;
    return by_kernel && which == (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_CTIME) &&
           (inode.has_flag(flag::immutable) || inode.has_flag(flag::append));
}

void set_attributes(fuse_req_t request, fuse_ino_t node, struct stat* attributes, int which, fuse_file_info* handle) {
    Server& server = server_of(request);
    const bool by_kernel = handle != nullptr;
    const bool takes_set_ids = server.takes_set_ids() && (which & FUSE_SET_ATTR_SIZE);
    server.change([&server, request, node, wanted = *attributes, which, takes_set_ids, by_kernel] {
        const InodeRef inode = UEXT4_FUSE_TRY(request, server.inode(node));
        const bool of_write = which == (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_CTIME) &&
                              server.inodes().take_note_of_write(node, wanted.st_mtim);
        if (of_write || !are_times_of_nothing(*inode, which, by_kernel))
            UEXT4_FUSE_TRY(request,
                           apply(server, *inode, wanted, which, changer_of(request, *inode, takes_set_ids), of_write));
        reply_attributes(request, server, *inode);
    });
}

void read_link(fuse_req_t request, fuse_ino_t node) {
    Server& server = server_of(request);
    const InodeRef inode = UEXT4_FUSE_TRY(request, server.inode(node));
    const std::string target = UEXT4_FUSE_TRY(request, server.fs().read_link(*inode));
    fuse_reply_readlink(request, target.c_str());
}

void statistics(fuse_req_t request, fuse_ino_t) {
    Server& server = server_of(request);
    server.read_what_is_let_go();
    const struct statvfs now = UEXT4_FUSE_TRY(request, server.fs().statistics());
    fuse_reply_statfs(request, &now);
}

}  // namespace

void add_attribute_operations(fuse_lowlevel_ops& table) {
    table.getattr = get_attributes;
    table.setattr = set_attributes;
    table.readlink = read_link;
    table.statfs = statistics;
}

}  // namespace uext4::fuse
