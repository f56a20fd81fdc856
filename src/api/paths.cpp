#include "api/file_system.h"

#include "inode/access.h"

#include <fcntl.h>

#include <limits.h>
#include <charconv>

namespace uext4 {

namespace {

constexpr unsigned most_links = 40;

// The number of a path that begins with an inode's, like "<12>" or "<12>/name"; `rest` is what follows it then.
std::optional<InodeNr> numbered(std::string_view path, std::string_view& rest) {
    const std::string_view first = path.substr(0, path.find('/'));
    if (first.size() < 3 || first.front() != '<' || first.back() != '>') return std::nullopt;
    std::uint64_t n = 0;
    const auto [end, error] = std::from_chars(first.data() + 1, first.data() + first.size() - 1, n);
    if (error != std::errc() || end != first.data() + first.size() - 1) return std::nullopt;
    rest = path.substr(first.size());
    return InodeNr(n);
}

std::string_view next_part(std::string_view& rest) {
    while (!rest.empty() && rest.front() == '/') rest.remove_prefix(1);
    const std::string_view part = rest.substr(0, rest.find('/'));
    rest.remove_prefix(part.size());
    return part;
}

bool nothing_left(std::string_view rest) { return rest.find_first_not_of('/') == std::string_view::npos; }

}  // namespace

Result<FileSystem::PathLookup> FileSystem::walk_path(std::string_view path, const Credentials& who, bool follow_last) {
    if (path.size() >= PATH_MAX) return fail(ENAMETOOLONG, "a path of {} bytes", path.size());
    if (path.empty()) return fail(ENOENT, "an empty path");
    PathLookup place;
    std::string text;
    std::string_view rest = path;
    if (const auto number = numbered(path, rest)) {
        if (!volume_->geometry().valid_inode(*number))
            return fail(ENOENT, "'{}': there are {} inodes", path, volume_->geometry().inodes_count);
        place.found = TRY(inode(*number));
        if (!rest.empty() && !place.found->is_directory())
            return fail(ENOTDIR, "'{}': inode {} is no directory", path, *number);
    } else {
        place.found = TRY(root());
    }
    unsigned links = 0;
    while (!nothing_left(rest)) {
        InodeRef here = place.found;
        place.name = next_part(rest);
        place.slash = !rest.empty();
        const bool last = nothing_left(rest);
        if (!here->is_directory()) return fail(ENOTDIR, "'{}': inode {} is no directory", path, here->number());
        Result<InodeRef> found = find(*here, place.name, who, true);
        if (!found) return fail(found.error().code, "'{}': {}", path, found.error().what);
        if (!*found) {
            if (!last) return fail(ENOENT, "'{}': no such entry in directory {}", path, here->number());
            place.directory = std::move(here);
            place.found = {};
            return place;
        }
        if ((*found)->is_symlink() && (!last || follow_last || place.slash)) {
            if (++links > most_links) return fail(ELOOP, "'{}': more than {} symbolic links", path, most_links);
            const std::string target = TRY(read_link(**found));
            if (target.empty()) return fail(ENOENT, "'{}': an empty symbolic link", path);
            if (target.front() == '/') place.found = TRY(root());
            text = target + std::string(rest);
            rest = text;
            continue;
        }
        place.directory = std::move(here);
        place.found = std::move(*found);
        if (last && place.slash && !place.found->is_directory())
            return fail(ENOTDIR, "'{}': inode {} is no directory", path, place.found->number());
    }
    return place;
}

Result<InodeRef> FileSystem::resolve(std::string_view path, const Credentials& who, bool follow_last) {
    PathLookup place = TRY(walk_path(path, who, follow_last));
    if (!place.found) return fail(ENOENT, "'{}': no such entry in directory {}", path, place.directory->number());
    return std::move(place.found);
}

Result<FileSystem::Parent> FileSystem::resolve_parent(std::string_view path, const Credentials& who) {
    if (path.size() >= PATH_MAX) return fail(ENAMETOOLONG, "a path of {} bytes", path.size());
    if (path.empty()) return fail(ENOENT, "an empty path");
    const bool slash = path.back() == '/';
    while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
    const std::size_t at = path.rfind('/');
    const std::string_view name = at == std::string_view::npos ? path : path.substr(at + 1);
    if (name.empty()) return fail(EBUSY, "'/' has no name");
    if (std::string_view rest; at == std::string_view::npos && numbered(name, rest))
        return fail(EINVAL, "'{}' is an inode's number, where a name is needed", name);
    const std::string_view directory =
        at == std::string_view::npos || at == 0 ? std::string_view("/") : path.substr(0, at);
    InodeRef parent = TRY(resolve(directory, who));
    if (!parent->is_directory()) return fail(ENOTDIR, "'{}' is no directory", directory);
    TRY(check_access(*parent, who, access_execute));
    return Parent{std::move(parent), std::string(name), slash};
}

Result<std::unique_ptr<OpenFile>> FileSystem::open_tmpfile(std::string_view path, int flags, mode_t mode,
                                                           const Credentials& who) {
    if ((flags & O_ACCMODE) == O_RDONLY || (flags & O_CREAT)) return fail(EINVAL, "O_TMPFILE needs write access");
    InodeRef directory = TRY(resolve(path, who, !(flags & O_NOFOLLOW)));
    if (!directory->is_directory()) return fail(ENOTDIR, "'{}' is no directory", path);
    const InodeRef made = TRY(create_tmpfile(*directory, S_IFREG | (mode & 07777), flags, who, true));
    return open(made, flags & ~(O_TMPFILE | O_EXCL | O_TRUNC), who, false);
}

Result<std::unique_ptr<OpenFile>> FileSystem::open_path(std::string_view path, int flags, mode_t mode,
                                                        const Credentials& who) {
    if ((flags & O_TMPFILE) == O_TMPFILE) return open_tmpfile(path, flags, mode, who);
    if ((flags & O_CREAT) && (flags & O_DIRECTORY)) return fail(EINVAL, "O_CREAT makes no directories");
    const bool exclusive = (flags & O_CREAT) && (flags & O_EXCL);
    for (int attempt = 0; attempt < 8; ++attempt) {
        if (flags & O_CREAT) {
            // The last part is to be a file's name, whatever it names now.
            if (!path.empty() && path.back() == '/' && !nothing_left(path)) {
                TRY(resolve_parent(path, who));
                return fail(EISDIR, "'{}' ends with a slash", path);
            }
        }
        PathLookup place = TRY(walk_path(path, who, !(flags & O_NOFOLLOW) && !exclusive));
        if (place.found) {
            if (exclusive) return fail(EEXIST, "'{}' exists", path);
            if ((flags & O_CREAT) && place.found->is_directory()) return fail(EISDIR, "'{}' is a directory", path);
            return open(place.found, flags, who, true);
        }
        if (!(flags & O_CREAT)) return fail(ENOENT, "'{}': no such entry", path);
        if (place.slash) return fail(EISDIR, "'{}': a symbolic link ends with a slash", path);
        Result<InodeRef> made = create(*place.directory, place.name, S_IFREG | (mode & 07777), 0, {}, who, true);
        if (made) return open(*made, flags & ~(O_TRUNC | O_CREAT | O_EXCL), who, false);
        if (made.error().code != EEXIST || exclusive) return fail(made.error());
    }
    return fail(EAGAIN, "'{}' comes and goes", path);
}

}  // namespace uext4
