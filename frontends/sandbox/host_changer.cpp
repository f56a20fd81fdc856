#include "sandbox/host_changer.h"

#include "sandbox/descriptor_passing.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>

namespace uext4 {

namespace {

using Folders = std::map<std::string, std::shared_ptr<const Descriptor>>;

// Many files of one folder take one descriptor.
std::shared_ptr<const Descriptor> open_folder(const std::string& path, Folders& folders) {
    std::shared_ptr<const Descriptor>& folder = folders[path];
    if (!folder) folder = std::make_shared<const Descriptor>(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    return folder->is_open() ? folder : nullptr;
}

// The folder and the name in it, of a path without slashes at its end; no name where it has none of its own.
std::pair<std::string, std::string> parts_of(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    const std::string name = path.substr(slash == std::string::npos ? 0 : slash + 1);
    if (name == "." || name == "..") return {path, ""};
    return {slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash), name};
}

bool is_same(int folder, const std::string& name, int other) {
    struct stat one{}, two{};
    return ::fstatat(folder, name.c_str(), &one, AT_SYMLINK_NOFOLLOW) == 0 &&
           ::fstatat(other, "", &two, AT_EMPTY_PATH) == 0 && one.st_dev == two.st_dev && one.st_ino == two.st_ino;
}

std::string by_descriptor(int number) { return "/proc/self/fd/" + std::to_string(number); }

// Of a file in the current directory, which is made where there is none: the descriptor, or -1 and errno. Whatever else
// has that name now, or gets it meanwhile, is not opened: of some devices that would be a deed by itself.
constexpr int to_write = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY;
int open_file(const std::string& name) {
    const int made = ::open(name.c_str(), to_write | O_EXCL | O_NOFOLLOW, 0600);
    if (made >= 0 || errno != EEXIST) return made;
    const Descriptor there{::open(name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC)};
    struct stat info{};
    if (!there.is_open() || ::fstatat(there.fd(), "", &info, AT_EMPTY_PATH) != 0) return -1;
    if (!S_ISREG(info.st_mode)) {
        errno = S_ISLNK(info.st_mode) ? ELOOP : S_ISDIR(info.st_mode) ? EISDIR : EACCES;
        return -1;
    }
    const int fd = ::open(by_descriptor(there.fd()).c_str(), to_write & ~O_CREAT);
    if (fd < 0 && errno == ENOENT) errno = EOPNOTSUPP;  // there is no /proc
    return fd;
}

// What a path leads to. Whether that has a name.
bool add_what_it_leads_to(std::vector<BlockState>& places, const std::string& path, Folders& folders) {
    BlockState place;
    place.own = Descriptor(::open(path.c_str(), O_PATH | O_CLOEXEC));
    struct stat info{};
    if (!place.own.is_open() || ::fstat(place.own.fd(), &info) != 0) return true;
    place.kind = S_ISDIR(info.st_mode)   ? BlockState::folder
                 : S_ISREG(info.st_mode) ? BlockState::file
                                         : BlockState::special;
    place.device = info.st_dev;
    place.inode = info.st_ino;
    place.path = path;
    const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), &std::free);
    if (real) {
        place.real = real.get();
        const auto [folder, name] = parts_of(place.real);
        // By its name, which needs no right to search it, and no /proc.
        if (std::shared_ptr<const Descriptor> above = open_folder(folder, folders);
            above && !name.empty() && is_same(above->fd(), name, place.own.fd())) {
            place.above = std::move(above);
            place.name = name;
            if (place.kind == BlockState::file) place.own = Descriptor();
        }
    }
    places.push_back(std::move(place));
    return real != nullptr;
}

class Changer {
public:
    Changer(std::vector<BlockState> places, const HostFiles& files)
        : places_(std::move(places)),
          give_away_(files.may_chown),
          attributes_(files.attributes),
          trees_(files.whole_trees),
          special_modes_(files.special_modes) {}

    [[noreturn]] void serve(int socket) {
        std::vector<std::byte> message(longest_message);
        for (;;) {
            const ssize_t got = ::recv(socket, message.data(), message.size(), 0);
            if (got < 0 && errno == EINTR) continue;
            if (got <= 0) ::_exit(0);
            Descriptor contents;
            const std::int32_t error = answer(std::span(message).first(static_cast<std::size_t>(got)), contents);
            if (!send_with_descriptor(socket, std::as_bytes(std::span(&error, 1)), contents.fd())) ::_exit(0);
        }
    }

private:
    static constexpr std::size_t longest_message =
        sizeof(ChangeRequest) + 2 * (PATH_MAX + NAME_MAX) + XATTR_NAME_MAX + XATTR_SIZE_MAX + 1;

