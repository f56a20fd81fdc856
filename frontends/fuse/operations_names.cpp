// lookup and forget, and what changes names.
#include "format/constants.h"
#include "fuse/operations.h"
#include "fuse/space.h"

#include <algorithm>
#include <optional>
#include <vector>

namespace uext4::fuse {

Result<void> check_name(std::string_view name) {
    if (name.size() <= format::max_name_length) return {};
    return fail(ENAMETOOLONG, "a name of {} bytes", name.size());
}

Result<fuse_entry_param> entry_of(fuse_req_t request, Server& server, Inode& directory, const InodeRef& inode) {
    fuse_entry_param entry{};
    entry.attr = TRY(server.attributes(*inode));
    entry.ino = node_of(inode->number());
    entry.generation = inode->generation();
    entry.attr_timeout =
        shorter_if_short_of_space(server, server.inodes().attributes_last(entry.ino, entry.attr, asker_of(request)));
    entry.entry_timeout = directory.has_flag(format::inode_flag::casefold) ? 0 : cache_timeout;
    return entry;
}

void reply_entry(fuse_req_t request, Server& server, Inode& directory, const InodeRef& inode) {
    const fuse_entry_param entry = UEXT4_FUSE_TRY(request, entry_of(request, server, directory, inode));
    server.inodes().add(*inode, entry.attr, asker_of(request));
    if (fuse_reply_entry(request, &entry) != 0) server.inodes().take_back(entry.ino);  // the caller was interrupted
}

namespace {

void look_up(fuse_req_t request, fuse_ino_t parent, const char* name) {
    Server& server = server_of(request);
    const InodeRef directory = UEXT4_FUSE_TRY(request, server.inode(parent));
    UEXT4_FUSE_TRY(request, check_name(name));
    // "." asks whether a node still exists, on behalf of NFS; the node may be of any type.
    if (std::string_view(name) == ".") return reply_entry(request, server, *directory, directory);
    const InodeRef inode = UEXT4_FUSE_TRY(request, server.fs().find(*directory, name, credentials_of(request), false));
    if (inode) return reply_entry(request, server, *directory, inode);
    if (directory->has_flag(format::inode_flag::casefold)) {
        fuse_reply_err(request, ENOENT);
        return;
    }
    // That there is no such name may be remembered as well.
    fuse_entry_param none{};
    none.entry_timeout = cache_timeout;
    fuse_reply_entry(request, &none);
}

void forget(fuse_req_t request, fuse_ino_t node, std::uint64_t count) {
    server_of(request).inodes().forget(node, count);
    fuse_reply_none(request);
}

void forget_many(fuse_req_t request, std::size_t count, fuse_forget_data* forgotten) {
    InodeHandles& inodes = server_of(request).inodes();
    for (std::size_t i = 0; i < count; ++i) inodes.forget(forgotten[i].ino, forgotten[i].nlookup);
    fuse_reply_none(request);
}

void make(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t device, const char* target) {
    Server& server = server_of(request);
    server.change_taking_space(
        [&server, request, parent, name = std::string(name), mode, device, target = std::string(target)] {
            const InodeRef directory = UEXT4_FUSE_TRY(request, server.inode(parent));
            UEXT4_FUSE_TRY(request, check_name(name));
            const Credentials who = credentials_of(request, (mode & S_ISGID) != 0);
            const Result<InodeRef> made = server.fs().create(*directory, name, mode, device, target, who, false);
            server.space_taken();
            server.directory_changed(request, parent);
            reply_entry(request, server, *directory, UEXT4_FUSE_TRY(request, made));
        });
}

void make_node(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t device) {
    make(request, parent, name, mode, device, "");
}

void make_directory(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
    make(request, parent, name, static_cast<mode_t>((mode & 07777) | S_IFDIR), 0, "");
}

void make_symlink(fuse_req_t request, const char* target, fuse_ino_t parent, const char* name) {
    make(request, parent, name, static_cast<mode_t>(S_IFLNK | 0777), 0, target);
}

// A removal that failed may have failed behind its change, when that was to be made durable; not with these errors,
// which programs meet on purpose (rmdir of what is not empty) and which come before.
bool may_have_changed(const Result<void>& done) {
    if (done) return true;
    switch (done.error().code) {
        case ENOENT:
        case ENOTEMPTY:
        case EPERM:
        case EACCES: return false;
        default: return true;
    }
}

using Removal = Result<void> (FileSystem::*)(Inode&, std::string_view, const Credentials&, bool);

void remove(fuse_req_t request, fuse_ino_t parent, const char* name, Removal removal) {
    Server& server = server_of(request);
    server.change([&server, request, parent, name = std::string(name), removal] {
        const InodeRef directory = UEXT4_FUSE_TRY(request, server.inode(parent));
        UEXT4_FUSE_TRY(request, check_name(name));
        const Result<void> removed = (server.fs().*removal)(*directory, name, credentials_of(request), false);
        if (may_have_changed(removed)) server.directory_changed(request, parent);
        UEXT4_FUSE_TRY(request, removed);
        fuse_reply_err(request, 0);
    });
}

void unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
    remove(request, parent, name, &FileSystem::unlink);
}
void rmdir(fuse_req_t request, fuse_ino_t parent, const char* name) {
    remove(request, parent, name, &FileSystem::rmdir);
}

struct Rename {
    fuse_ino_t from_parent, to_parent;
    std::string from, to;
    unsigned flags;
};

// `moved`: directories of which the kernel may have the names: ".." is another one now.
void run(fuse_req_t request, Server& server, const Rename& r, const std::vector<fuse_ino_t>& moved) {
    const InodeRef from_directory = UEXT4_FUSE_TRY(request, server.inode(r.from_parent));
    const InodeRef to_directory = UEXT4_FUSE_TRY(request, server.inode(r.to_parent));
    UEXT4_FUSE_TRY(request, check_name(r.from));
    UEXT4_FUSE_TRY(request, check_name(r.to));
    const Result<void> renamed =
        server.fs().rename(*from_directory, r.from, *to_directory, r.to, r.flags, credentials_of(request), false);
    server.space_taken();
    server.directory_changed(request, r.from_parent);
    server.directory_changed(request, r.to_parent);
    for (const fuse_ino_t node : moved)
        if (server.inodes().take_names(node)) fuse_lowlevel_notify_inval_inode(server.session(), node, 0, 0);
    UEXT4_FUSE_TRY(request, renamed);
    fuse_reply_err(request, 0);
}

// The directories that change their parent.
std::vector<fuse_ino_t> moved_directories(Server& server, const Rename& r, const Credentials& who) {
    std::vector<fuse_ino_t> found;
    if (r.from_parent == r.to_parent) return found;
    const auto note = [&](fuse_ino_t parent, const std::string& name) {
        const Result<InodeRef> directory = server.inode(parent);
        if (!directory) return;
        const Result<InodeRef> inode = server.fs().lookup(**directory, name, who, false);
        if (inode && (*inode)->is_directory()) found.push_back(node_of((*inode)->number()));
    };
    note(r.from_parent, r.from);
    if (r.flags & RENAME_EXCHANGE) note(r.to_parent, r.to);
    return found;
}

// A file that takes another's place while it is open: the kernel may hold bytes of it that were not written here yet,
// and a crash must not leave an empty file where there was a full one.
InodeRef replaces_unwritten(Server& server, const Rename& r, const Credentials& who) {
    if (!server.fs().volume().options().fs.auto_da_alloc || (r.flags & RENAME_EXCHANGE)) return {};
    Result<InodeRef> from_directory = server.inode(r.from_parent), to_directory = server.inode(r.to_parent);
    if (!from_directory || !to_directory) return {};
    const Result<InodeRef> source = server.fs().lookup(**from_directory, r.from, who, false);
    if (!source || !(*source)->is_regular() || !server.has_writers(**source)) return {};
    if (!server.fs().lookup(**to_directory, r.to, who, false)) return {};
    return *source;
}

void rename(fuse_req_t request, fuse_ino_t from_parent, const char* from, fuse_ino_t to_parent, const char* to,
            unsigned flags) {
    Server& server = server_of(request);
    server.change([&server, request, r = Rename{from_parent, to_parent, from, to, flags}]() mutable {
        const Credentials who = credentials_of(request);
        InodeRef unwritten = replaces_unwritten(server, r, who);
        std::vector<fuse_ino_t> moved = moved_directories(server, r, who);
        if (!unwritten && moved.empty()) return run(request, server, r, moved);
        // The notifications must not come from the reading thread: it answers the writes that the kernel is made to do,
        // and whoever is shown the names at that moment (as kernels before 6.8 let him) may need something of it: his
        // memory is a map, perhaps.
        server.later(
            [&server, request, r = std::move(r), unwritten = std::move(unwritten), moved = std::move(moved)] {
                // What there is no space for keeps nobody from renaming.
                if (unwritten) call_in(server, unwritten);
                run(request, server, r, moved);
            },
            true);
    });
}

void link(fuse_req_t request, fuse_ino_t node, fuse_ino_t parent, const char* name) {
    Server& server = server_of(request);
    server.change([&server, request, node, parent, name = std::string(name)] {
        const InodeRef target = UEXT4_FUSE_TRY(request, server.inode(node));
        const InodeRef directory = UEXT4_FUSE_TRY(request, server.inode(parent));
        UEXT4_FUSE_TRY(request, check_name(name));
        const Result<void> linked = server.fs().link(*target, *directory, name, credentials_of(request), false);
        server.space_taken();
        server.directory_changed(request, parent);
        UEXT4_FUSE_TRY(request, linked);
        reply_entry(request, server, *directory, target);
    });
}

}  // namespace

void add_name_operations(fuse_lowlevel_ops& table) {
    table.lookup = look_up;
    table.forget = forget;
    table.forget_multi = forget_many;
    table.mknod = make_node;
    table.mkdir = make_directory;
    table.symlink = make_symlink;
    table.unlink = unlink;
    table.rmdir = rmdir;
    table.rename = rename;
    table.link = link;
}

}  // namespace uext4::fuse
