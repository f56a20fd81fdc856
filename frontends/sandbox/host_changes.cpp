#include "sandbox/host_changes.h"

#include "base/descriptor.h"
#include "sandbox/descriptor_passing.h"
#include "sandbox/descriptors.h"
#include "sandbox/host_changer.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

namespace uext4 {

namespace {

// The same path as others write it.
std::string without_slashes(std::string path) {
    while (path.size() > 1 && path.ends_with('/')) path.pop_back();
    return path;
}

class Asker {
public:
    Asker(std::vector<BlockState> places, int socket, pid_t other)
        : places_(std::move(places)), socket_(socket), other_(other) {
        for (std::uint32_t number = 0; number < places_.size(); ++number)
            for (const std::string& known : {places_[number].path, places_[number].real})
                if (!known.empty()) known_[known].insert(number);
    }
    // It holds the folders that were named, and whoever waits for this process may want to unmount them.
    ~Asker() {
        ::close(socket_);
        while (::waitpid(other_, nullptr, 0) < 0 && errno == EINTR) {
        }
    }
    Asker(const Asker&) = delete;
    Asker& operator=(const Asker&) = delete;

    // As Change::make().
    int ask(Change change, const std::string& path, const std::string& other = {}) const {
        std::vector<Spot> spots = spots_of(path);
        if (change.request.kind == ChangeRequest::contents) prefer_special(spots, path);
        std::vector<Spot> others = spots_of(other);
        if (change.request.kind != ChangeRequest::link) others.assign(1, Spot{});
        int error = why_nowhere(spots.empty() ? path : other);
        for (const Spot& spot : spots)
            for (const Spot& of : others) {
                const int done = ask_for(change, spot, of);
                if (done >= 0) return done;
                error = errno;
                // By another of its names, or what it leads to.
                if (error != ENOTDIR && error != ELOOP && error != ENOENT) return -1;
            }
        errno = error;
        return -1;
    }

    void release() const {
        Change change{};
        change.request.kind = ChangeRequest::release;
        if (!places_.empty()) (void)ask_for(change, {}, {});
    }

private:
    struct Spot {
        std::uint32_t place = 0;
        std::string folder{}, name{};
    };

    // What is to be said of a path that lies in no place that may be written: whether it is one.
    static int why_nowhere(const std::string& path) {
        if (path.empty()) return ENOENT;
        const std::string bare = without_slashes(path);
        const std::size_t slash = bare.rfind('/');
        if (bare.size() - (slash == std::string::npos ? 0 : slash + 1) > NAME_MAX) return ENAMETOOLONG;
        struct stat info{};
        const std::string folder = slash == std::string::npos ? "." : bare.substr(0, slash + 1);
        return ::stat((folder + "/.").c_str(), &info) != 0 ? errno : EACCES;
    }

    // By the names that were given, which hold where folders above are renamed, or cannot be searched by their names.
    std::vector<Spot> spots_of(const std::string& path) const {
        std::vector<Spot> out;
        for (const std::uint32_t number : at_or_above(path)) {
            const BlockState& place = places_[number];
            for (const std::string& known : {place.path, place.real}) {
                Spot spot{number};
                if (known.empty() || !lies_at(path, known, spot)) continue;
                out.push_back(std::move(spot));
                break;
            }
        }
        // A link before what it leads to.
        std::ranges::stable_partition(out,
                                      [&](const Spot& spot) { return places_[spot.place].kind == BlockState::named; });
        return out;
    }
    std::set<std::uint32_t> at_or_above(const std::string& path) const {
        std::set<std::uint32_t> out;
        const auto add = [&](const std::string& known) {
            if (const auto it = known_.find(known); it != known_.end())
                out.insert(it->second.begin(), it->second.end());
        };
        add(path.starts_with('/') ? "/" : ".");
        for (std::string above = without_slashes(path); !above.empty();) {
            add(above);
            const std::size_t slash = above.rfind('/');
            if (slash == std::string::npos || slash == 0) break;
            above = without_slashes(above.substr(0, slash));
        }
        return out;
    }
    static bool lies_at(const std::string& path, const std::string& known, Spot& spot) {
        std::string_view rest = path;
        if (known == "." && !path.empty() && !path.starts_with('/')) {
        } else if (path == known || path.starts_with(known == "/" ? known : known + '/')) {
            rest.remove_prefix(known.size());
        } else {
            return false;
        }
        spot.name = ".";
        while (!rest.empty()) {
            const std::size_t end = std::min(rest.find('/'), rest.size());
            const std::string_view step = rest.substr(0, end);
            rest.remove_prefix(std::min(end + 1, rest.size()));
            if (step == "..") return false;
            if (step.empty() || step == ".") continue;
            if (spot.name != ".") spot.folder += (spot.folder.empty() ? "" : "/") + spot.name;
            spot.name = step;
        }
        return true;
    }

