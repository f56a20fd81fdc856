// Copies between the host and an image, with everything that ext4 can hold.
#include "cli/session.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <map>

namespace uext4::cli {

namespace {

constexpr std::size_t chunk = std::size_t{1} << 20;

format::Timestamp stamp(const timespec& t) { return {t.tv_sec, static_cast<std::uint32_t>(t.tv_nsec)}; }
std::string last_part(std::string path) {
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    const std::size_t slash = path.rfind('/');
    return slash == std::string::npos ? path : path.substr(slash + 1);
}

class In {
public:
    In(Session& to, const CopyOptions& o) : to_(to), o_(o) {}

    void copy(const std::string& source, Inode& directory, const std::string& name, unsigned depth = 0) {
        struct stat st{};
        // What is named is followed, unless the links themselves are copied.
        const bool follow = depth == 0 && !o_.recursive;
        if ((follow ? ::stat(source.c_str(), &st) : ::lstat(source.c_str(), &st)) != 0)
            give_up(negative, fmt::format("{}: {}", source, std::strerror(errno)));
        if (S_ISDIR(st.st_mode) && !o_.recursive) give_up(negative, source + ": is a directory (use -r)");
        if (o_.preserve && st.st_nlink > 1 && !S_ISDIR(st.st_mode)) {
            const auto key = std::pair(st.st_dev, st.st_ino);
            if (auto it = linked_.find(key); it != linked_.end()) {
                InodeRef target = need(to_.fs().inode(InodeNr(it->second)), source);
                remove_old(directory, name, st);
                need(to_.fs().link(*target, directory, name, operator_identity(), false), source);
                return;
            }
        }
        if (o_.progress) fmt::print(stderr, "\r\033[K{} files, {} MiB  {}", files_, bytes_ >> 20, name.substr(0, 40));
        InodeRef made = make(source, directory, name, st);
        if (S_ISREG(st.st_mode)) contents(source, made, st);
        if (o_.preserve && st.st_nlink > 1) linked_[{st.st_dev, st.st_ino}] = made->number().value;
        if (S_ISDIR(st.st_mode)) inside(source, *made, depth);
        attributes(source, *made, st);
        ++files_;
    }

    // What is in a directory of the host, into one that is there; with its attributes when all is preserved.
    void merge(const std::string& source, Inode& directory) {
        struct stat st{};
        if (::stat(source.c_str(), &st) != 0) give_up(negative, fmt::format("{}: {}", source, std::strerror(errno)));
        if (!o_.recursive) give_up(negative, source + ": is a directory (use -r)");
        inside(source, directory, 0);
        if (o_.preserve) attributes(source, directory, st);
    }
    ~In() {
        if (o_.progress) fmt::print(stderr, "\r\033[K");
    }

private:
    void inside(const std::string& source, Inode& directory, unsigned depth) {
        std::vector<std::string> names;
        for (const auto& e : std::filesystem::directory_iterator(source)) names.push_back(e.path().filename());
        for (const std::string& n : names) copy(source + "/" + n, directory, n, depth + 1);
    }

    void remove_old(Inode& directory, const std::string& name, const struct stat& st) {
        Result<InodeRef> old = to_.fs().lookup(directory, name, operator_identity(), false);
        if (!old) return;
        if ((*old)->is_directory()) {
            if (!S_ISDIR(st.st_mode)) give_up(negative, name + ": a directory is in the way");
            return;
        }
        need(to_.fs().unlink(directory, name, operator_identity(), false), name);
    }

    InodeRef make(const std::string& source, Inode& directory, const std::string& name, const struct stat& st) {
        remove_old(directory, name, st);
        if (S_ISDIR(st.st_mode)) {
            if (Result<InodeRef> old = to_.fs().lookup(directory, name, operator_identity(), false))
                return std::move(*old);
        }
        std::string target;
        if (S_ISLNK(st.st_mode)) {
            target.resize(static_cast<std::size_t>(st.st_size) + 4096);
            const ssize_t n = ::readlink(source.c_str(), target.data(), target.size());
            if (n < 0) give_up(impossible, source + ": " + std::strerror(errno));
            target.resize(static_cast<std::size_t>(n));
        }
        const mode_t mode = (st.st_mode & S_IFMT) | (S_ISDIR(st.st_mode) ? 0755 : 0644);
        return need(to_.fs().create(directory, name, mode, st.st_rdev, target, operator_identity(), false), source);
    }

