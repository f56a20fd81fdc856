// opendir, readdir and readdirplus, releasedir, fsyncdir.
#include "format/constants.h"
#include "fuse/operations.h"

#include <dirent.h>
#include <fcntl.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace uext4::fuse {

namespace {

struct Entry {
    std::string name;
    InodeNr inode;
    std::uint8_t type;
    std::uint64_t next;
};

void open_directory(fuse_req_t request, fuse_ino_t node, fuse_file_info* info) {
    Server& server = server_of(request);
    const InodeRef inode = UEXT4_FUSE_TRY(request, server.inode(node));
    const int flags = O_RDONLY | O_DIRECTORY | (info->flags & O_NOATIME);
    std::unique_ptr<OpenFile> file =
        UEXT4_FUSE_TRY(request, server.fs().open(inode, flags, credentials_of(request), false));
    // Names that the kernel has read it keeps until some change, all by requests of its own. As with a file's contents,
    // what it answers itself moves no access time: whoever's reading is to move it reads anew.
    info->cache_readdir = server.fs().volume().options().fs.atime != AtimePolicy::strict;
    info->keep_cache = !(file->needs_atime_update() && server.inodes().may_drop_names(node));
    info->fh = server.keep(std::move(file));
    if (fuse_reply_open(request, info) != 0) server.drop(info->fh);
}

void release_directory(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
    Server& server = server_of(request);
    const std::uint32_t mark = Server::handle(*info).mark;
    server.drop(info->fh);
    server.marks().gone(mark);
    fuse_reply_err(request, 0);
}

// The entries from `cookie` that may fit in `room` bytes. They are copied: the file system must not be called from
// inside its own visit of a directory. What it has met beside them is the handle's damage; `more`: there are others.
std::vector<Entry> list(FileSystem& fs, Inode& directory, std::uint64_t cookie, std::size_t room, bool plus,
                        OpenHandle& handle, bool& more) {
    constexpr std::size_t header = 24, attributes = 128;  // of a struct fuse_dirent, and what plus puts before it
    constexpr std::size_t unit = 8;
    std::vector<Entry> entries;
    std::size_t used = 0;
    const auto add = [&](const DirectoryEntry& entry) {
        used += (header + entry.name.size() + unit - 1) / unit * unit + (plus ? attributes : 0);
        more = used > room;
        if (more && !entries.empty()) return false;
        entries.push_back({std::string(entry.name), entry.inode, entry.type, entry.next_cookie});
        return !more;
    };
    if (Result<void> read = fs.read_directory(directory, cookie, add, handle.file->flags()); !read)
        handle.damage = read.error().code;
    return entries;
}

// An entry as it is without its inode: enough for names, numbers and types.
fuse_entry_param bare(const Entry& entry) {
    fuse_entry_param out{};
    out.attr.st_ino = entry.inode.value;
    out.attr.st_mode = static_cast<mode_t>(DTTOIF(entry.type));
    return out;
}

bool is_dot(const std::string& name) { return name == "." || name == ".."; }

// What there was of the damage is the answer as often as it is asked for.
void answer_end(fuse_req_t request, Server& server, fuse_ino_t node, const OpenHandle& handle) {
    if (handle.damage == 0 && handle.from_start) server.inodes().note_damage(node, 0);
    if (const int damage = handle.damage != 0 ? handle.damage : server.inodes().damage(node)) {
        fuse_reply_err(request, damage);
        return;
    }
    const auto tell = [&server, request, node] {
        server.inodes().note_end_told(node);
        fuse_reply_buf(request, nullptr, 0);
    };
    if (!server.inodes().is_stale(node)) return tell();
    // Not from the reading thread: whoever is shown other names of it at this moment may need something of that (his
    // memory is a map, perhaps). The names cannot change before the answer.
    server.later(
        [&server, node, tell] {
            fuse_lowlevel_notify_inval_inode(server.session(), node, 0, 0);
            tell();
        },
        false);
}

void answer(fuse_req_t request, fuse_ino_t node, std::size_t size, off_t cookie, OpenHandle& handle, bool plus) {
    Server& server = server_of(request);
    const InodeRef directory = UEXT4_FUSE_TRY(request, server.inode(node));
    const auto from = static_cast<std::uint64_t>(cookie);
    if (from == 0) handle.damage = 0;
    // (Whoever has room for less than the kernel asks for is told from the middle of a piece.)
    handle.from_start = from == 0 || (handle.from_start && from <= handle.place);
    if (from == 0) handle.place = 0;
    // Whoever reads a directory asks once more behind its end.
    const std::uint64_t changes = server.changes();
    if (handle.end == from && handle.changes_at_end == changes) return answer_end(request, server, node, handle);
    bool more = false;
    const std::vector<Entry> entries = list(server.fs(), *directory, from, size, plus, handle, more);
    if (!entries.empty()) server.inodes().note_piece_told(node);
    if (handle.damage != 0) server.inodes().note_damage(node, handle.damage);
    if (entries.empty()) return answer_end(request, server, node, handle);
    // Not of zeros each time: what is sent has been written.
    thread_local std::vector<char> out;
    if (out.size() < size) out.resize(size);
    std::vector<InodeRef> told;
    std::size_t used = 0;
    for (const Entry& entry : entries) {
        fuse_entry_param param = bare(entry);
        InodeRef inode;
        // Of a file that the kernel remembers its name is enough.
        if (plus && !is_dot(entry.name) && !(entry.type == DT_REG && server.inodes().remembers(node_of(entry.inode)))) {
            // A damaged inode costs only its own attributes; whoever asks for it will be told.
            if (Result<InodeRef> found = server.fs().inode(entry.inode)) {
                if (Result<fuse_entry_param> whole = entry_of(request, server, *directory, *found)) {
                    param = *whole;
                    inode = *found;
                }
            }
        }
        const off_t next = static_cast<off_t>(entry.next);
        const std::size_t needed =
            plus ? fuse_add_direntry_plus(request, out.data() + used, size - used, entry.name.c_str(), &param, next)
                 : fuse_add_direntry(request, out.data() + used, size - used, entry.name.c_str(), &param.attr, next);
        if (needed > size - used) {
            more = true;
            break;
        }
        used += needed;
        handle.place = std::max(handle.place, entry.next);
        if (!inode) continue;
        server.inodes().add(*inode, param.attr, asker_of(request));
        told.push_back(std::move(inode));
    }
    if (used == 0) {
        fuse_reply_err(request, EINVAL);  // not room for a single name
        return;
    }
    handle.end.reset();
    if (!more && handle.damage == 0) {
        handle.end = entries.back().next;
        handle.changes_at_end = changes;
    }
    if (fuse_reply_buf(request, out.data(), used) == 0) return;
    for (const InodeRef& inode : told) server.inodes().take_back(node_of(inode->number()));
}

void read_directory(fuse_req_t request, fuse_ino_t node, std::size_t size, off_t cookie, fuse_file_info* info) {
    answer(request, node, size, cookie, Server::handle(*info), false);
}

void read_directory_plus(fuse_req_t request, fuse_ino_t node, std::size_t size, off_t cookie, fuse_file_info* info) {
    answer(request, node, size, cookie, Server::handle(*info), true);
}

// syncfs(2) ends in the kernel, so an fsync of the root stands for it: for what the kernel still holds of open files as
// well. It hands that over when it is told to forget it, and the reading thread takes it.
void sync_all(fuse_req_t request, Server& server) {
    server.later(
        [&server, request] {
            const bool all = server.is_frozen() || server.call_in_writes();
            Result<void> done = server.fs().sync();
            if (done && !all) done = fail(ENOSPC, "there is no space for what the kernel has");
            reply_result(request, done);
        },
        false);
}

void sync_directory(fuse_req_t request, fuse_ino_t node, int data_only, fuse_file_info* info) {
    Server& server = server_of(request);
    if (node == FUSE_ROOT_ID) return sync_all(request, server);
    OpenFile& file = Server::file(*info);
    server.make_durable([request, data_only, &file] { reply_result(request, file.sync(data_only != 0)); }, false);
}

}  // namespace

void add_directory_operations(fuse_lowlevel_ops& table) {
    table.opendir = open_directory;
    table.readdir = read_directory;
    table.readdirplus = read_directory_plus;
    table.releasedir = release_directory;
    table.fsyncdir = sync_directory;
}

}  // namespace uext4::fuse
