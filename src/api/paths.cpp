#include "api/file_system.h"

#include <fcntl.h>

#include <limits.h>
#include <charconv>

namespace uext4 {

namespace {

constexpr unsigned most_links = 40;

// "<12>": an inode by its number.
std::optional<InodeNr> numbered(std::string_view path) {
    if (path.size() < 3 || path.front() != '<' || path.back() != '>') return std::nullopt;
    std::uint64_t n = 0;
    const auto [end, error] = std::from_chars(path.data() + 1, path.data() + path.size() - 1, n);
    if (error != std::errc() || end != path.data() + path.size() - 1) return std::nullopt;
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

Result<InodeRef> FileSystem::resolve(std::string_view path, const Credentials& who, bool follow_last) {
    if (path.size() >= PATH_MAX) return fail(ENAMETOOLONG, "a path of {} bytes", path.size());
    if (path.empty()) return fail(ENOENT, "an empty path");
    if (const auto number = numbered(path)) return inode(*number);
    InodeRef here = TRY(root());
    std::string text(path);
    std::string_view rest = text;
    unsigned links = 0;
    std::string replaced;
    while (!nothing_left(rest)) {
        const std::string part(next_part(rest));
        const bool trailing = !rest.empty();
        const bool last = nothing_left(rest);
        if (!here->is_directory()) return fail(ENOTDIR, "'{}': inode {} is no directory", path, here->number());
        Result<InodeRef> found = lookup(*here, part, who, true);
        if (!found) return fail(found.error().code, "'{}': {}", path, found.error().what);
        if ((*found)->is_symlink() && (!last || follow_last || trailing)) {
            if (++links > most_links) return fail(ELOOP, "'{}': more than {} symbolic links", path, most_links);
            const std::string target = TRY(read_link(**found));
            if (target.empty()) return fail(ENOENT, "'{}': an empty symbolic link", path);
            replaced = target + std::string(rest);
            if (replaced.size() >= PATH_MAX)
                return fail(ENAMETOOLONG, "'{}': symbolic links make it {} bytes", path, replaced.size());
            if (target.front() == '/') here = TRY(root());
            text = replaced;
            rest = text;
            continue;
        }
        here = std::move(*found);
        if (last && trailing && !here->is_directory())
            return fail(ENOTDIR, "'{}': inode {} is no directory", path, here->number());
    }
    return here;
}

Result<FileSystem::Parent> FileSystem::resolve_parent(std::string_view path, const Credentials& who) {
    if (path.empty()) return fail(ENOENT, "an empty path");
    while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
    const std::size_t slash = path.rfind('/');
    const std::string_view name = slash == std::string_view::npos ? path : path.substr(slash + 1);
    if (name.empty()) return fail(EBUSY, "'/' has no name");
    const std::string_view directory =
        slash == std::string_view::npos || slash == 0 ? std::string_view("/") : path.substr(0, slash);
    InodeRef parent = TRY(resolve(directory, who));
    if (!parent->is_directory()) return fail(ENOTDIR, "'{}' is no directory", directory);
    return Parent{std::move(parent), std::string(name)};
}

Result<std::unique_ptr<OpenFile>> FileSystem::open_path(std::string_view path, int flags, mode_t mode,
                                                        const Credentials& who) {
    if ((flags & O_TMPFILE) == O_TMPFILE) {
        if ((flags & O_ACCMODE) == O_RDONLY) return fail(EINVAL, "O_TMPFILE needs write access");
        InodeRef directory = TRY(resolve(path, who));
        if (!directory->is_directory()) return fail(ENOTDIR, "'{}' is no directory", path);
        InodeRef made = TRY(create_unnamed(*directory, S_IFREG | (mode & 07777), who, true));
        return open(made, flags & ~(O_TMPFILE | O_CREAT | O_EXCL | O_TRUNC), who, false);
    }
    const bool follow = !(flags & O_NOFOLLOW) && !((flags & O_CREAT) && (flags & O_EXCL));
    for (int attempt = 0; attempt < 8; ++attempt) {
        Result<InodeRef> found = resolve(path, who, follow);
        if (found) {
            if ((flags & O_CREAT) && (flags & O_EXCL)) return fail(EEXIST, "'{}' exists", path);
            if ((flags & O_CREAT) && (*found)->is_directory()) return fail(EISDIR, "'{}' is a directory", path);
            return open(*found, flags, who, true);
        }
        if (found.error().code != ENOENT || !(flags & O_CREAT)) return fail(found.error());
        if (path.size() > 1 && path.back() == '/') return fail(EISDIR, "'{}' ends with a slash", path);
        Parent parent = TRY(resolve_parent(path, who));
        // A dangling link is followed to where its target would be.
        if (follow) {
            Result<InodeRef> link = lookup(*parent.directory, parent.name, who, true);
            if (link && (*link)->is_symlink()) {
                const std::string target = TRY(read_link(**link));
                const std::string base(
                    path.substr(0, path.rfind('/') == std::string_view::npos ? 0 : path.rfind('/') + 1));
                return open_path(target.starts_with('/') ? target : base + target, flags | O_NOFOLLOW, mode, who);
            }
        }
        Result<InodeRef> made = create(*parent.directory, parent.name, S_IFREG | (mode & 07777), 0, {}, who, true);
        if (made) return open(*made, flags & ~(O_TRUNC | O_CREAT | O_EXCL), who, false);
        if (made.error().code != EEXIST || (flags & O_EXCL)) return fail(made.error());
    }
    return fail(EAGAIN, "'{}' comes and goes", path);
}

}  // namespace uext4
