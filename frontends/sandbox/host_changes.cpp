#include "sandbox/host_changes.h"

#include "sandbox/descriptors.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace uext4 {

namespace {

// A change of what `name` leads to from the current directory; the last part of it is followed only on demand.
struct Change {
    ChangeRequest request;
    std::string attribute;
    std::span<const std::byte> value;

    int make(const std::string& name, bool follow) const {
        const int flags = follow ? 0 : AT_SYMLINK_NOFOLLOW;
        const char* const path = name.c_str();
        switch (request.kind) {
            case ChangeRequest::owner: return ::fchownat(AT_FDCWD, path, request.uid, request.gid, flags);
            case ChangeRequest::mode: return change_permissions(path, flags);
            case ChangeRequest::times: {
                const timespec times[2] = {{request.seconds[0], request.nanoseconds[0]},
                                           {request.seconds[1], request.nanoseconds[1]}};
                return ::utimensat(AT_FDCWD, path, times, flags);
            }
            case ChangeRequest::attribute:
                return (follow ? ::setxattr : ::lsetxattr)(path, attribute.c_str(), value.data(), value.size(), 0);
            default: errno = EINVAL; return -1;
        }
    }

private:
    int change_permissions(const char* path, int flags) const {
        constexpr long fchmodat2 = 452;  // from Linux 6.6 on; the C library's fchmodat needs /proc for want of it
        const long made = ::syscall(fchmodat2, AT_FDCWD, path, request.permissions, flags);
        // Somebody's filter that does not know the call may say either.
        if (made == 0 || (errno != ENOSYS && errno != EPERM)) return static_cast<int>(made);
        return ::fchmodat(AT_FDCWD, path, request.permissions, flags);
    }
};

struct Descriptor {
    int number = -1;
    explicit Descriptor(int fd) : number(fd) {}
    Descriptor(Descriptor&& other) noexcept : number(std::exchange(other.number, -1)) {}
    Descriptor& operator=(Descriptor&& other) noexcept {
        std::swap(number, other.number);
        return *this;
    }
    ~Descriptor() {
        if (number >= 0) ::close(number);
    }
};

// One of the places that may be written: both sides have the same ones in the same order.
struct Root {
    enum Kind { folder, file, special };  // the last one is a device, a pipe or a socket
    std::string given, real;
    Kind kind;
    dev_t device = 0;  // of a special one
    ino_t inode = 0;
};

// It, or the folder that it is in and its name there: a file as long as it has one, and where it is to be made.
struct OpenRoot {
    Descriptor own;
    std::shared_ptr<const Descriptor> above{};
    std::string name{};
};
using Folders = std::map<std::string, std::shared_ptr<const Descriptor>>;

bool is_same(int folder, const std::string& name, int other) {
    struct stat one{}, two{};
    return ::fstatat(folder, name.c_str(), &one, AT_SYMLINK_NOFOLLOW) == 0 &&
           ::fstatat(other, "", &two, AT_EMPTY_PATH) == 0 && one.st_dev == two.st_dev && one.st_ino == two.st_ino;
}

std::string folder_of(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}
std::string name_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// Many files of one folder take one descriptor.
std::shared_ptr<const Descriptor> open_folder(const std::string& path, Folders& folders) {
    std::shared_ptr<const Descriptor>& folder = folders[path];
    if (!folder) folder = std::make_shared<const Descriptor>(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    return folder;
}

OpenRoot opened(Descriptor own, const Root& root, Folders& folders) {
    OpenRoot out{std::move(own)};
    const std::string name = name_of(root.real);
    if (name.empty() || root.real.find('/') == std::string::npos) return out;
    std::shared_ptr<const Descriptor> above = open_folder(folder_of(root.real), folders);
    if (above->number < 0 || !is_same(above->number, name, out.own.number)) return out;
    out.above = std::move(above);
    out.name = name;
    if (root.kind == Root::file) out.own = Descriptor(-1);
    return out;
}

// Where a file is to be made; nothing where that cannot be.
std::optional<OpenRoot> to_be_made(const std::string& path, Folders& folders) {
    OpenRoot out{Descriptor(-1)};
    out.name = name_of(path);
    out.above = open_folder(folder_of(path), folders);
    if (out.name.empty() || out.name == "." || out.name == ".." || out.above->number < 0) return {};
    return out;
}

constexpr int to_write = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY;

std::string by_descriptor(int number) { return "/proc/self/fd/" + std::to_string(number); }

// Of a file in the current directory, which is made where there is none: the descriptor, or -1 and errno. Whatever else
// has that name now, or gets it meanwhile, is not opened: of some devices that would be a deed by itself.
int open_file(const std::string& name) {
    const int made = ::open(name.c_str(), to_write | O_EXCL | O_NOFOLLOW, 0600);
    if (made >= 0 || errno != EEXIST) return made;
    const Descriptor there{::open(name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC)};
    struct stat info{};
    if (there.number < 0 || ::fstatat(there.number, "", &info, AT_EMPTY_PATH) != 0) return -1;
    if (!S_ISREG(info.st_mode)) {
        errno = S_ISLNK(info.st_mode) ? ELOOP : S_ISDIR(info.st_mode) ? EISDIR : EACCES;
        return -1;
    }
    const int fd = ::open(by_descriptor(there.number).c_str(), to_write & ~O_CREAT);
    if (fd < 0 && errno == ENOENT) errno = EOPNOTSUPP;  // there is no /proc
    return fd;
}

std::optional<std::string> real_path(const std::string& path) {
    const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr), &std::free);
    if (!real) return {};
    return real.get();
}