    void contents(const std::string& source, const InodeRef& inode, const struct stat& st) {
        const int fd = ::open(source.c_str(), O_RDONLY | O_CLOEXEC);
        if (fd < 0) give_up(impossible, source + ": " + std::strerror(errno));
        const std::unique_ptr<const int, void (*)(const int*)> closer(&fd, [](const int* f) { ::close(*f); });
        std::unique_ptr<OpenFile> file = need(to_.fs().open(inode, O_WRONLY, operator_identity(), false), source);
        std::vector<std::byte> buffer(chunk);
        off_t at = 0;
        while (at < st.st_size) {
            off_t data = ::lseek(fd, at, SEEK_DATA);
            if (data < 0 && errno == ENXIO) break;
            if (data < 0) data = at;
            off_t hole = ::lseek(fd, data, SEEK_HOLE);
            if (hole < 0) hole = st.st_size;
            for (off_t pos = data; pos < hole;) {
                const ssize_t n =
                    ::pread(fd, buffer.data(), std::min<std::size_t>(chunk, static_cast<std::size_t>(hole - pos)), pos);
                if (n < 0) give_up(impossible, source + ": " + std::strerror(errno));
                if (n == 0) break;
                const std::size_t done = need(
                    file->write(static_cast<std::uint64_t>(pos), ConstBytes(buffer).first(static_cast<std::size_t>(n))),
                    source);
                if (done != static_cast<std::size_t>(n)) give_up(impossible, source + ": no space left");
                pos += n;
                bytes_ += static_cast<std::uint64_t>(n);
            }
            at = hole;
        }
        if (static_cast<std::uint64_t>(st.st_size) != inode->size_hint())
            need(file->truncate(static_cast<std::uint64_t>(st.st_size)), source);
    }

    void attributes(const std::string& source, Inode& inode, const struct stat& st) {
        AttributeChange change;
        if (o_.preserve) {
            change.uid = st.st_uid;
            change.gid = st.st_gid;
            for (const auto& [from, to] : o_.map_owner) {
                if (st.st_uid == from) change.uid = to;
                if (st.st_gid == from) change.gid = to;
            }
        } else {
            change.uid = ::geteuid();
            change.gid = ::getegid();
        }
        if (o_.owner) change.uid = o_.owner->first, change.gid = o_.owner->second;
        need(to_.fs().set_attributes(inode, change, operator_identity(), false), source);
        if (o_.preserve) xattrs(source, inode);
        AttributeChange rest;
        if (!S_ISLNK(st.st_mode))
            rest.mode = static_cast<std::uint16_t>(o_.mode       ? *o_.mode
                                                   : o_.preserve ? st.st_mode & 07777
                                                                 : st.st_mode & 0777 & ~022u);
        if (o_.preserve) {
            rest.atime = stamp(st.st_atim);
            rest.mtime = stamp(st.st_mtim);
        }
        need(to_.fs().set_attributes(inode, rest, operator_identity(), false), source);
    }

