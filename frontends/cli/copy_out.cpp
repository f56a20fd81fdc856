#include "cli/copy.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

namespace uext4::cli {

namespace {

void check(int result, const std::string& what) {
    if (result != 0) give_up(impossible, what + ": " + std::strerror(errno));
}

}  // namespace

void CopyOut::expect(const std::string& source) {
    if (!progress_.shown()) return;
    try {
        if (Result<InodeRef> inode = from_.fs().resolve(source, operator_identity(), !o_.recursive))
            expect(*inode, source, 0);
    } catch (const Failure&) {
        // Whatever is wrong is told by the copy itself.
    }
}

void CopyOut::expect(const InodeRef& inode, const std::string& source, unsigned depth) {
    const Result<struct stat> st = from_.fs().attributes(*inode);
    if (!st) return;
    progress_.expect(*st);
    if (!S_ISDIR(st->st_mode) || !o_.recursive) return;
    const Ancestors::Inside inside(above_, from_, *inode);
    for (const auto& [name, number] : names_in(*inode, source))
        if (Result<InodeRef> child = from_.fs().inode(InodeNr(number))) expect(*child, source + "/" + name, depth + 1);
}

bool CopyOut::copy(const std::string& source, const std::string& target) {
    return outcome_.attempt(progress_, [&] { named(source, target); });
}

void CopyOut::named(const std::string& source, const std::string& target) {
    InodeRef inode = from_.resolve(source, !o_.recursive);
    std::string where = target;
    struct stat st{};
    if (::stat(target.c_str(), &st) == 0 && S_ISDIR(st.st_mode) && !means_contents(source))
        where += "/" + last_part(source);
    else if (target.ends_with('/') && !inode->is_directory()) give_up(negative, target + ": is no directory");
    entry(inode, source, where);
}

std::vector<std::pair<std::string, std::uint64_t>> CopyOut::names_in(Inode& directory, const std::string& source) {
    std::vector<std::pair<std::string, std::uint64_t>> names;
    need(from_.fs().read_directory(directory, 0,
                                   [&](const DirectoryEntry& e) {
                                       if (e.name != "." && e.name != "..")
                                           names.emplace_back(std::string(e.name), e.inode.value);
                                       return true;
                                   }),
         source);
    for (const auto& [name, number] : names)
        if (name.find('/') != std::string::npos) give_up(negative, source + ": a name with a slash");
    return names;
}

void CopyOut::entry(const InodeRef& inode, const std::string& source, const std::string& target, unsigned depth) {
    const struct stat st = need(from_.fs().attributes(*inode), source);
    if (!S_ISREG(st.st_mode) && !o_.recursive)
        give_up(negative, fmt::format("{}: {}", source,
                                      S_ISDIR(st.st_mode) ? "is a directory (use -r)"
                                                          : "is no file, and has no contents (-r copies devices, "
                                                            "fifos and sockets themselves)"));
    if (o_.preserve && st.st_nlink > 1 && !S_ISDIR(st.st_mode)) {
        if (auto it = linked_.find(st.st_ino); it != linked_.end()) {
            ::unlink(target.c_str());
            check(::link(it->second.c_str(), target.c_str()), target);
            progress_.finish(st);
            return;
        }
    }
    progress_.begin(last_part(source));
    bool attributes_too = true;
    switch (st.st_mode & S_IFMT) {
        case S_IFDIR:
            if (::mkdir(target.c_str(), 0700) != 0) {
                if (errno != EEXIST) check(-1, target);
                // Below the first one a link in the way would lead out of the tree that is written.
                struct stat there{};
                check(depth == 0 ? ::stat(target.c_str(), &there) : ::lstat(target.c_str(), &there), target);
                if (!S_ISDIR(there.st_mode)) give_up(negative, target + ": is in the way of a directory");
            }
            break;
        case S_IFLNK:
            ::unlink(target.c_str());
            check(::symlink(need(from_.fs().read_link(*inode), source).c_str(), target.c_str()), target);
            break;
        case S_IFREG: attributes_too = contents(inode, source, target, st); break;
        default:
            ::unlink(target.c_str());
            if (::mknod(target.c_str(), (st.st_mode & S_IFMT) | 0600, st.st_rdev) != 0) {
                // Only root makes devices; the others still get the rest of the tree.
                if (errno != EPERM) check(-1, target);
                outcome_.tell(progress_, negative, target + ": " + std::strerror(EPERM));
                return;
            }
    }
    if (S_ISDIR(st.st_mode)) inside(inode, source, target, depth);
    else if (st.st_nlink > 1) linked_[st.st_ino] = target;
    progress_.finish(st);
    // Links to files below are still to be made, so the way to them stays open. Children come before their parents.
    if (S_ISDIR(st.st_mode) && (mode_out(st) & S_IRWXU) != S_IRWXU) left_.push_back({source, target, st});
    else if (attributes_too) attributes(*inode, source, target, st);
}

void CopyOut::inside(const InodeRef& inode, const std::string& source, const std::string& target, unsigned depth) {
    outcome_.attempt(progress_, [&] {
        const Ancestors::Inside inside(above_, from_, *inode);
        for (const auto& [name, number] : names_in(*inode, source))
            outcome_.attempt(progress_, [&, name = name, number = number] {
                entry(need(from_.fs().inode(InodeNr(number)), source + "/" + name), source + "/" + name,
                      target + "/" + name, depth + 1);
            });
    });
}

CopyOut::Target CopyOut::open(const std::string& target) const {
    struct stat st{};
    Target out;
    out.was_there = ::stat(target.c_str(), &st) == 0;
    // Links that lead elsewhere may have come from the image, in a tree that is copied.
    if (!o_.recursive && !out.was_there && ::lstat(target.c_str(), &st) == 0)
        give_up(negative, target + ": is a link that leads nowhere");
    const int follow = o_.recursive ? O_NOFOLLOW : 0;
    const int fd = ::open(target.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | follow, 0600);
    check(fd < 0 ? -1 : 0, target);
    out.file = HostFile(fd);
    check(::fstat(fd, &st), target);
    out.is_file = S_ISREG(st.st_mode);
    return out;
}

bool CopyOut::contents(const InodeRef& inode, const std::string& source, const std::string& target,
                       const struct stat& st) {
    const Target to = open(target);
    std::unique_ptr<OpenFile> file =
        need(from_.fs().open(inode, O_RDONLY | O_NOATIME, operator_identity(), false), source);
    std::vector<std::byte> buffer(copy_chunk);
    const std::uint64_t size = static_cast<std::uint64_t>(st.st_size);
    for (std::uint64_t at = 0; at < size;) {
        // Pipes and devices get holes as zeros.
        std::uint64_t data = at, end = size;
        if (to.is_file) {
            Result<std::uint64_t> found = file->seek(at, SEEK_DATA);
            if (!found && found.error().code == ENXIO) break;
            data = need(std::move(found), source);
            end = std::min(size, need(file->seek(data, SEEK_HOLE), source));
        }
        for (std::uint64_t pos = data; pos < end;) {
            const std::size_t n =
                need(file->read(pos, Bytes(buffer).first(std::min<std::uint64_t>(copy_chunk, end - pos))), source);
            if (n == 0) break;
            for (std::size_t done = 0; done < n;) {
                const std::byte* const rest = buffer.data() + done;
                const ssize_t w = to.is_file ? ::pwrite(to.file.fd(), rest, n - done, static_cast<off_t>(pos + done))
                                             : ::write(to.file.fd(), rest, n - done);
                if (w < 0) check(-1, target);
                done += static_cast<std::size_t>(w);
            }
            pos += n;
            progress_.advance(n);
        }
        at = std::max(end, data + 1);
    }
    if (!to.is_file) return false;
    check(::ftruncate(to.file.fd(), st.st_size), target);
    return !to.was_there || o_.preserve || o_.mode;
}

void CopyOut::finish() {
    for (const Left& directory : std::exchange(left_, {}))
        outcome_.attempt(progress_, [&] {
            InodeRef inode = need(from_.fs().inode(InodeNr(directory.st.st_ino)), directory.source);
            attributes(*inode, directory.source, directory.target, directory.st);
        });
}

mode_t CopyOut::mode_out(const struct stat& st) const {
    if (o_.mode) return *o_.mode;
    return st.st_mode & (o_.preserve ? 07777 : 0777);
}

void CopyOut::attributes(Inode& inode, const std::string& source, const std::string& target, const struct stat& st) {
    // With another owner than the image says, set-id bits would give somebody else's rights away.
    mode_t kept = 07777;
    if (o_.preserve) {
        if (::lchown(target.c_str(), st.st_uid, st.st_gid) != 0) {
            if (errno != EPERM) check(-1, target);
            kept = 01777;
        }
        for (const std::string& name : need(from_.fs().list_xattrs(inode, operator_identity(), false), source)) {
            const std::vector<std::byte> value =
                need(from_.fs().get_xattr(inode, name, operator_identity(), false), source);
            if (::lsetxattr(target.c_str(), name.c_str(), value.data(), value.size(), 0) != 0 && errno != EPERM &&
                errno != EOPNOTSUPP)
                outcome_.tell(progress_, fine, target + ": " + name + ": " + std::strerror(errno));
        }
    }
    if (!S_ISLNK(st.st_mode)) check(::chmod(target.c_str(), o_.mode ? *o_.mode : mode_out(st) & kept), target);
    if (o_.preserve) {
        const timespec times[2] = {st.st_atim, st.st_mtim};
        ::utimensat(AT_FDCWD, target.c_str(), times, AT_SYMLINK_NOFOLLOW);
    }
}

}  // namespace uext4::cli