// ---- The process that changes.

constexpr std::size_t longest_message =
    sizeof(ChangeRequest) + PATH_MAX + NAME_MAX + XATTR_NAME_MAX + XATTR_SIZE_MAX + 1;

class Changer {
public:
    Changer(std::vector<Root> roots, std::vector<OpenRoot> open, const HostFiles& files)
        : roots_(std::move(roots)),
          open_(std::move(open)),
          give_away_(files.give_away),
          special_modes_(files.special_modes) {}

    [[noreturn]] void serve(int socket) {
        std::vector<std::byte> message(longest_message);
        for (;;) {
            const ssize_t got = ::recv(socket, message.data(), message.size(), 0);
            if (got < 0 && errno == EINTR) continue;
            if (got <= 0) ::_exit(0);
            Descriptor contents{-1};
            const std::int32_t error = answer(std::span(message).first(static_cast<std::size_t>(got)), contents);
            if (!send_answer(socket, error, contents.number)) ::_exit(0);
        }
    }

private:
    std::int32_t answer(std::span<const std::byte> message, Descriptor& contents) const {
        Change change;
        ChangeRequest& asked = change.request;
        if (message.size() < sizeof asked) return EINVAL;
        std::memcpy(&asked, message.data(), sizeof asked);
        std::size_t at = sizeof asked;
        if (asked.folder_size > PATH_MAX || asked.name_size > NAME_MAX || asked.attribute_size > XATTR_NAME_MAX ||
            asked.value_size > XATTR_SIZE_MAX ||
            message.size() != at + asked.folder_size + asked.name_size + asked.attribute_size + asked.value_size)
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
        const std::string folder = text(asked.folder_size), name = text(asked.name_size);
        change.attribute = text(asked.attribute_size);
        change.value = next(asked.value_size);
        for (const std::string* part : {&folder, &name, &std::as_const(change.attribute)})
            if (part->find('\0') != std::string::npos) return EINVAL;
        // What only those who give things away need is not to be had by others.
        if (!give_away_ && asked.kind != ChangeRequest::mode && asked.kind != ChangeRequest::contents) return EPERM;
        if (!special_modes_ && (asked.permissions & ~0777u) != 0) return EPERM;
        if (asked.kind == ChangeRequest::contents && asked.permissions != 0) return EINVAL;
        if (asked.permissions & ~07777u || asked.root >= roots_.size()) return EINVAL;
        if (roots_[asked.root].kind != Root::folder && (!folder.empty() || !name.empty())) return EINVAL;
        if (asked.kind == ChangeRequest::contents) return open_contents(asked.root, folder, name, contents);
        return make(change, folder, name);
    }

    std::int32_t open_contents(std::uint32_t number, const std::string& folder, const std::string& name,
                               Descriptor& contents) const {
        const OpenRoot& there = open_[number];
        if (roots_[number].kind == Root::special || (roots_[number].kind == Root::file && !there.above)) {
            contents = Descriptor(::open(by_descriptor(there.own.number).c_str(), to_write & ~O_CREAT));
        } else if (roots_[number].kind == Root::file) {
            if (::fchdir(there.above->number) != 0) return errno;
            contents = Descriptor(open_file(there.name));
        } else {
            if (const int error = go_to(there.own.number, folder, name); error != 0) return error;
            contents = Descriptor(open_file(name));
        }
        return contents.number < 0 ? errno : 0;
    }