    // Where something is done: the current directory is the folder.
    struct Target {
        std::string name;
        bool follow = false;  // a descriptor's name in /proc
    };

    std::int32_t answer(std::span<const std::byte> message, Descriptor& contents) {
        Change change;
        ChangeRequest& asked = change.request;
        if (message.size() < sizeof asked) return EINVAL;
        std::memcpy(&asked, message.data(), sizeof asked);
        std::size_t at = sizeof asked, all = at;
        for (const ChangeRequest::Spot& spot : {asked.at, asked.other}) {
            if (spot.folder_size > PATH_MAX || spot.name_size > NAME_MAX || spot.place >= places_.size()) return EINVAL;
            all += spot.folder_size + spot.name_size;
        }
        if (asked.attribute_size > XATTR_NAME_MAX || asked.value_size > XATTR_SIZE_MAX ||
            message.size() != all + asked.attribute_size + asked.value_size)
            return EINVAL;
        const auto next = [&](std::size_t size) {
            const auto part = message.subspan(at, size);
            at += size;
            return part;
        };
        const auto text = [&](std::size_t size) {
            const auto part = next(size);
            return std::string(reinterpret_cast<const char*>(part.data()), part.size());
        };
        const std::string folder = text(asked.at.folder_size), name = text(asked.at.name_size);
        const std::string other_folder = text(asked.other.folder_size), other_name = text(asked.other.name_size);
        change.attribute = text(asked.attribute_size);
        change.value = next(asked.value_size);
        for (const std::string* part : {&folder, &name, &other_folder, &other_name, &std::as_const(change.attribute)})
            if (part->find('\0') != std::string::npos) return EINVAL;
        if (asked.inherits > (asked.kind == ChangeRequest::mode ? 1u : 0u)) return EINVAL;
        if (const int error = refused(change); error != 0) return error;
        if (change.is_of_attributes() && opened_.file.is_open() && opened_.place == asked.at.place &&
            opened_.folder == folder && opened_.name == name)
            return change.make_on(opened_.file.fd()) == 0 ? 0 : errno;
        if (!change.is_of_attributes()) opened_ = {};
        if (asked.kind == ChangeRequest::release) return 0;
        if (asked.kind == ChangeRequest::contents) return open_contents(asked.at.place, folder, name, contents);
        Descriptor of;
        if (asked.kind == ChangeRequest::link) {
            Target target;
            if (const int error = go_to(asked.other.place, other_folder, other_name, target); error != 0) return error;
            if (target.follow) return EINVAL;
            of = Descriptor(::open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
            if (!of.is_open()) return errno;
            change.linked_in = of.fd();
            change.linked = target.name;
        }
        Target target;
        if (const int error = go_to(asked.at.place, folder, name, target); error != 0) return error;
        if (change.is_of_attributes() && is_special(target.name)) return EINVAL;
        return change.make(target.name, target.follow) == 0 ? 0 : errno;
    }

    // What only those who give things away, copy trees or set special bits need is not to be had by others.
    int refused(const Change& change) const {
        const ChangeRequest& asked = change.request;
        const std::uint32_t permissions = asked.permissions;
        const BlockState::Kind place = places_[asked.at.place].kind;
        switch (asked.kind) {
            case ChangeRequest::mode:
                if (permissions & ~07777u) return EINVAL;
                if (!special_modes_ && (permissions & ~0777u)) return EPERM;
                return place == BlockState::special ? EINVAL : 0;
            case ChangeRequest::owner:
            case ChangeRequest::times:
            case ChangeRequest::attribute:
                if (!(asked.kind == ChangeRequest::owner ? give_away_ : attributes_)) return EPERM;
                return place == BlockState::special || permissions != 0 ? EINVAL : 0;
            case ChangeRequest::release:
            case ChangeRequest::contents: return permissions != 0 ? EINVAL : 0;
            case ChangeRequest::node:
                if (permissions != S_IFCHR && permissions != S_IFBLK && permissions != S_IFIFO &&
                    permissions != S_IFSOCK)
                    return EINVAL;
                return for_trees(place);
            case ChangeRequest::symlink:
                if (permissions != 0 || change.value.size() > PATH_MAX ||
                    std::ranges::find(change.value, std::byte{0}) != change.value.end())
                    return EINVAL;
                return for_trees(place);
            case ChangeRequest::directory:
            case ChangeRequest::link:
            case ChangeRequest::removal: return permissions != 0 ? EINVAL : for_trees(place);
            default: return EINVAL;
        }
    }
    // A device or pipe that was named, and is there still: in the current directory.
    bool is_special(const std::string& name) const {
        struct stat info{};
        if (::fstatat(AT_FDCWD, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return false;
        return std::ranges::any_of(places_, [&](const BlockState& place) {
            return place.kind == BlockState::special && place.device == info.st_dev && place.inode == info.st_ino;
        });
    }
    int for_trees(BlockState::Kind place) const {
        if (!trees_) return EPERM;
        return place == BlockState::file || place == BlockState::special ? EINVAL : 0;
    }

    std::int32_t open_contents(std::uint32_t number, const std::string& folder, const std::string& name,
                               Descriptor& contents) {
        const BlockState& place = places_[number];
        if (place.kind == BlockState::special) {
            if (!folder.empty() || name != ".") return EINVAL;
            contents = Descriptor(::open(by_descriptor(place.own.fd()).c_str(), to_write & ~O_CREAT));
        } else {
            Target target;
            if (const int error = go_to(number, folder, name, target); error != 0) return error;
            contents =
                Descriptor(target.follow ? ::open(target.name.c_str(), to_write & ~O_CREAT) : open_file(target.name));
            if (contents.is_open()) opened_ = {number, folder, name, Descriptor(::dup(contents.fd()))};
            if (contents.is_open() && !opened_.file.is_open()) return errno;
        }
        return contents.is_open() ? 0 : errno;
    }

    // To the folder of something in a place. Step by step: no link is followed, and nothing leads upwards.
    int go_to(std::uint32_t number, const std::string& folder, const std::string& name, Target& target) const {
        const BlockState& place = places_[number];
        if (place.kind == BlockState::special) return EINVAL;
        target.name = name;
        if (folder.empty() && name == ".") {
            const bool known = place.above && (place.kind != BlockState::folder ||
                                               is_same(place.above->fd(), place.name, place.own.fd()));
            if (known) target.name = place.name;
            else if (place.kind == BlockState::file) return to_descriptor(place, target);
            return ::fchdir(known ? place.above->fd() : place.own.fd()) == 0 ? 0 : errno;
        }
        if (!trees_ || place.kind == BlockState::file) return ENOTDIR;  // nothing lies below a file
        if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos) return EINVAL;
        Descriptor above;
        if (!place.own.is_open()) {
            above = step(place.above->fd(), place.name);
            if (!above.is_open()) return errno;
        }
        for (std::size_t at = 0; at < folder.size();) {
            const std::size_t end = std::min(folder.find('/', at), folder.size());
            const std::string part = folder.substr(at, end - at);
            if (part.empty() || part == "." || part == "..") return EINVAL;
            Descriptor next = step(above.is_open() ? above.fd() : place.own.fd(), part);
            if (!next.is_open()) return errno;
            above = std::move(next);
            at = end + 1;
        }
        return ::fchdir(above.is_open() ? above.fd() : place.own.fd()) == 0 ? 0 : errno;
    }
    static Descriptor step(int from, const std::string& name) {
        return Descriptor(::openat(from, name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    }
    static int to_descriptor(const BlockState& place, Target& target) {
        target = {by_descriptor(place.own.fd()), true};
        return 0;
    }

    std::vector<BlockState> places_;
    bool give_away_, attributes_, trees_, special_modes_;
    // The file whose contents were asked for last. Somebody else may have taken its name since.
    struct Opened {
        std::uint32_t place = 0;
        std::string folder{}, name{};
        Descriptor file{};
    } opened_;
};

int change_permissions(const char* path, mode_t permissions, int flags) {
    constexpr long fchmodat2 = 452;  // from Linux 6.6 on; the C library's fchmodat needs /proc for want of it
    const long made = ::syscall(fchmodat2, AT_FDCWD, path, permissions, flags);
    // Somebody's filter that does not know the call may say either.
    if (made == 0 || (errno != ENOSYS && errno != EPERM)) return static_cast<int>(made);
    return ::fchmodat(AT_FDCWD, path, permissions, flags);
}

}  // namespace

int Change::make(const std::string& name, bool follow) const {
    const int flags = follow ? 0 : AT_SYMLINK_NOFOLLOW;
    const char* const path = name.c_str();
    switch (request.kind) {
        case ChangeRequest::owner: return ::fchownat(AT_FDCWD, path, request.uid, request.gid, flags);
        case ChangeRequest::mode: return change_permissions(path, permissions_of(AT_FDCWD, path), flags);
        case ChangeRequest::times: {
            const timespec times[2] = {{request.seconds[0], request.nanoseconds[0]},
                                       {request.seconds[1], request.nanoseconds[1]}};
            return ::utimensat(AT_FDCWD, path, times, flags);
        }
        case ChangeRequest::attribute:
            return (follow ? ::setxattr : ::lsetxattr)(path, attribute.c_str(), value.data(), value.size(), 0);
        case ChangeRequest::contents: return ::open(path, to_write | (follow ? 0 : O_NOFOLLOW), 0600);
        case ChangeRequest::directory: return ::mkdir(path, 0700);
        case ChangeRequest::symlink:
            return ::symlink(std::string(reinterpret_cast<const char*>(value.data()), value.size()).c_str(), path);
        case ChangeRequest::node: return ::mknod(path, request.permissions | 0600, request.device);
        case ChangeRequest::link: return ::linkat(linked_in, linked.c_str(), AT_FDCWD, path, 0);
        case ChangeRequest::removal: return ::unlink(path);
        default: errno = EINVAL; return -1;
    }
}

mode_t Change::permissions_of(int folder, const char* path) const {
    struct stat info{};
    if (!request.inherits || ::fstatat(folder, path, &info, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 ||
        !S_ISDIR(info.st_mode))
        return request.permissions;
    return request.permissions | (info.st_mode & S_ISGID);
}

bool Change::is_of_attributes() const {
    return request.kind == ChangeRequest::owner || request.kind == ChangeRequest::mode ||
           request.kind == ChangeRequest::times || request.kind == ChangeRequest::attribute;
}

int Change::make_on(int fd) const {
    switch (request.kind) {
        case ChangeRequest::owner: return ::fchown(fd, request.uid, request.gid);
        case ChangeRequest::mode: return ::fchmod(fd, permissions_of(fd, ""));
        case ChangeRequest::times: {
            const timespec times[2] = {{request.seconds[0], request.nanoseconds[0]},
                                       {request.seconds[1], request.nanoseconds[1]}};
            return ::futimens(fd, times);
        }
        case ChangeRequest::attribute: return ::fsetxattr(fd, attribute.c_str(), value.data(), value.size(), 0);
        default: errno = EINVAL; return -1;
    }
}

std::vector<BlockState> open_places(const HostFiles& files) {
    std::vector<BlockState> places;
    Folders folders;
    for (std::string path : files.writable) {
        const bool slash = path.ends_with('/');
        while (path.size() > 1 && path.ends_with('/')) path.pop_back();
        struct stat link{}, info{};
        const bool is_link = ::lstat(path.c_str(), &link) == 0 && S_ISLNK(link.st_mode);
        const bool there = ::stat(path.c_str(), &info) == 0;
        const auto [folder, name] = parts_of(path);
        // What a file takes the place of is no folder, and a folder's name is no file's.
        const bool is_folder = there && S_ISDIR(info.st_mode);
        if (!files.whole_trees && (slash || is_folder)) continue;
        if (is_folder ? slash || name.empty() : there && (is_link || !S_ISREG(info.st_mode))) {
            const bool has_name = add_what_it_leads_to(places, path, folders);
            // Of a link to what has no name, and of a device that stays, the name is nothing.
            if (is_folder || (is_link && !has_name) || (!files.whole_trees && !is_link)) continue;
        }
        if (name.empty()) continue;
        BlockState place;
        place.path = path;
        place.name = name;
        place.above = open_folder(folder, folders);
        if (files.whole_trees)
            place.own = Descriptor(::open(path.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (place.above) places.push_back(std::move(place));
    }
    return places;
}

void serve_changes(int socket, std::vector<BlockState> places, const HostFiles& files) {
    Changer(std::move(places), files).serve(socket);
}

}  // namespace uext4
