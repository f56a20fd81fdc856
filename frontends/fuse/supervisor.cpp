#include "fuse/supervisor.h"

#include "base/descriptor.h"
#include "fuse/cached_writes.h"
#include "fuse/connection.h"
#include "fuse/own_mount.h"
#include "fuse/session.h"
#include "fuse/signals.h"
#include "fuse/titles.h"
#include "sandbox/descriptor_passing.h"
#include "sandbox/descriptors.h"
#include "sandbox/sandbox.h"
#include "sync/thread.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <mutex>
#include <optional>
#include <span>
#include <sstream>
#include <string_view>
#include <utility>

namespace uext4::fuse {

namespace {

constexpr char word_mount = 'm', word_mount_read_only = 'r', word_take_away = 't', word_drop = 'x', word_done = 'd',
               word_failed = 'n';
constexpr std::int32_t most_groups = 65536;  // as the kernel's limit

// To mount and unmount, to reach the mount's directory, and to read the groups of everybody's processes where /proc
// hides them.
constexpr unsigned own_capabilities[] = {CAP_SYS_ADMIN, CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE};

// The server is there to the end of it, or nobody is: what was refused has been told to those who wrote it.
void write_cache(const std::string& directory) {
    const Descriptor root(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (root.is_open()) (void)send_cached_writes(root.fd());
}

// "Groups:" of /proc/PID/status.
std::vector<gid_t> read_groups(pid_t pid) {
    std::vector<gid_t> out;
    std::ifstream status(fmt::format("/proc/{0}/task/{0}/status", pid));
    for (std::string line; std::getline(status, line);) {
        if (!line.starts_with("Groups:")) continue;
        std::istringstream numbers(line.substr(std::string_view("Groups:").size()));
        for (gid_t g; static_cast<std::int32_t>(out.size()) < most_groups && numbers >> g;) out.push_back(g);
    }
    return out;
}

bool read_whole(int fd, void* to, std::size_t size) {
    auto* at = static_cast<char*>(to);
    while (size > 0) {
        const ssize_t got = read(fd, at, size);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        at += got;
        size -= static_cast<std::size_t>(got);
    }
    return true;
}
bool send_whole(int fd, const void* from, std::size_t size) {
    const auto* at = static_cast<const char*>(from);
    while (size > 0) {
        const ssize_t sent = send(fd, at, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return false;
        at += sent;
        size -= static_cast<std::size_t>(sent);
    }
    return true;
}

// Answers one question; false when nobody asks any more.
bool answer_groups(int socket) {
    std::int32_t pid = 0;
    if (!read_whole(socket, &pid, sizeof pid)) return false;
    const std::vector<gid_t> groups = read_groups(pid);
    const auto count = static_cast<std::int32_t>(groups.size());
    return send_whole(socket, &count, sizeof count) && send_whole(socket, groups.data(), groups.size() * sizeof(gid_t));
}

// The end of the server's first thread, which is the server's but for one case: a thread that waits in the kernel for
// what only the server could answer keeps the process, and with it the mount, and everybody who waits for that.
class ServersEnd {
public:
    explicit ServersEnd(pid_t server) : server_(server) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, number);
        sigprocmask(SIG_BLOCK, &set, nullptr);
        signal(number, SIG_DFL);  // what is ignored is not seen here either
        fd_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        prctl(PR_SET_PDEATHSIG, number);
        if (getppid() != server_) _exit(1);  // it ended before
    }
    int fd() const { return fd_; }
    // Others may send the signal as well.
    bool has_come() const {
        bool come = false;
        for (signalfd_siginfo info{}; read(fd_, &info, sizeof info) == sizeof info;)
            come = come || static_cast<pid_t>(info.ssi_pid) == server_;
        return come;
    }

private:
    static constexpr int number = SIGUSR1;
    pid_t server_;
    int fd_ = -1;
};

constexpr int dying_takes = 1000;  // milliseconds, after which nobody waits for it any more

// What may not wait until the mount is taken away, which waits for the server: its questions, which it may ask before
// it gets to what is waited for, and its end, after which nobody gets to that.
class Attendance {
public:
    Attendance(int groups, const ServersEnd& end) : groups_(groups), end_(end) {}
    Result<void> start() {
        thread_ = TRY(Thread::start("uext4-attend", [this] { run(); }));
        return {};
    }
    void mounted(const OwnMount& mount) {
        const std::lock_guard guard(lock_);
        connection_.emplace(mount);
    }

private:
    void run() {
        int patience = -1;
        for (;;) {
            pollfd wanted[] = {{groups_, POLLIN, 0}, {end_.fd(), POLLIN, 0}};
            const int ready = poll(wanted, 2, patience);
            if (ready < 0) continue;
            if (ready == 0) {
                patience = -1;
                const std::lock_guard guard(lock_);
                if (connection_) connection_->break_off();
            }
            if (wanted[1].revents && end_.has_come()) patience = dying_takes;
            if (wanted[0].revents && !answer_groups(groups_)) groups_ = -1;
        }
    }