    std::int32_t make(const Change& change, const std::string& folder, const std::string& name) const {
        const OpenRoot& there = open_[change.request.root];
        const int root = there.own.number;
        if (roots_[change.request.root].kind == Root::special) return EINVAL;
        const bool file = roots_[change.request.root].kind == Root::file;
        const bool itself = file || (folder.empty() && name == ".");
        // By its name, which needs no right to search it, and no /proc.
        if (itself && there.above && (file || is_same(there.above->number, there.name, root))) {
            if (::fchdir(there.above->number) != 0) return errno;
            return change.make(there.name, false) == 0 ? 0 : errno;
        }
        if (file) return change.make(by_descriptor(root), true) == 0 ? 0 : errno;
        if (const int error = go_to(root, folder, name); error != 0) return error;
        return change.make(name, false) == 0 ? 0 : errno;
    }

    // To a folder below an open one, for `name` in it. Step by step: no link is followed, and nothing leads upwards.
    static std::int32_t go_to(int root, const std::string& folder, const std::string& name) {
        if (name.empty() || name == ".." || name.find('/') != std::string::npos) return EINVAL;
        Descriptor above{-1};
        for (std::size_t at = 0; at < folder.size();) {
            const std::size_t end = std::min(folder.find('/', at), folder.size());
            const std::string step = folder.substr(at, end - at);
            if (step.empty() || step == "." || step == "..") return EINVAL;
            const int from = above.number < 0 ? root : above.number;
            Descriptor next{::openat(from, step.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};
            if (next.number < 0) return errno;
            above = std::move(next);
            at = end + 1;
        }
        return ::fchdir(above.number < 0 ? root : above.number) == 0 ? 0 : errno;
    }

    static bool send_answer(int socket, std::int32_t error, int contents) {
        iovec part{&error, sizeof error};
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof contents)]{};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        if (contents >= 0) {
            message.msg_control = control;
            message.msg_controllen = sizeof control;
            cmsghdr* const passed = CMSG_FIRSTHDR(&message);
            passed->cmsg_level = SOL_SOCKET;
            passed->cmsg_type = SCM_RIGHTS;
            passed->cmsg_len = CMSG_LEN(sizeof contents);
            std::memcpy(CMSG_DATA(passed), &contents, sizeof contents);
        }
        return ::sendmsg(socket, &message, MSG_NOSIGNAL) == sizeof error;
    }

    std::vector<Root> roots_;
    std::vector<OpenRoot> open_;
    bool give_away_, special_modes_;
};

// ---- The process that asks.

bool lies_in(const std::string& path, const std::string& root) {
    return root == "/" || path == root || (path.starts_with(root) && path[root.size()] == '/');
}

std::string rest_of(const std::string& path, const std::string& root) {
    const std::size_t skipped = root == "/" ? 1 : root.size() + 1;
    return path.substr(std::min(skipped, path.size()));
}

class Asker {
public:
    Asker(std::vector<Root> roots, int socket, pid_t other)
        : roots_(std::move(roots)), socket_(socket), other_(other) {}
    // It holds the folders that were named, and whoever waits for this process may want to unmount them.
    ~Asker() {
        ::close(socket_);
        while (::waitpid(other_, nullptr, 0) < 0 && errno == EINTR) {
        }
    }
    Asker(const Asker&) = delete;
    Asker& operator=(const Asker&) = delete;

    // By the names that were given, which hold where folders above are renamed, or cannot be searched by their names;
    // where links are among them, by what they lead to.
    int ask(Change change, const std::string& path) const {
        std::string folder, name;
        if (change.request.kind == ChangeRequest::contents && is_special(path, change.request.root))
            return ask_for(change, folder, name);
        int error = why_nowhere(path);
        if (place_as_given(path, change.request.root, folder, name)) {
            const int done = ask_for(change, folder, name);
            if (done >= 0 || (errno != ENOTDIR && errno != ELOOP && errno != ENOENT)) return done;
            error = errno;
        }
        if (place(path, change.request.root, folder, name)) return ask_for(change, folder, name);
        errno = error;
        return -1;
    }

private:
    // What is to be said of a path that lies in no place that may be written: whether it is one.
    static int why_nowhere(const std::string& path) {
        if (path.empty()) return ENOENT;
        if (name_of(path).size() > NAME_MAX) return ENAMETOOLONG;
        struct stat info{};
        return ::stat((folder_of(path) + "/.").c_str(), &info) != 0 ? errno : EACCES;
    }

