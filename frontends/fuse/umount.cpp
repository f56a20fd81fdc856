#include "device/mount_table.h"
#include "fuse/fusermount.h"
#include "fuse/ioctls.h"
#include "fuse/mount.h"

#include <fmt/format.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

namespace uext4::fuse {

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto longest_wait = std::chrono::minutes(10);
constexpr auto silent_wait = std::chrono::seconds(2);  // then it is said what is waited for

int refuse(const std::string& text) {
    fmt::print(stderr, "uext4 umount: {}\n", text);
    return 2;
}

// The server's process, by which its end can be waited for exactly; -1 when it cannot be had.
int server_of(const std::string& directory) {
    const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -1;
    int pid = 0;
    int handle = -1;
    if (ioctl(fd, UEXT4_IOC_SERVER, &pid) == 0 && pid > 0) handle = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    // A frozen file system could not take what the kernel writes at the unmount.
    ioctl(fd, UEXT4_IOC_THAW);
    close(fd);
    return handle;
}

bool process_ends(int handle, Clock::time_point limit) {
    for (;;) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(limit - Clock::now()).count();
        if (left <= 0) return false;
        pollfd wanted = {handle, POLLIN, 0};
        const int ready = poll(&wanted, 1, static_cast<int>(left));
        if (ready > 0) return true;
        if (ready < 0 && errno != EINTR) return false;
    }
}

// Says after a while what the kernel waits for: it writes what it holds to the server, and may wait for a server that
// is gone but cannot end (docs/MOUNT.md).
class Patience {
public:
    explicit Patience(std::string directory)
        : teller_([this, directory = std::move(directory)] {
              std::unique_lock guard(lock_);
              if (done_.wait_for(guard, silent_wait, [this] { return over_; })) return;
              fmt::print(stderr,
                         "uext4 umount: {}: the server takes what the kernel still holds, or does not answer; waiting "
                         "(where it was killed, umount -f {} as root ends the mount)\n",
                         directory, directory);
          }) {}
    ~Patience() {
        {
            const std::lock_guard guard(lock_);
            over_ = true;
        }
        done_.notify_all();
        teller_.join();
    }

private:
    std::mutex lock_;
    std::condition_variable done_;
    bool over_ = false;
    std::thread teller_;
};

// The file behind a mount's source: a partition's number is not part of its name.
int open_source(const std::string& source) {
    int fd = open(source.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        if (const std::size_t at = source.rfind('@'); at != std::string::npos)
            fd = open(source.substr(0, at).c_str(), O_RDONLY | O_CLOEXEC);
    return fd;
}

bool lock_is_released(int fd, Clock::time_point limit) {
    for (;;) {
        struct flock lock{};
        lock.l_type = F_WRLCK;
        lock.l_whence = SEEK_SET;
        if (fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return true;
        if (Clock::now() >= limit) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
}

}  // namespace

int run_umount(const std::string& directory, UmountRequest request) {
    std::optional<Patience> patience;
    if (!request.lazy && !request.force) patience.emplace(directory);
    const std::unique_ptr<char, decltype(&std::free)> real(realpath(directory.c_str(), nullptr), &std::free);
    // A mount whose server died cannot be walked into, but it still has its name.
    if (!real && errno != ENOTCONN && errno != EACCES)
        return refuse(fmt::format("{}: {}", directory, std::strerror(errno)));
    const std::string path = real ? std::string(real.get()) : directory;
    const std::optional<MountEntry> mount = find_mount(path);
    if (!mount) return refuse(fmt::format("{}: nothing is mounted there", directory));
    // One that does not answer is not asked either.
    const int server = mount->type.starts_with("fuse") && !request.force ? server_of(path) : -1;
    // subtype= may have changed the name; then only its server can tell whose mount it is.
    if (server < 0 && mount->type != "fuse.uext4")
        return refuse(fmt::format("{}: a mount of type {}, not of this program", directory, mount->type));
    const int image = open_source(mount->source);
    const int flags = UMOUNT_NOFOLLOW | (request.lazy ? MNT_DETACH : 0) | (request.force ? MNT_FORCE : 0);
    bool gone = umount2(path.c_str(), flags) == 0;
    int error = errno;
    if (!gone && error == EPERM) {
        gone = run_fusermount(path, request.lazy) == 0;
        error = 0;  // it has said what is wrong
    }
    patience.reset();
    bool released = true;
    if (gone && !request.lazy && !request.force) {
        const auto released_by = [&](Clock::time_point limit) {
            if (server >= 0) return process_ends(server, limit);
            return image < 0 || lock_is_released(image, limit);
        };
        const Clock::time_point start = Clock::now();
        released = released_by(start + silent_wait);
        if (!released) {
            fmt::print(stderr,
                       "uext4 umount: {}: unmounted, but its server still serves {}: it writes, or the same mount is "
                       "also elsewhere (a bind mount, another mount name space); waiting\n",
                       directory, mount->source);
            released = released_by(start + longest_wait);
        }
    }
    if (server >= 0) close(server);
    if (image >= 0) close(image);
    if (!gone) return error ? refuse(fmt::format("{}: {}", directory, std::strerror(error))) : 2;
    if (!released)
        return refuse(fmt::format("{}: unmounted, but the server has not released {}", directory, mount->source));
    return 0;
}

}  // namespace uext4::fuse
