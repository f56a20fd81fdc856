// open and create, read and write, fsync, fallocate, lseek, copy_file_range.
//
// The kernel's writeback cache stands before this file system: sizes and times of what is written are the kernel's,
// reads come through handles opened for writing only (to fill a page), offsets of appends are already settled, and
// writes come from the kernel itself, long after the call, through any writable handle of the file. So an open file
// here acts for whoever opened it, and O_DIRECT, O_SYNC and O_APPEND are the kernel's to honour: it passes on direct
// requests at once (whether they are in sectors is asked here) and follows a synchronous write with an FSYNC.
#include "fuse/operations.h"
#include "fuse/space.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

namespace uext4::fuse {

namespace {

constexpr std::uint64_t quickly_written = 64;                // dirty folios of a file
constexpr std::size_t largest_copy = std::size_t{64} << 20;  // of one request; the caller goes on from there

// Opens on behalf of a request and fills the answer's part of `info`.
Result<void> open_for(Server& server, fuse_req_t request, const InodeRef& inode, fuse_file_info& info, int flags,
                      bool takes_set_ids) {
    const Credentials who = (flags & O_TRUNC) ? changer_of(request, *inode, takes_set_ids) : credentials_of(request);
    std::unique_ptr<OpenFile> file = TRY(server.fs().open(inode, flags, who, false));
    file->set_kernel_cached(true);
    // What the kernel answers from its cache moves no access time. Whoever is about to write keeps what is cached all
    // the same: the times that its writes set are what the next reader's access is compared with. Where somebody is
    // writing already, or stores through a map, the kernel must not forget it either: it may have no space to be sent
    // to, and a direct read that fills a page of a map would be lost with the page.
    info.keep_cache = (flags & O_ACCMODE) != O_RDONLY || !file->needs_atime_update() || server.has_writers(*inode);
    info.fh = server.keep(std::move(file));
    return {};
}

int kept_flags(int flags) { return flags & (O_ACCMODE | O_APPEND | O_NOATIME); }

// Without O_TRUNC: who truncates sends that by itself first.
void open(fuse_req_t request, fuse_ino_t node, fuse_file_info* info) {
    Server& server = server_of(request);
    auto job = [&server, request, node, answer = *info, takes_set_ids = server.takes_set_ids()]() mutable {
        InodeRef inode = UEXT4_FUSE_TRY(request, server.inode(node));
        UEXT4_FUSE_TRY(request, open_for(server, request, inode, answer, kept_flags(answer.flags), takes_set_ids));
        inode.reset();  // who is answered may close it and remove it before this thread goes on
        // What the kernel was told before is for longer.
        if ((answer.flags & O_ACCMODE) != O_RDONLY && is_short_of_space(server))
            fuse_lowlevel_notify_inval_inode(server.session(), node, -1, 0);
        if (fuse_reply_open(request, &answer) != 0) server.drop(answer.fh);
    };
    const std::uint64_t refused = server.inodes().refused(node);
    // The kernel keeps what found no space, for written, until it needs the memory. As long as somebody has the file
    // open for writing, that is what it holds, for all. Whoever wrote that was told; who opens the file behind him was
    // not, and would take it for what is there to stay.
    if (refused == 0 || server.inodes().has_writers(node)) return job();
    server.later(
        [&server, node, refused, job = std::move(job)]() mutable {
            fuse_lowlevel_notify_inval_inode(server.session(), node, 0, 0);
            server.inodes().note_dropped(node, refused);
            job();
        },
        false);
}

// What was made is opened in the same request.
void reply_created(fuse_req_t request, Server& server, Inode& directory, const InodeRef& inode, fuse_file_info& answer,
                   int flags, bool takes_set_ids) {
    fuse_entry_param entry = UEXT4_FUSE_TRY(request, entry_of(request, server, directory, inode));
    if ((answer.flags & O_ACCMODE) != O_RDONLY) {
        server.foresee_a_block(entry.attr);
        entry.attr_timeout = std::min(entry.attr_timeout, shorter_if_short_of_space(server, growing_timeout));
    }
    UEXT4_FUSE_TRY(request, open_for(server, request, inode, answer, flags, takes_set_ids));
    server.inodes().add(*inode, entry.attr, asker_of(request));
    if (fuse_reply_create(request, &entry, &answer) == 0) return;
    server.drop(answer.fh);
    server.inodes().take_back(entry.ino);
}

// O_TMPFILE.
void create_unnamed(fuse_req_t request, fuse_ino_t parent, mode_t mode, fuse_file_info* info) {
    Server& server = server_of(request);
    server.change([&server, request, parent, mode, answer = *info]() mutable {
        const InodeRef directory = UEXT4_FUSE_TRY(request, server.inode(parent));
        const Credentials who = credentials_of(request, (mode & S_ISGID) != 0);
        const mode_t regular = static_cast<mode_t>((mode & 07777) | S_IFREG);
        const InodeRef inode =
            UEXT4_FUSE_TRY(request, server.fs().create_tmpfile(*directory, regular, answer.flags, who, false));
        reply_created(request, server, *directory, inode, answer, kept_flags(answer.flags), false);
    });
}

void create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* info) {
    Server& server = server_of(request);
    if (server.makes_unnamed()) return create_unnamed(request, parent, mode, info);
    server.change_taking_space([&server, request, parent, name = std::string(name), mode, answer = *info,
                                takes_set_ids = server.takes_set_ids()]() mutable {
        const InodeRef directory = UEXT4_FUSE_TRY(request, server.inode(parent));
        UEXT4_FUSE_TRY(request, check_name(name));
        const Credentials who = credentials_of(request, (mode & S_ISGID) != 0);
        const mode_t regular = static_cast<mode_t>((mode & 07777) | S_IFREG);
        Result<InodeRef> made = server.fs().create(*directory, name, regular, 0, {}, who, false);
        server.space_taken();
        int truncate = 0;
        if (!made && made.error().code == EEXIST && !(answer.flags & O_EXCL)) {
            made = server.fs().lookup(*directory, name, who, false);
            truncate = answer.flags & O_TRUNC;
        }
        server.directory_changed(request, parent);
        const InodeRef inode = UEXT4_FUSE_TRY(request, std::move(made));
        reply_created(request, server, *directory, inode, answer, kept_flags(answer.flags) | truncate, takes_set_ids);
    });
}

// Where a file took another's place, closing writes it back: not on the reading thread.
void release(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
    Server& server = server_of(request);
    const std::uint64_t handle = info->fh;
    const OpenFile& file = Server::file(*info);
    const bool writable = (file.flags() & O_ACCMODE) != O_RDONLY;
    auto job = [&server, request, handle] {
        server.drop(handle);
        fuse_reply_err(request, 0);
    };
    if (writable && file.inode_ref()->replace_on_close.load()) server.later(job, true);
    else job();
}

// Into a program's memory, whose answer the kernel may hold up (deputy.h); for those alone it names an owner. O_DIRECT
// says nothing: the kernel fills pages by such a descriptor as well. They are locked until the answer comes, so nobody
// may be waited for who may wait for them: these are answered where they are read.
bool is_direct(const fuse_file_info& info) { return info.lock_owner != 0; }

// By a descriptor with O_DIRECT, as it is now. Where the program's memory lies the kernel tells nobody.
bool is_to_be_in_sectors(const fuse_file_info& info) { return is_direct(info) && (info.flags & O_DIRECT) != 0; }

struct ReadRequest {
    std::size_t size;
    off_t offset;
    bool in_sectors;  // or it is refused
};

void reply_read(fuse_req_t request, OpenFile& file, ReadRequest asked) {
    thread_local std::vector<std::byte> buffer;  // grows to the largest request
    if (buffer.size() < asked.size) buffer.resize(asked.size);
    const Bytes out = Bytes(buffer).first(asked.size);
    const auto offset = static_cast<std::uint64_t>(asked.offset);
    if (asked.in_sectors) UEXT4_FUSE_TRY(request, file.check_direct_read(offset, out));
    const std::size_t count = UEXT4_FUSE_TRY(request, file.read(offset, out));
    fuse_reply_buf(request, reinterpret_cast<const char*>(buffer.data()), count);
}

// The kernel takes what is short of an asynchronous one for the end of the file, which may lie further on in its cache.
bool goes_on_in_the_cache(Server& server, OpenFile& file, std::uint64_t end) {
    return file.inode().size_hint() < end && server.has_writers(file.inode());
}

// It writes what lies behind the end that is known here, as it is told to forget it. That is answered by the reading
// thread, and waits for a thaw. (Of the request's own pages it has sent everything before it asked. They are left to
// it: among them may be the memory that is read into, a map of the file's last page.)
void read_behind_the_end(Server& server, fuse_req_t request, OpenFile& file, ReadRequest asked, Server::Held held) {
    server.change([&server, request, &file, asked, held = std::move(held)] {
        server.hand_on([&server, request, &file, asked, held] {
            static const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
            const std::uint64_t end = static_cast<std::uint64_t>(asked.offset) + asked.size;
            if (call_in(server, file.inode_ref(), round_up(end, page))) return reply_read(request, file, asked);
            fuse_reply_err(request, ENOSPC);
        });
    });
}

void read(fuse_req_t request, fuse_ino_t node, std::size_t size, off_t offset, fuse_file_info* info) {
    Server& server = server_of(request);
    OpenFile& file = Server::file(*info);
    const ReadRequest asked{.size = size, .offset = offset, .in_sectors = is_to_be_in_sectors(*info)};
    if (!is_direct(*info)) {
        server.inodes().note_cached_read(node, static_cast<std::uint64_t>(offset), size);
        return reply_read(request, file, asked);
    }
    // Of one that comes in many pieces the first wait, and the others end it there: it is short, as a read may be.
    if (goes_on_in_the_cache(server, file, static_cast<std::uint64_t>(offset) + size))
        if (Server::Held held = server.hold_direct())
            return read_behind_the_end(server, request, file, asked, std::move(held));
    if (server.is_stood_in_for()) server.hand_on([request, &file, asked] { reply_read(request, file, asked); });
    else reply_read(request, file, asked);
}

// A write of the kernel's cache that failed is told to nobody but an fsync or close to come: the calls that made it
// have returned, and those that follow only fill the cache. So the kernel is made to ask for the attributes before it
// takes another one, which is where it is refused (refuse_writing in operations_attributes.cpp).
void tell_writers(Server& server, fuse_ino_t node, int error) {
    if (error != ENOSPC && error != EROFS) return;
    server.inodes().note_failure(node, error);
    fuse_lowlevel_notify_inval_inode(server.session(), node, -1, 0);
}

// Where a flag forbids it, or nothing is written any more, there is nothing to wait for.
void note_loss(Server& server, fuse_ino_t node, OpenFile& file, std::uint64_t offset, std::size_t length,
               const Error& why) {
    if (why.code == EPERM || why.code == EROFS) return;
    // A program can cause the others as often as it likes, and is told.
    const bool of_image = why.code == EIO || why.code == EUCLEAN;
    if (server.inodes().note_lost(node, offset, length, why.code) && of_image)
        file.inode().fs().log(fmt::format("inode {}: {} bytes at {} that the kernel had are lost: {}",
                                          file.inode().number(), length, offset, why.what));
}

// The kernel has written of its cache what cannot be written. What only wants space is kept here as far as it may be,
// so that this and the kernel's cache are the same file; `done` bytes found some.
void note_refusal(Server& server, fuse_ino_t node, OpenFile& file, std::uint64_t offset, ConstBytes bytes,
                  std::size_t done, const Error& why) {
    tell_writers(server, node, why.code);
    if (why.code == ENOSPC) done += file.write_beyond_reserved_space(offset + done, bytes.subspan(done)).value_or(0);
    server.inodes().note_written(node, offset, done);
    if (done < bytes.size()) note_loss(server, node, file, offset + done, bytes.size() - done, why);
    // The kernel drops what it may not have, once this write is over for it: hence not from this thread.
    if (why.code == EPERM)
        server.later(
            [&server, node, offset = static_cast<off_t>(offset), length = static_cast<off_t>(bytes.size())] {
                fuse_lowlevel_notify_inval_inode(server.session(), node, offset, length);
            },
            false);
}

// The kernel goes by the mode that it remembers, also when it runs a program.
Result<void> take_set_ids(Server& server, fuse_req_t request, OpenFile& file, bool in_any_case) {
    const std::uint16_t before = file.inode().mode();
    TRY(server.fs().remove_suid(file.inode(), changer_of(request, file.inode(), in_any_case)));
    if (file.inode().mode() != before)
        fuse_lowlevel_notify_inval_inode(server.session(), node_of(file.inode().number()), -1, 0);
    return {};
}

// How a write came: from the kernel's cache, long after the call; from a program's memory, beside that cache (direct);
// or through it, as where set-id bits are to go. The last has its pages locked until the answer comes, and what it
// holds of the file is right then: nobody may be waited for who may wait for those, least of all the kernel to forget
// them.
struct Origin {
    bool from_cache, direct, in_sectors, takes_set_ids;  // in_sectors: or it is refused
};

void reply_written(fuse_req_t request, Server& server, fuse_ino_t node, OpenFile& file, ConstBytes bytes, off_t offset,
                   Origin origin) {
    if (origin.in_sectors) UEXT4_FUSE_TRY(request, file.check_direct_write(static_cast<std::uint64_t>(offset), bytes));
    if (origin.takes_set_ids) UEXT4_FUSE_TRY(request, take_set_ids(server, request, file, true));
    Result<std::size_t> count = file.write(static_cast<std::uint64_t>(offset), bytes);
    // The kernel would call a short one EIO: what is wrong with the rest is what it is told. But of a direct one to a
    // file that only grows: the kernel would go on with the size of before, which such a file cannot be cut to.
    const bool only_grows = file.inode().has_flag(format::inode_flag::append);
    std::size_t done = count.value_or(0);
    if ((origin.from_cache || !only_grows) && count && done < bytes.size()) {
        const Result<std::size_t> rest = file.write(static_cast<std::uint64_t>(offset) + done, bytes.subspan(done));
        done += rest.value_or(0);
        if (!rest) count = fail(rest.error());
        else if (done == bytes.size()) count = done;
        else count = fail(ENOSPC, "inode {}: bytes are left", file.inode().number());
    }
    if (count) server.inodes().note_written(node, static_cast<std::uint64_t>(offset), *count);
    else if (origin.from_cache)
        note_refusal(server, node, file, static_cast<std::uint64_t>(offset), bytes, done, count.error());
    const std::size_t written = UEXT4_FUSE_TRY(request, std::move(count));
    server.space_taken(node);
    auto reply = [request, written] { fuse_reply_write(request, written); };
    if (!origin.direct) return reply();
    // The kernel empties its cache before it sends a direct write, and after an asynchronous one not again.
    const bool cached = server.inodes().take_cached_read(node, static_cast<std::uint64_t>(offset), written);
    const bool waits = server.is_space_spoken_for();
    if (!cached && !waits) return reply();
    const auto forget = [&server, node, offset, written] {
        fuse_lowlevel_notify_inval_inode(server.session(), node, offset, static_cast<off_t>(written));
    };
    Server::Held held = server.hold_direct();
    if (!held) {
        reply();
        if (cached) server.off_the_reading_thread(forget);
        return;
    }
    auto job = [cached, forget, reply, held = std::move(held)] {
        if (cached) forget();
        reply();
    };
    if (waits) server.answer_when_free(std::move(job));
    else server.off_the_reading_thread(std::move(job));
}

void write(fuse_req_t request, fuse_ino_t node, const char* data, std::size_t size, off_t offset,
           fuse_file_info* info) {
    Server& server = server_of(request);
    OpenFile& file = Server::file(*info);
    const ConstBytes bytes = bytes_of_string(data, size);
    // What the kernel was told before the file was opened has other blocks. (The file is open, so that the notification
    // waits for nobody: there are only attributes to drop.)
    if (server.inodes().note_write(node)) fuse_lowlevel_notify_inval_inode(server.session(), node, -1, 0);
    const bool from_cache = info->writepage != 0;
    // The end that an append goes to may be anywhere.
    const Origin origin = {.from_cache = from_cache,
                           .direct = !from_cache && is_direct(*info),
                           .in_sectors = !from_cache && is_to_be_in_sectors(*info) && !(info->flags & O_APPEND),
                           .takes_set_ids = server.takes_set_ids()};
    const bool stood_in_for = origin.direct && server.is_stood_in_for();
    if (!server.parks() && !stood_in_for) return reply_written(request, server, node, file, bytes, offset, origin);
    auto job = [request, &server, node, &file, offset, origin,
                copy = std::vector<std::byte>(bytes.begin(), bytes.end())] {
        reply_written(request, server, node, file, copy, offset, origin);
    };
    if (!server.parks()) return server.hand_on(std::move(job));
    // Who runs it after the thaw may be the deputy.
    server.change([&server, direct = origin.direct, job = std::move(job)] {
        if (direct && server.is_stood_in_for()) server.hand_on(job);
        else job();
    });
}

void sync(fuse_req_t request, fuse_ino_t node, int data_only, fuse_file_info* info) {
    Server& server = server_of(request);
    OpenFile& file = Server::file(*info);
    const bool little = file.inode().pages().dirty_folios() <= quickly_written;
    if (is_short_of_space(server)) server.read_what_is_let_go();  // what was removed has space for what had none
    server.make_durable(
        [&server, request, node, data_only, &file] {
            const Result<void> done = file.sync(data_only != 0);
            // Who looks after it sees the blocks that it has now.
            std::optional<std::int64_t> blocks;
            if (const Result<struct stat> now = server.attributes(file.inode())) blocks = now->st_blocks;
            if (server.inodes().told_other_blocks(node, blocks))
                fuse_lowlevel_notify_inval_inode(server.session(), node, -1, 0);
            const int lost = server.inodes().lost(node);
            if (done && lost != 0) fuse_reply_err(request, lost);
            else reply_result(request, done);
        },
        little);
}

void allocate(fuse_req_t request, fuse_ino_t node, int mode, off_t offset, off_t length, fuse_file_info* info) {
    OpenFile& file = Server::file(*info);
    if (offset < 0 || length <= 0) {
        fuse_reply_err(request, EINVAL);
        return;
    }
    Server& server = server_of(request);
    server.read_what_is_let_go();
    server.take_space_later([&server, request, node, &file, mode, offset, length] {
        UEXT4_FUSE_TRY(request, take_set_ids(server, request, file, false));
        const auto first = static_cast<std::uint64_t>(offset), bytes = static_cast<std::uint64_t>(length);
        const Server::LargeTake take(server, (mode & FALLOC_FL_PUNCH_HOLE) ? 0 : bytes);
        const Result<void> done = file.fallocate(mode, first, bytes);
        server.space_taken(node);
        // What was lost behind the end that is known here would have moved it: that is still to be told.
        const std::uint64_t size = file.inode().size_hint();
        if (done && (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) && first < size)
            server.inodes().note_written(node, first, std::min(bytes, size - first));
        reply_result(request, done);
    });
}

// The kernel asks without writing its cache back first, so what it holds would look like a hole. The notification makes
// it write, and is answered by the reading thread: it must not come from there.
void seek(fuse_req_t request, fuse_ino_t, off_t offset, int whence, fuse_file_info* info) {
    Server& server = server_of(request);
    OpenFile& file = Server::file(*info);
    if (offset < 0) {
        fuse_reply_err(request, ENXIO);
        return;
    }
    auto job = [request, &file, offset, whence] {
        const std::uint64_t found = UEXT4_FUSE_TRY(request, file.seek(static_cast<std::uint64_t>(offset), whence));
        fuse_reply_lseek(request, static_cast<off_t>(found));
    };
    if (!server.has_writers(file.inode())) return job();
    // While frozen the kernel's writes wait for the thaw, and so does this.
    server.later(
        [&server, request, &file, job] {
            if (call_in(server, file.inode_ref())) job();
            else fuse_reply_err(request, ENOSPC);  // it would look like a hole
        },
        true);
}

// The kernel drops the pages that a copy has touched, with what others have stored into the rest of them meanwhile. So
// only what is of whole pages, or ends the file, is copied here; the rest the kernel copies through its cache, which
// takes what no file can hold.
bool is_copied_here(OpenFile& to, std::uint64_t offset, std::size_t length) {
    // What a flag refuses is told at once here, and there too late.
    namespace flag = format::inode_flag;
    if (to.inode().has_flag(flag::immutable) || to.inode().has_flag(flag::append)) return true;
    static const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
    const std::uint64_t end = offset + length;
    if (end > to.largest_size()) return true;
    return offset % page == 0 && (end % page == 0 || end >= to.inode().size_hint());
}

void copy(fuse_req_t request, fuse_ino_t, off_t from_offset, fuse_file_info* from_info, fuse_ino_t to_node,
          off_t to_offset, fuse_file_info* to_info, std::size_t length, int flags) {
    Server& server = server_of(request);
    OpenFile &from = Server::file(*from_info), &to = Server::file(*to_info);
    if (flags != 0 || from_offset < 0 || to_offset < 0) {
        fuse_reply_err(request, EINVAL);
        return;
    }
    length = std::min(length, largest_copy);
    if (!is_copied_here(to, static_cast<std::uint64_t>(to_offset), length)) {
        fuse_reply_err(request, EOPNOTSUPP);
        return;
    }
    server.read_what_is_let_go();
    server.take_space_later([&server, request, &from, from_offset, &to, to_node, to_offset, length] {
        UEXT4_FUSE_TRY(request, take_set_ids(server, request, to, false));
        const Server::LargeTake take(server, length);
        const std::size_t count =
            UEXT4_FUSE_TRY(request, server.fs().copy_range(from, static_cast<std::uint64_t>(from_offset), to,
                                                           static_cast<std::uint64_t>(to_offset), length));
        server.space_taken(to_node);
        server.inodes().note_written(to_node, static_cast<std::uint64_t>(to_offset), count);
        fuse_reply_write(request, count);
    });
}

}  // namespace

// FLUSH stays without a handler: the kernel writes its cache back before it asks, and asks only once.
void add_io_operations(fuse_lowlevel_ops& table) {
    table.open = open;
    table.create = create;
    table.release = release;
    table.read = read;
    table.write = write;
    table.fsync = sync;
    table.fallocate = allocate;
    table.lseek = seek;
    table.copy_file_range = copy;
}

}  // namespace uext4::fuse