    void xattrs(const std::string& source, Inode& inode) {
        const ssize_t size = ::llistxattr(source.c_str(), nullptr, 0);
        std::string names(static_cast<std::size_t>(std::max<ssize_t>(size, 0)), '\0');
        const ssize_t got = names.empty() ? 0 : ::llistxattr(source.c_str(), names.data(), names.size());
        // What the new file inherited from its directory is not the source's.
        for (const std::string& name : need(to_.fs().list_xattrs(inode, operator_identity(), false), source))
            if (name.starts_with("system.posix_acl_") && names.find(name) == std::string::npos)
                need(to_.fs().remove_xattr(inode, name, operator_identity(), false), source + ": " + name);
        for (std::size_t at = 0; got > 0 && at < static_cast<std::size_t>(got);) {
            const std::string name(names.c_str() + at);
            at += name.size() + 1;
            const ssize_t n = ::lgetxattr(source.c_str(), name.c_str(), nullptr, 0);
            if (n < 0) continue;
            std::vector<std::byte> value(static_cast<std::size_t>(n));
            if (::lgetxattr(source.c_str(), name.c_str(), value.data(), value.size()) != n) continue;
            const Result<void> set = to_.fs().set_xattr(inode, name, value, 0, operator_identity(), false);
            if (!set && set.error().code != EOPNOTSUPP) need(set, source + ": " + name);
        }
    }

    Session& to_;
    const CopyOptions& o_;
    std::map<std::pair<dev_t, ino_t>, std::uint64_t> linked_;
    std::uint64_t files_ = 0, bytes_ = 0;
};

class Out {
public:
    Out(Session& from, const CopyOptions& o) : from_(from), o_(o) {}

    void copy(const InodeRef& inode, const std::string& source, const std::string& target, unsigned depth = 0) {
        const struct stat st = need(from_.fs().attributes(*inode), source);
        if (S_ISDIR(st.st_mode) && !o_.recursive) give_up(negative, source + ": is a directory (use -r)");
        if (o_.preserve && st.st_nlink > 1 && !S_ISDIR(st.st_mode)) {
            if (auto it = linked_.find(st.st_ino); it != linked_.end()) {
                ::unlink(target.c_str());
                check(::link(it->second.c_str(), target.c_str()), target);
                return;
            }
            linked_[st.st_ino] = target;
        }
        switch (st.st_mode & S_IFMT) {
            case S_IFDIR:
                if (::mkdir(target.c_str(), 0700) != 0) {
                    if (errno != EEXIST) check(-1, target);
                    // Below the first one a link in the way would lead out of the tree that is written.
                    struct stat there{};
                    check(depth == 0 ? ::stat(target.c_str(), &there) : ::lstat(target.c_str(), &there), target);
                    if (!S_ISDIR(there.st_mode)) give_up(negative, target + ": is in the way of a directory");
                }
                above_.enter(from_, *inode);
                break;
            case S_IFLNK:
                ::unlink(target.c_str());
                check(::symlink(need(from_.fs().read_link(*inode), source).c_str(), target.c_str()), target);
                break;
            case S_IFREG: contents(inode, source, target, st); break;
            default:
                ::unlink(target.c_str());
                if (::mknod(target.c_str(), (st.st_mode & S_IFMT) | 0600, st.st_rdev) != 0) {
                    // Only root makes devices; the others still get the rest of the tree.
                    if (errno != EPERM) check(-1, target);
                    fmt::print(stderr, "uext4 cp: {}: {}\n", target, std::strerror(EPERM));
                    incomplete_ = true;
                    return;
                }
        }
        if (S_ISDIR(st.st_mode)) {
            std::vector<std::pair<std::string, std::uint64_t>> names;
            need(from_.fs().read_directory(*inode, 0,
                                           [&](const DirectoryEntry& e) {
                                               if (e.name != "." && e.name != "..")
                                                   names.emplace_back(std::string(e.name), e.inode.value);
                                               return true;
                                           }),
                 source);
            for (const auto& [name, number] : names) {
                if (name.find('/') != std::string::npos) give_up(negative, source + ": a name with a slash");
                copy(need(from_.fs().inode(InodeNr(number)), source + "/" + name), source + "/" + name,
                     target + "/" + name, depth + 1);
            }
            above_.leave();
        }
        attributes(*inode, source, target, st);
    }

    // Something was left out and told.
    bool incomplete() const { return incomplete_; }

private:
    static void check(int result, const std::string& what) {
        if (result != 0) give_up(impossible, what + ": " + std::strerror(errno));
    }