    int ask_for(Change& change, const std::string& folder, const std::string& name) const {
        if (folder.size() > PATH_MAX || name.size() > NAME_MAX) {
            errno = ENAMETOOLONG;
            return -1;
        }
        ChangeRequest& request = change.request;
        request.folder_size = static_cast<std::uint32_t>(folder.size());
        request.name_size = static_cast<std::uint32_t>(name.size());
        request.attribute_size = static_cast<std::uint32_t>(change.attribute.size());
        request.value_size = static_cast<std::uint32_t>(change.value.size());
        std::string message(reinterpret_cast<const char*>(&request), sizeof request);
        message += folder + name + change.attribute;
        message.append(reinterpret_cast<const char*>(change.value.data()), change.value.size());
        ssize_t done;
        do done = ::send(socket_, message.data(), message.size(), MSG_NOSIGNAL);
        while (done < 0 && errno == EINTR);
        if (done < 0) return -1;
        std::int32_t error = 0;
        Descriptor contents{-1};
        if (!receive(error, contents)) error = EIO;  // it has been killed
        if (request.kind == ChangeRequest::contents && error == 0 && contents.number < 0) error = EMFILE;
        if (error == 0) return request.kind == ChangeRequest::contents ? std::exchange(contents.number, -1) : 0;
        errno = error;
        return -1;
    }

    bool receive(std::int32_t& error, Descriptor& contents) const {
        iovec part{&error, sizeof error};
        int number = -1;
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof number)]{};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        ssize_t got;
        do got = ::recvmsg(socket_, &message, MSG_CMSG_CLOEXEC);
        while (got < 0 && errno == EINTR);
        if (got != sizeof error) return false;
        const cmsghdr* const passed = CMSG_FIRSTHDR(&message);
        if (passed && passed->cmsg_type == SCM_RIGHTS && passed->cmsg_len == CMSG_LEN(sizeof number)) {
            std::memcpy(&number, CMSG_DATA(passed), sizeof number);
            contents = Descriptor(number);
        }
        return true;
    }

    // A device or a pipe that was named, and is there still.
    bool is_special(const std::string& path, std::uint32_t& root) const {
        struct stat info{};
        if (::stat(path.c_str(), &info) != 0) return false;
        for (root = 0; root < roots_.size(); ++root)
            if (roots_[root].kind == Root::special && (roots_[root].given == path || roots_[root].real == path) &&
                roots_[root].device == info.st_dev && roots_[root].inode == info.st_ino)
                return true;
        return false;
    }

    bool place_as_given(const std::string& path, std::uint32_t& root, std::string& folder, std::string& name) const {
        for (root = 0; root < roots_.size(); ++root) {
            // A file may be another one by now, which has taken its name.
            if (roots_[root].kind != Root::folder || roots_[root].real.starts_with("/proc/")) continue;
            std::string given = roots_[root].given;
            while (given.size() > 1 && given.ends_with('/')) given.pop_back();
            std::string_view rest = path;
            if (given == "." && !path.starts_with('/')) {
            } else if (path == given || path.starts_with(given + '/')) {
                rest.remove_prefix(given.size());
            } else {
                continue;
            }
            if (within(rest, folder, name)) return true;
        }
        return false;
    }
    static bool within(std::string_view rest, std::string& folder, std::string& name) {
        folder.clear();
        name = ".";
        while (!rest.empty()) {
            const std::size_t end = std::min(rest.find('/'), rest.size());
            const std::string_view step = rest.substr(0, end);
            rest.remove_prefix(std::min(end + 1, rest.size()));
            if (step == "..") return false;
            if (step.empty() || step == ".") continue;
            if (name != ".") folder += (folder.empty() ? "" : "/") + name;
            name = step;
        }
        return true;
    }
    // By the names that the host has for them, without links.
    bool place(const std::string& path, std::uint32_t& root, std::string& folder, std::string& name) const {
        folder.clear();
        name.clear();
        if (const std::string last = name_of(path); !last.empty() && last != "." && last != "..") {
            if (const std::optional<std::string> real = real_path(folder_of(path));
                real && in_folder(*real, root, folder)) {
                name = last;
                return true;
            }
        }
        // One of the places itself, or a folder by a name that is none.
        const std::optional<std::string> real = real_path(path);
        if (real && in_folder(*real, root, folder)) {
            const std::size_t end = folder.rfind('/');
            name = folder.empty() ? "." : folder.substr(end == std::string::npos ? 0 : end + 1);
            folder.resize(end == std::string::npos ? 0 : end);
            return true;
        }
        for (root = 0; root < roots_.size(); ++root)
            if (roots_[root].kind == Root::file && (roots_[root].given == path || (real && roots_[root].real == *real)))
                return true;
        return false;
    }
    bool in_folder(const std::string& real, std::uint32_t& root, std::string& folder) const {
        for (root = 0; root < roots_.size(); ++root) {
            // Names of descriptors are no names of files.
            if (real.starts_with("/proc/")) continue;
            if (roots_[root].kind != Root::folder || !lies_in(real, roots_[root].real)) continue;
            folder = rest_of(real, roots_[root].real);
            return true;
        }
        return false;
    }

    std::vector<Root> roots_;
    int socket_;
    pid_t other_;
};