    int groups_;
    const ServersEnd& end_;
    std::mutex lock_;
    std::optional<Connection> connection_;  // lock_
    std::optional<Thread> thread_;
};

// The terminal was for what there is to say about the mount.
void leave_terminal() {
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; null >= 0 && fd < 3; ++fd) dup2(null, fd);
    if (null > 2) close(null);
}

// One word, and a descriptor with it if there is one.
bool send_channel(int socket, int channel) {
    const char word = channel >= 0 ? word_done : word_failed;
    return send_with_descriptor(socket, std::as_bytes(std::span(&word, 1)), channel);
}

// -1 where none has come.
int receive_channel(int socket) {
    char word = 0;
    Descriptor channel;
    (void)receive_with_descriptor(socket, std::as_writable_bytes(std::span(&word, 1)), channel);
    return channel.release();
}

// Nobody but the server keeps the descriptor: the kernel is to see its end.
void mount_for_server(int socket, const std::string& directory, const MountOptions& options, OwnMount& mount) {
    const int channel = mount_channel(options, directory);
    if (channel >= 0) mount.made();
    leave_terminal();
    const bool sent = send_channel(socket, channel);
    if (channel >= 0) close(channel);
    if (!sent && mount.still_there()) mount.take_away();
}

[[noreturn]] void supervise(int socket, int groups, const std::string& directory, MountOptions options,
                            const ServersEnd& end) {
    Attendance attendance(groups, end);
    if (!attendance.start()) _exit(1);
    OwnMount mount(directory);
    bool asked = false;
    for (;;) {
        char word = 0;
        const ssize_t got = read(socket, &word, 1);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        if ((word == word_mount || word == word_mount_read_only) && !std::exchange(asked, true)) {
            if (word == word_mount_read_only) options.volume.fs.read_only = true;
            mount_for_server(socket, directory, options, mount);
            attendance.mounted(mount);
        }
        if (word == word_drop) {
            if (mount.still_there()) mount.take_away();
            mount.forget();
        }
        if (word == word_take_away) {
            if (mount.still_there()) {
                write_cache(directory);
                mount.take_away();
            }
            mount.forget();
            [[maybe_unused]] const ssize_t told = write(socket, &word_done, 1);
        }
    }
    if (options.auto_unmount && mount.still_there()) mount.take_away();
    _exit(0);
}

}  // namespace

Result<Supervisor> Supervisor::start(const std::string& directory, const MountOptions& options,
                                     const std::string& mount) {
    int ends[2], groups[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return fail(errno, "socketpair: {}", std::strerror(errno));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, groups) != 0) {
        const int error = errno;
        close(ends[0]);
        close(ends[1]);
        return fail(error, "socketpair: {}", std::strerror(error));
    }
    const pid_t server = getpid();
    const pid_t pid = fork();
    if (pid < 0) {
        const int error = errno;
        for (const int fd : {ends[0], ends[1], groups[0], groups[1]}) close(fd);
        return fail(error, "fork: {}", std::strerror(error));
    }
    if (pid > 0) {
        close(ends[1]);
        close(groups[1]);
        return Supervisor(directory, ends[0], groups[0], pid);
    }
    close(ends[0]);
    close(groups[0]);
    close_all_except({ends[1], groups[1]},
                     STDERR_FILENO + 1);  // the image's descriptor, if it was given as one, as well
    ignore_signals();
    set_title("uext4-supervise", "supervisor of", mount);
    if (chdir("/") != 0) _exit(1);
    if (options.sandbox && !drop_capabilities_except(own_capabilities)) _exit(1);
    supervise(ends[1], groups[1], directory, options, ServersEnd(server));
}

Supervisor::Supervisor(Supervisor&& other) noexcept
    : directory_(std::move(other.directory_)),
      socket_(std::exchange(other.socket_, -1)),
      groups_(std::exchange(other.groups_, -1)),
      pid_(std::exchange(other.pid_, -1)),
      groups_lock_(std::move(other.groups_lock_)) {}

Supervisor::~Supervisor() {
    if (socket_ >= 0) close(socket_);
    if (groups_ >= 0) close(groups_);
    if (pid_ > 0)
        while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
        }
}

Result<int> Supervisor::mount(bool read_only) {
    const char word = read_only ? word_mount_read_only : word_mount;
    const int channel = send_whole(socket_, &word, 1) ? receive_channel(socket_) : -1;
    if (channel < 0) return fail(EIO, "{}: FUSE could not mount there", directory_);
    return channel;
}

// If it has been killed, that shows on the descriptor.
void Supervisor::take_away() { (void)send_whole(socket_, &word_take_away, 1); }

bool Supervisor::drop() { return send_whole(socket_, &word_drop, 1); }

bool Supervisor::answers() {
    char word = 0;
    ssize_t got;
    do got = recv(socket_, &word, 1, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    return got == 1;
}

std::vector<gid_t> Supervisor::groups_of(pid_t pid) {
    const std::lock_guard guard(*groups_lock_);
    const std::int32_t asked = pid;
    std::int32_t count = 0;
    if (!send_whole(groups_, &asked, sizeof asked) || !read_whole(groups_, &count, sizeof count)) return {};
    if (count < 0 || count > most_groups) return {};
    std::vector<gid_t> out(static_cast<std::size_t>(count));
    if (!read_whole(groups_, out.data(), out.size() * sizeof(gid_t))) return {};
    return out;
}

}  // namespace uext4::fuse