    // A device or a pipe that was named, and is there still.
    void prefer_special(std::vector<Spot>& spots, const std::string& path) const {
        struct stat info{};
        const bool there = ::stat(path.c_str(), &info) == 0;
        const auto is_special = [&](const Spot& spot) { return places_[spot.place].kind == BlockState::special; };
        const auto is_it = [&](const Spot& spot) {
            const BlockState& place = places_[spot.place];
            return is_special(spot) && there && place.device == info.st_dev && place.inode == info.st_ino;
        };
        if (const auto it = std::ranges::find_if(spots, is_it); it != spots.end()) spots.assign(1, Spot(*it));
        else std::erase_if(spots, is_special);
    }

    int ask_for(Change& change, const Spot& spot, const Spot& other) const {
        ChangeRequest& request = change.request;
        std::string names;
        for (const auto& [from, to] : {std::pair{&spot, &request.at}, std::pair{&other, &request.other}}) {
            if (from->folder.size() > PATH_MAX || from->name.size() > NAME_MAX) {
                errno = ENAMETOOLONG;
                return -1;
            }
            *to = {from->place, static_cast<std::uint32_t>(from->folder.size()),
                   static_cast<std::uint32_t>(from->name.size())};
            names += from->folder + from->name;
        }
        request.attribute_size = static_cast<std::uint32_t>(change.attribute.size());
        request.value_size = static_cast<std::uint32_t>(change.value.size());
        std::string message(reinterpret_cast<const char*>(&request), sizeof request);
        message += names + change.attribute;
        message.append(reinterpret_cast<const char*>(change.value.data()), change.value.size());
        ssize_t done;
        do done = ::send(socket_, message.data(), message.size(), MSG_NOSIGNAL);
        while (done < 0 && errno == EINTR);
        if (done < 0) return -1;
        std::int32_t error = 0;
        Descriptor contents;
        if (!receive_with_descriptor(socket_, std::as_writable_bytes(std::span(&error, 1)), contents))
            error = EIO;  // it has been killed
        const bool wanted = request.kind == ChangeRequest::contents;
        if (wanted && error == 0 && !contents.is_open()) error = EMFILE;
        if (error == 0) return wanted ? contents.release() : 0;
        errno = error;
        return -1;
    }

    std::vector<BlockState> places_;
    std::map<std::string, std::set<std::uint32_t>> known_;  // by path: which of them
    int socket_;
    pid_t other_;
};

std::unique_ptr<Asker> asker;
// Out of the sandbox: the file that was opened last, whose name somebody else may have taken since.
struct Opened {
    std::string path{};
    Descriptor file{};
} opened;

int change(const Change& wanted, const std::string& path, bool follow = false) {
    if (asker) return asker->ask(wanted, path);
    if (wanted.is_of_attributes() && opened.file.is_open() && opened.path == path)
        return wanted.make_on(opened.file.fd());
    // As any program does it, which others may stand in for (fakeroot).
    if (wanted.request.kind == ChangeRequest::mode)
        return ::fchmodat(AT_FDCWD, path.c_str(), wanted.permissions_of(AT_FDCWD, path.c_str()), AT_SYMLINK_NOFOLLOW);
    if (!wanted.is_of_attributes()) opened = {};
    const int done = wanted.make(path, follow);
    struct stat info{};
    if (wanted.request.kind == ChangeRequest::contents && done >= 0 && ::fstat(done, &info) == 0 &&
        S_ISREG(info.st_mode))
        opened = {path, Descriptor(::dup(done))};
    return done;
}

Change wanted(ChangeRequest::Kind kind) {
    Change out;
    out.request.kind = kind;
    return out;
}

// Each place takes a descriptor or two.
void allow_most_descriptors() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

// In the child.
[[noreturn]] void run_changer(int socket, const HostFiles& files, std::vector<BlockState> places,
                              pid_t parent) noexcept {
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || ::getppid() != parent) ::_exit(1);
    // What asks the other process to end is not for this one, which ends with it. Its terminal stays: it can be named.
    (void)::setpgid(0, 0);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::signal(number, SIG_IGN);
    std::vector<int> kept{socket};
    for (const BlockState& place : places)
        for (const int number : {place.own.fd(), place.above ? place.above->fd() : -1})
            if (number >= 0) kept.push_back(number);
    close_all_except(kept, 0);
    if (!enter_sandbox(SandboxProfile::changes, files)) ::_exit(1);
    serve_changes(socket, std::move(places), files);
}

}  // namespace