std::unique_ptr<Asker> asker;

int change(const Change& wanted, const std::string& path) {
    if (asker) return asker->ask(wanted, path);
    // As any program does it, which others may stand in for (fakeroot).
    if (wanted.request.kind == ChangeRequest::mode) return ::chmod(path.c_str(), wanted.request.permissions);
    return wanted.make(path, false);
}

// Each place takes a descriptor or two.
void allow_most_descriptors() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

// In the child.
[[noreturn]] void run_changer(int socket, const HostFiles& files, std::vector<Root> roots, std::vector<OpenRoot> open,
                              pid_t parent) noexcept {
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || ::getppid() != parent) ::_exit(1);
    // What asks the other process to end is not for this one, which ends with it. Its terminal stays: it can be named.
    (void)::setpgid(0, 0);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::signal(number, SIG_IGN);
    std::vector<int> kept{socket};
    for (const OpenRoot& root : open)
        for (const int number : {root.own.number, root.above ? root.above->number : -1})
            if (number >= 0) kept.push_back(number);
    close_all_but(kept, 0);
    if (!enter_sandbox(Reach::changes, files)) ::_exit(1);
    Changer(std::move(roots), std::move(open), files).serve(socket);
}

}  // namespace

int change_owner(const std::string& path, std::uint32_t uid, std::uint32_t gid) {
    Change wanted{};
    wanted.request.kind = ChangeRequest::owner;
    wanted.request.uid = uid;
    wanted.request.gid = gid;
    return change(wanted, path);
}

int change_mode(const std::string& path, mode_t mode) {
    Change wanted{};
    wanted.request.kind = ChangeRequest::mode;
    wanted.request.permissions = mode;
    return change(wanted, path);
}

int change_times(const std::string& path, const timespec (&times)[2]) {
    Change wanted{};
    wanted.request.kind = ChangeRequest::times;
    for (std::size_t i = 0; i < 2; ++i) {
        wanted.request.seconds[i] = times[i].tv_sec;
        wanted.request.nanoseconds[i] = times[i].tv_nsec;
    }
    return change(wanted, path);
}

int change_attribute(const std::string& path, const std::string& name, std::span<const std::byte> value) {
    Change wanted{};
    wanted.request.kind = ChangeRequest::attribute;
    wanted.attribute = name;
    wanted.value = value;
    return change(wanted, path);
}

int open_contents(const std::string& path, bool follow) {
    if (!asker) return ::open(path.c_str(), to_write | (follow ? 0 : O_NOFOLLOW), 0600);
    Change wanted{};
    wanted.request.kind = ChangeRequest::contents;
    return change(wanted, path);
}

Result<void> start_host_changes(const HostFiles& files) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        return fail(errno, "sandbox: socketpair: {}", std::strerror(errno));
    allow_most_descriptors();
    std::vector<Root> roots;
    std::vector<OpenRoot> open;
    Folders folders;
    for (const std::string& path : files.writable) {
        Descriptor root{::open(path.c_str(), O_PATH | O_CLOEXEC)};
        struct stat info{};
        // Devices and pipes stay what they are, and can be written to. What there are no descriptors for keeps what it
        // has, and that is an error then.
        if (root.number < 0 && !files.trees) {
            std::optional<OpenRoot> made = to_be_made(path, folders);
            if (!made) continue;
            roots.push_back({path, path, Root::file});
            open.push_back(std::move(*made));
        }
        if (root.number < 0 || ::fstat(root.number, &info) != 0) continue;
        if (S_ISDIR(info.st_mode) && !files.trees) continue;
        const Root::Kind kind = S_ISDIR(info.st_mode)   ? Root::folder
                                : S_ISREG(info.st_mode) ? Root::file
                                                        : Root::special;
        roots.push_back({path, real_path(path).value_or(path), kind, info.st_dev, info.st_ino});
        open.push_back(opened(std::move(root), roots.back(), folders));
    }
    const pid_t parent = ::getpid();
    const pid_t child = ::fork();
    if (child == 0) ::close(ends[0]);  // the end of the other one is told by it
    if (child == 0) run_changer(ends[1], files, std::move(roots), std::move(open), parent);
    const int error = errno;
    ::close(ends[1]);
    if (child < 0) {
        ::close(ends[0]);
        return fail(error, "sandbox: fork: {}", std::strerror(error));
    }
    asker = std::make_unique<Asker>(std::move(roots), ends[0], child);
    return {};
}

}  // namespace uext4
