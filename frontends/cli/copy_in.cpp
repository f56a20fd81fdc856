#include "cli/copy.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>

namespace uext4::cli {

format::Timestamp time_of(const timespec& t) { return {t.tv_sec, static_cast<std::uint32_t>(t.tv_nsec)}; }

std::string last_part(std::string path) {
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    const std::size_t slash = path.rfind('/');
    return slash == std::string::npos ? path : path.substr(slash + 1);
}

bool means_contents(const std::string& path) {
    const std::string name = last_part(path);
    return name == "." || name == ".." || name == "/" || name.empty();
}

bool Outcome::attempt(Progress& progress, const std::function<void()>& part) {
    try {
        part();
        return true;
    } catch (const Failure& failure) {
        tell(progress, failure.code, failure.what);
        return false;
    }
}

void Outcome::tell(Progress& progress, int code, const std::string& what) {
    progress.clear();
    fmt::print(stderr, "uext4 cp: {}\n", told(what));
    code_ = std::max(code_, code);
}

Owner CopyOptions::asked(const struct stat& st) const {
    if (owner) return {owner->first, owner->second};
    Owner out;
    for (const auto& [from, to] : map_owner) {
        if (st.st_uid == from) out.uid = to;
        if (st.st_gid == from) out.gid = to;
    }
    return out;
}

Owner CopyOptions::owner_of(const struct stat& st) const {
    if (aside && (preserve || !map_owner.empty())) return {st.st_uid, st.st_gid};
    Owner out = asked(st);
    if (!preserve) return out;
    if (!out.uid) out.uid = st.st_uid;
    if (!out.gid) out.gid = st.st_gid;
    return out;
}

void CopyIn::expect(const std::string& source) {
    if (!progress_.shown()) return;
    struct stat st{};
    // Whatever is wrong is told by the copy itself.
    if (::lstat(source.c_str(), &st) != 0) return;
    progress_.expect(st);
    if (!S_ISDIR(st.st_mode) || !o_.recursive) return;
    std::error_code ignored;
    for (const auto& e : std::filesystem::directory_iterator(source, ignored)) expect(e.path().string());
}

void CopyIn::copy(const std::string& source, const std::string& target) {
    outcome_.attempt(progress_, [&] { named(source, target); });
}

HostFile::~HostFile() {
    if (fd_ >= 0) ::close(fd_);
}

CopyIn::Source CopyIn::open(const std::string& source, bool named) const {
    Source out;
    struct stat& st = out.st;
    if ((named && !o_.recursive ? ::stat(source.c_str(), &st) : ::lstat(source.c_str(), &st)) != 0)
        give_up(negative, fmt::format("{}: {}", source, std::strerror(errno)));
    if (!o_.recursive) {
        if (S_ISDIR(st.st_mode)) give_up(negative, source + ": is a directory (use -r)");
        // Of pipes and devices the contents, then; only copies of trees have the nodes themselves.
        if (!S_ISREG(st.st_mode)) st.st_size = 0;
        st.st_mode = (st.st_mode & 07777) | S_IFREG;
    }
    if (!S_ISREG(st.st_mode)) return out;
    if (to_.is_image(st)) give_up(negative, source + ": is the image that is copied to");
    const int fd = ::open(source.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) give_up(impossible, source + ": " + std::strerror(errno));
    return {st, HostFile(fd)};
}

CopyIn::Spot CopyIn::spot(Inode& directory, const std::string& name, const std::string& path) const {
    return {directory, name, path, to_.at(path)};
}

void CopyIn::named(const std::string& source, const std::string& target) {
    Result<InodeRef> there = to_.fs().resolve(target, operator_identity());
    if (there && (*there)->is_directory()) {
        if (means_contents(source)) return merge(source, **there, target);
        const std::string name = last_part(source);
        return entry(source, spot(**there, name, below(target, name)));
    }
    // A link that leads in a circle can still be replaced.
    if (!there && there.error().code != ENOENT && !to_.fs().resolve(target, operator_identity(), false))
        to_.refuse_path(there.error(), target);
    if (there && target.starts_with('<') && target.find('/') == std::string::npos)
        return replace(source, *there, target);
    struct stat st{};
    const bool directory = o_.recursive && ::lstat(source.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
    FileSystem::Parent parent = directory ? to_.parent(target) : to_.parent_of_file(target);
    entry(source, spot(*parent.directory, parent.name, target));
}

void CopyIn::entry(const std::string& source, const Spot& to, unsigned depth) {
    const auto [st, from] = open(source, depth == 0);
    if (o_.preserve && st.st_nlink > 1 && !S_ISDIR(st.st_mode)) {
        const auto key = std::pair(st.st_dev, st.st_ino);
        if (auto it = linked_.find(key); it != linked_.end()) {
            InodeRef target = need(to_.fs().inode(InodeNr(it->second)), to.at);
            remove_old(to);
            need(to_.fs().link(*target, to.directory, to.name, operator_identity(), false), to.at);
            progress_.finish(st);
            return;
        }
    }
    progress_.begin(to.name);
    const auto [made, was_there] = make(source, to, st);
    if (S_ISREG(st.st_mode)) contents(from.fd(), source, made, to.at, st);
    if (o_.preserve && st.st_nlink > 1) linked_[{st.st_dev, st.st_ino}] = made->number().value;
    if (S_ISDIR(st.st_mode)) inside(source, *made, to.path, depth);
    attributes(source, *made, to.at, st, was_there);
    progress_.finish(st);
}

// A file's contents for an inode that was named by its number: whatever names it has, they stay.
void CopyIn::replace(const std::string& source, const InodeRef& inode, const std::string& path) {
    const auto [st, from] = open(source, true);
    if (!S_ISREG(st.st_mode) || !inode->is_regular())
        give_up(negative, to_.at(path) + ": only a file can replace a file's contents by number");
    progress_.begin(source);
    contents(from.fd(), source, inode, to_.at(path), st);
    attributes(source, *inode, to_.at(path), st, true);
    progress_.finish(st);
}

// What is in a directory of the host, into one that is there; with its attributes when all is preserved.
void CopyIn::merge(const std::string& source, Inode& directory, const std::string& path) {
    struct stat st{};
    if (::stat(source.c_str(), &st) != 0) give_up(negative, fmt::format("{}: {}", source, std::strerror(errno)));
    if (!o_.recursive) give_up(negative, source + ": is a directory (use -r)");
    inside(source, directory, path, 0);
    if (o_.preserve) attributes(source, directory, to_.at(path), st, true);
}

void CopyIn::inside(const std::string& source, Inode& directory, const std::string& path, unsigned depth) {
    std::vector<std::string> names;
    std::error_code error;
    using Walk = std::filesystem::directory_iterator;
    for (Walk at(source, error); !error && at != Walk(); at.increment(error)) names.push_back(at->path().filename());
    // What is known of it is copied all the same.
    if (error) outcome_.tell(progress_, impossible, source + ": " + error.message());
    for (const std::string& n : names)
        outcome_.attempt(progress_, [&] { entry(below(source, n), spot(directory, n, below(path, n)), depth + 1); });
}

void CopyIn::remove_old(const Spot& to) {
    Result<InodeRef> old = to_.fs().lookup(to.directory, to.name, operator_identity(), false);
    if (!old) return;
    if ((*old)->is_directory()) give_up(negative, to.at + ": a directory is in the way");
    need(to_.fs().unlink(to.directory, to.name, operator_identity(), false), to.at);
}

std::optional<InodeRef> CopyIn::file_there(const Spot& to) {
    Result<InodeRef> found = to_.fs().lookup(to.directory, to.name, operator_identity(), false);
    if (!found) return {};
    InodeRef there = std::move(*found);
    if (there->is_symlink()) {
        if (made_links_.contains(there->number().value))
            give_up(negative, to.at + ": is a link that this copy has made, and is not followed");
        const std::string path = fmt::format("<{}>/{}", to.directory.number(), to.name);
        Result<InodeRef> target = to_.fs().resolve(path, operator_identity());
        if (!target && target.error().code == ENOENT) give_up(negative, to.at + ": is a link that leads nowhere");
        there = need(std::move(target), to.at);
    }
    if (there->is_directory()) give_up(negative, to.at + ": a directory is in the way");
    // With all that it is, a file is copied beside those that share the old one, not into it.
    if (o_.preserve && need(to_.fs().attributes(*there), to.at).st_nlink > 1) {
        remove_old(to);
        return {};
    }
    if (!there->is_regular())
        give_up(negative, to.at + ": is a device, fifo or socket, and in an image those take no contents");
    return there;
}

CopyIn::Made CopyIn::make(const std::string& source, const Spot& to, const struct stat& st) {
    // Directories are filled, files get new contents; links and nodes replace whatever is in the way.
    if (S_ISDIR(st.st_mode)) {
        if (Result<InodeRef> old = to_.fs().lookup(to.directory, to.name, operator_identity(), false)) {
            if (!(*old)->is_directory()) give_up(negative, to.at + ": is in the way of a directory");
            return {std::move(*old), true};
        }
    } else if (S_ISREG(st.st_mode)) {
        if (std::optional<InodeRef> old = file_there(to)) return {std::move(*old), true};
    } else {
        remove_old(to);
    }
    std::string target;
    if (S_ISLNK(st.st_mode)) {
        target.resize(static_cast<std::size_t>(st.st_size) + 4096);
        const ssize_t n = ::readlink(source.c_str(), target.data(), target.size());
        if (n < 0) give_up(impossible, source + ": " + std::strerror(errno));
        target.resize(static_cast<std::size_t>(n));
    }
    const mode_t mode = (st.st_mode & S_IFMT) | (S_ISDIR(st.st_mode) ? 0755 : 0644);
    InodeRef made =
        need(to_.fs().create(to.directory, to.name, mode, st.st_rdev, target, operator_identity(), false), to.at);
    if (S_ISLNK(st.st_mode)) made_links_.insert(made->number().value);
    return {std::move(made), false};
}

void CopyIn::contents(int from, const std::string& source, const InodeRef& inode, const std::string& at,
                      const struct stat& st) {
    std::unique_ptr<OpenFile> file = need(to_.fs().open(inode, O_WRONLY | O_TRUNC, operator_identity(), false), at);
    std::vector<std::byte> buffer(copy_chunk);
    std::uint64_t end = 0;  // of what is written
    const auto put = [&](ssize_t n) {
        if (n < 0) give_up(impossible, source + ": " + std::strerror(errno));
        const auto length = static_cast<std::size_t>(n);
        if (need(file->write(end, ConstBytes(buffer).first(length)), at) != length)
            give_up(impossible, at + ": no space left");
        end += length;
        progress_.advance(length);
    };
    // What has no size has its contents all the same: pipes, devices, files of /proc.
    if (st.st_size == 0) {
        while (const ssize_t n = ::read(from, buffer.data(), copy_chunk)) put(n);
        return;
    }
    off_t size = st.st_size;
    for (off_t start = 0, hole = 0; start < size; start = hole) {
        off_t data = ::lseek(from, start, SEEK_DATA);
        if (data < 0 && errno == ENXIO) break;
        if (data < 0) data = start;
        hole = ::lseek(from, data, SEEK_HOLE);
        if (hole < 0) hole = size;
        end = static_cast<std::uint64_t>(data);
        while (static_cast<off_t>(end) < hole) {
            const auto pos = static_cast<off_t>(end);
            const ssize_t n =
                ::pread(from, buffer.data(), std::min(copy_chunk, static_cast<std::size_t>(hole - pos)), pos);
            // It says more than it has (/sys), or has become shorter.
            if (n == 0) size = hole = pos;
            else put(n);
        }
    }
    if (static_cast<std::uint64_t>(size) != inode->size_hint())
        need(file->truncate(static_cast<std::uint64_t>(size)), at);
}

void CopyIn::attributes(const std::string& source, Inode& inode, const std::string& at, const struct stat& st,
                        bool was_there) {
    AttributeChange change;
    const Owner owner = o_.owner_of(st);
    change.uid = owner.uid;
    change.gid = owner.gid;
    if (!was_there && !change.uid) change.uid = ::geteuid();
    if (!was_there && !change.gid) change.gid = ::getegid();
    if (change.uid || change.gid) need(to_.fs().set_attributes(inode, change, operator_identity(), false), at);
    if (o_.preserve) xattrs(source, inode, at);
    AttributeChange rest;
    if (!S_ISLNK(st.st_mode)) {
        if (o_.mode) rest.mode = o_.mode;
        else if (o_.preserve) rest.mode = static_cast<std::uint16_t>(st.st_mode & 07777);
        else if (!was_there) rest.mode = static_cast<std::uint16_t>(st.st_mode & 0777 & ~022u);
    }
    if (o_.preserve) {
        rest.atime = time_of(st.st_atim);
        rest.mtime = time_of(st.st_mtim);
    }
    if (rest.mode || rest.atime) need(to_.fs().set_attributes(inode, rest, operator_identity(), false), at);
}

void CopyIn::xattrs(const std::string& source, Inode& inode, const std::string& to) {
    const ssize_t size = ::llistxattr(source.c_str(), nullptr, 0);
    std::string names(static_cast<std::size_t>(std::max<ssize_t>(size, 0)), '\0');
    const ssize_t got = names.empty() ? 0 : ::llistxattr(source.c_str(), names.data(), names.size());
    // What the new file inherited from its directory is not the source's.
    for (const std::string& name : need(to_.fs().list_xattrs(inode, operator_identity(), false), to))
        if (name.starts_with("system.posix_acl_") && names.find(name) == std::string::npos)
            need(to_.fs().remove_xattr(inode, name, operator_identity(), false), to + ": " + name);
    for (std::size_t at = 0; got > 0 && at < static_cast<std::size_t>(got);) {
        const std::string name(names.c_str() + at);
        at += name.size() + 1;
        const ssize_t n = ::lgetxattr(source.c_str(), name.c_str(), nullptr, 0);
        if (n < 0) continue;
        std::vector<std::byte> value(static_cast<std::size_t>(n));
        if (::lgetxattr(source.c_str(), name.c_str(), value.data(), value.size()) != n) continue;
        const Result<void> set = to_.fs().set_xattr(inode, name, value, 0, operator_identity(), false);
        if (!set && set.error().code != EOPNOTSUPP) need(set, to + ": " + name);
    }
}

}  // namespace uext4::cli
