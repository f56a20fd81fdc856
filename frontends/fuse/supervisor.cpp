#include "fuse/supervisor.h"

#include "fuse/mount_table.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <utility>

namespace uext4::fuse {

namespace {

constexpr char word_mounted = 'm', word_take_away = 't', word_forget = 'f', word_done = 'd';

void unmount_lazily(const std::string& directory) {
    if (umount2(directory.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno == EPERM)
        run_fusermount(directory, true);
}

void write_cache(const std::string& directory) {
    const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    syncfs(fd);
    close(fd);
}

[[noreturn]] void supervise(int socket, const std::string& directory, bool auto_unmount) {
    std::optional<MountEntry> ours;
    // Somebody else's mount may lie there by now.
    const auto still_there = [&] {
        if (!ours) return false;
        const std::optional<MountEntry> now = find_mount(directory);
        return now && now->device == ours->device;
    };
    for (;;) {
        char word = 0;
        const ssize_t got = read(socket, &word, 1);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        if (word == word_mounted) ours = find_mount(directory);
        if (word == word_forget) ours.reset();
        if (word == word_take_away) {
            if (still_there()) {
                write_cache(directory);
                unmount_lazily(directory);
            }
            ours.reset();
            [[maybe_unused]] const ssize_t told = write(socket, &word_done, 1);
        }
    }
    if (auto_unmount && still_there()) unmount_lazily(directory);
    _exit(0);
}

void say(int socket, char word) {
    ssize_t told;
    do told = send(socket, &word, 1, MSG_NOSIGNAL);
    while (told < 0 && errno == EINTR);
}

}  // namespace

Result<Supervisor> Supervisor::start(const std::string& directory, bool auto_unmount,
                                     const std::vector<int>& unwanted) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return fail(errno, "socketpair: {}", std::strerror(errno));
    const pid_t pid = fork();
    if (pid < 0) {
        const int error = errno;
        close(ends[0]);
        close(ends[1]);
        return fail(error, "fork: {}", std::strerror(error));
    }
    if (pid > 0) {
        close(ends[1]);
        return Supervisor(ends[0], pid);
    }
    close(ends[0]);
    for (const int fd : unwanted) close(fd);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) signal(number, SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    if (const int null = open("/dev/null", O_RDWR | O_CLOEXEC); null >= 0)
        for (int fd = 0; fd < 3; ++fd) dup2(null, fd);
    if (chdir("/") != 0) _exit(1);
    supervise(ends[1], directory, auto_unmount);
}

Supervisor::Supervisor(Supervisor&& other) noexcept
    : socket_(std::exchange(other.socket_, -1)), pid_(std::exchange(other.pid_, -1)) {}

Supervisor::~Supervisor() {
    if (socket_ >= 0) close(socket_);
    if (pid_ > 0)
        while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
        }
}

void Supervisor::mounted() { say(socket_, word_mounted); }
void Supervisor::take_away() { say(socket_, word_take_away); }
void Supervisor::forget() { say(socket_, word_forget); }

}  // namespace uext4::fuse