    void contents(const InodeRef& inode, const std::string& source, const std::string& target, const struct stat& st) {
        const int fd = ::open(target.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        check(fd < 0 ? -1 : 0, target);
        const std::unique_ptr<const int, void (*)(const int*)> closer(&fd, [](const int* f) { ::close(*f); });
        std::unique_ptr<OpenFile> file =
            need(from_.fs().open(inode, O_RDONLY | O_NOATIME, operator_identity(), false), source);
        std::vector<std::byte> buffer(chunk);
        const std::uint64_t size = static_cast<std::uint64_t>(st.st_size);
        for (std::uint64_t at = 0; at < size;) {
            Result<std::uint64_t> found = file->seek(at, SEEK_DATA);
            if (!found && found.error().code == ENXIO) break;
            const std::uint64_t data = need(std::move(found), source);
            const std::uint64_t end = std::min(size, need(file->seek(data, SEEK_HOLE), source));
            for (std::uint64_t pos = data; pos < end;) {
                const std::size_t n =
                    need(file->read(pos, Bytes(buffer).first(std::min<std::uint64_t>(chunk, end - pos))), source);
                if (n == 0) break;
                for (std::size_t done = 0; done < n;) {
                    const ssize_t w = ::pwrite(fd, buffer.data() + done, n - done, static_cast<off_t>(pos + done));
                    if (w < 0) check(-1, target);
                    done += static_cast<std::size_t>(w);
                }
                pos += n;
            }
            at = std::max(end, data + 1);
        }
        check(::ftruncate(fd, st.st_size), target);
    }

    void attributes(Inode& inode, const std::string& source, const std::string& target, const struct stat& st) {
        if (o_.preserve) {
            if (::lchown(target.c_str(), st.st_uid, st.st_gid) != 0 && errno != EPERM) check(-1, target);
            for (const std::string& name : need(from_.fs().list_xattrs(inode, operator_identity(), false), source)) {
                const std::vector<std::byte> value =
                    need(from_.fs().get_xattr(inode, name, operator_identity(), false), source);
                if (::lsetxattr(target.c_str(), name.c_str(), value.data(), value.size(), 0) != 0 && errno != EPERM &&
                    errno != EOPNOTSUPP)
                    fmt::print(stderr, "uext4 cp: {}: {}: {}\n", target, name, std::strerror(errno));
            }
        }
        if (!S_ISLNK(st.st_mode))
            check(::chmod(target.c_str(), o_.mode       ? *o_.mode
                                          : o_.preserve ? st.st_mode & 07777
                                                        : st.st_mode & 0777),
                  target);
        if (o_.preserve) {
            const timespec times[2] = {st.st_atim, st.st_mtim};
            ::utimensat(AT_FDCWD, target.c_str(), times, AT_SYMLINK_NOFOLLOW);
        }
    }

    Session& from_;
    const CopyOptions& o_;
    std::map<ino_t, std::string> linked_;
    Ancestors above_;
    bool incomplete_ = false;
};

}  // namespace

void copy_in(Session& to, const std::string& source, const std::string& target, const CopyOptions& options) {
    In in(to, options);
    Result<InodeRef> there = to.fs().resolve(target, operator_identity());
    if (there && (*there)->is_directory()) {
        // "tree/." has no name of its own: what is in it goes straight into the target, as with cp(1).
        const std::string name = last_part(source);
        if (name == "." || name == ".." || name == "/") in.merge(source, **there);
        else in.copy(source, **there, name);
        return;
    }
    FileSystem::Parent parent = to.parent(target);
    in.copy(source, *parent.directory, parent.name);
}

void copy_out(Session& from, const std::string& source, const std::string& target, const CopyOptions& options) {
    InodeRef inode = from.resolve(source, !options.recursive);
    std::string where = target;
    struct stat st{};
    if (::stat(target.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) {
        const std::string name = last_part(source);
        if (name != "/" && !name.empty()) where += "/" + name;
    }
    Out out(from, options);
    out.copy(inode, source, where);
    if (out.incomplete()) give_up(negative, "not everything was copied");
}

}  // namespace uext4::cli