int change_owner(const std::string& path, std::uint32_t uid, std::uint32_t gid) {
    Change owner = wanted(ChangeRequest::owner);
    owner.request.uid = uid;
    owner.request.gid = gid;
    return change(owner, path);
}

int change_mode(const std::string& path, mode_t mode) {
    Change permissions = wanted(ChangeRequest::mode);
    permissions.request.permissions = mode;
    return change(permissions, path);
}

int change_new_folder_mode(const std::string& path, mode_t mode) {
    Change permissions = wanted(ChangeRequest::mode);
    permissions.request.permissions = mode;
    permissions.request.inherits = 1;
    return change(permissions, path);
}

int change_times(const std::string& path, const timespec (&times)[2]) {
    Change both = wanted(ChangeRequest::times);
    for (std::size_t i = 0; i < 2; ++i) {
        both.request.seconds[i] = times[i].tv_sec;
        both.request.nanoseconds[i] = times[i].tv_nsec;
    }
    return change(both, path);
}

int change_attribute(const std::string& path, const std::string& name, std::span<const std::byte> value) {
    Change attribute = wanted(ChangeRequest::attribute);
    attribute.attribute = name;
    attribute.value = value;
    return change(attribute, path);
}

int open_contents(const std::string& path, bool follow) {
    return change(wanted(ChangeRequest::contents), path, follow);
}

int make_folder(const std::string& path) { return change(wanted(ChangeRequest::directory), path); }

int make_symlink(const std::string& text, const std::string& path) {
    Change symlink = wanted(ChangeRequest::symlink);
    symlink.value = std::as_bytes(std::span(text));
    return change(symlink, path);
}

int make_node(const std::string& path, mode_t kind, dev_t device) {
    Change node = wanted(ChangeRequest::node);
    node.request.permissions = kind;
    node.request.device = device;
    return change(node, path);
}

int make_link(const std::string& of, const std::string& path) {
    Change link = wanted(ChangeRequest::link);
    if (asker) return asker->ask(link, path, of);
    link.linked_in = AT_FDCWD;
    link.linked = of;
    return link.make(path, false);
}

void release_contents() {
    if (asker) asker->release();
    else opened = {};
}

int remove_file(const std::string& path) { return change(wanted(ChangeRequest::removal), path); }

Result<void> start_host_changes(const HostFiles& files) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        return fail(errno, "sandbox: socketpair: {}", std::strerror(errno));
    allow_most_descriptors();
    std::vector<BlockState> places = open_places(files);
    const pid_t parent = ::getpid();
    const pid_t child = ::fork();
    if (child == 0) ::close(ends[0]);  // the end of the other one is told by it
    if (child == 0) run_changer(ends[1], files, std::move(places), parent);
    const int error = errno;
    ::close(ends[1]);
    if (child < 0) {
        ::close(ends[0]);
        return fail(error, "sandbox: fork: {}", std::strerror(error));
    }
    // Its descriptors are the other one's.
    for (BlockState& place : places) {
        place.own = Descriptor();
        place.above.reset();
    }
    asker = std::make_unique<Asker>(std::move(places), ends[0], child);
    return {};
}

}  // namespace uext4
