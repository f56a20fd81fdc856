#include "fuse/mount.h"

#include "base/descriptor.h"
#include "device/host_use.h"
#include "device/mount_table.h"
#include "device/open_device.h"
#include "fuse/heap.h"
#include "fuse/own_mount.h"
#include "fuse/server.h"
#include "fuse/signals.h"
#include "fuse/supervisor.h"
#include "fuse/system_log.h"
#include "fuse/titles.h"
#include "pagecache/cache_memory_limit.h"
#include "sandbox/partition_apart.h"
#include "sandbox/sandbox.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <optional>

namespace uext4::fuse {

namespace {

constexpr int failure = 2;
// After a signal: how long open files may keep the mount alive once it has lost its name.
constexpr int grace_milliseconds = 2000;

// Messages: stderr, and syslog once the server has left its terminal.
class Log {
public:
    explicit Log(std::string image) : image_(std::move(image)) {}
    void tell(const std::string& text) {
        const bool named = text.find(image_ + ":") != std::string::npos;  // by its whole path, or as it was given
        const std::string line = named ? text : image_ + ": " + text;
        if (detached_.load()) system_log_.add(line);
        else fmt::print(stderr, "uext4 mount: {}\n", line);
    }
    // Before the sandbox, which has neither new files nor new sockets.
    static void prepare() {
        tzset();
        openlog("uext4", LOG_PID | LOG_NDELAY, LOG_DAEMON);
    }
    void detach() { detached_.store(true); }
    void settle() { system_log_.settle(); }

private:
    std::string image_;
    std::atomic<bool> detached_{false};
    SystemLog system_log_;
};

Result<std::string> real_path(const std::string& path) {
    char* found = realpath(path.c_str(), nullptr);
    if (!found) return fail(errno, "{}: {}", path, std::strerror(errno));
    std::string out(found);
    std::free(found);
    return out;
}

bool is_descriptor(const std::string& image) {
    return image.starts_with("/dev/fd/") || image.starts_with("/proc/self/fd/");
}

// A name of the image that stays true when the server changes its directory. Descriptors and partition numbers stay.
Result<std::string> absolute_image(const std::string& image) {
    if (is_descriptor(image)) return image;
    if (Result<std::string> whole = real_path(image)) return whole;
    const std::size_t at = image.rfind('@');
    if (at == std::string::npos || at == 0) return real_path(image);
    return TRY(real_path(image.substr(0, at)))
    +image.substr(at);
}

// The mount that a directory lies in, by names alone: nothing in a dead one can be looked at.
std::string mount_above(const std::string& directory) {
    namespace files = std::filesystem;
    for (files::path path = files::absolute(directory).lexically_normal(); path.has_relative_path();
         path = path.parent_path())
        if (path.has_filename() && find_mount(path)) return path;
    return directory;
}

std::unexpected<Error> dead_mount(const std::string& directory) {
    return fail(ENOTCONN, "{}: the server of the mount there is dead; `uext4 umount {}` takes it away", directory,
                mount_above(directory));
}

// The kernel may still have the attributes of a mount's root that nobody serves any more. Opening it asks the server.
bool is_dead(const std::string& directory) {
    const std::optional<MountEntry> mount = find_mount(directory);
    if (!mount || !mount->type.starts_with("fuse")) return false;
    const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool dead = fd < 0 && errno == ENOTCONN;
    if (fd >= 0) close(fd);
    return dead;
}

// What the table of mounts says of a descriptor: the path that it has, where that leads to the same file.
std::string source_of(const std::string& image) {
    if (!is_descriptor(image)) return image;
    const std::size_t number = image.rfind('/') + 1, part = std::min(image.find('@', number), image.size());
    const std::string descriptor = "/proc/self/fd/" + image.substr(number, part - number);
    char path[PATH_MAX];
    const ssize_t length = readlink(descriptor.c_str(), path, sizeof path);
    if (length <= 0 || length == sizeof path) return image;
    const std::string found(path, static_cast<std::size_t>(length));
    struct stat named{}, open{};
    const bool same = stat(found.c_str(), &named) == 0 && stat(descriptor.c_str(), &open) == 0 &&
                      named.st_dev == open.st_dev && named.st_ino == open.st_ino;
    return same ? found + image.substr(part) : image;
}

// What the kernel's cache needs is served by the loop, so a signal only starts the end: the supervisor writes the cache
// and takes the mount's name away, the loop ends when the kernel lets go. A second signal, or files that stay open, end
// it whoever uses it (Server::stop). Where somebody has killed the supervisor, the server has the cache written by
// itself; the mount's name stays if it may not take it away.
class Stopper {
public:
    // `signals`: a signalfd.
    Stopper(Server& server, Supervisor& supervisor, int signals, Log& log)
        : server_(server), supervisor_(supervisor), log_(log), signals_(signals), ended_(eventfd(0, EFD_CLOEXEC)) {
        thread_ = Thread("uext4-stop", [this] { run(); });
    }
    // The loop has ended.
    ~Stopper() {
        eventfd_write(ended_, 1);
        thread_.join();
        close(ended_);
    }

private:
    enum class Event : std::uint8_t { ended, signal, answer, alone, time };

    Event wait(bool for_supervisor, int milliseconds) {
        pollfd wanted[] = {
            {ended_, POLLIN, 0}, {signals_, POLLIN, 0}, {for_supervisor ? supervisor_.descriptor() : -1, POLLIN, 0}};
        for (;;) {
            const int ready = poll(wanted, 3, milliseconds);
            if (ready == 0) return Event::time;
            if (ready < 0) continue;
            if (wanted[0].revents) return Event::ended;
            if (wanted[1].revents) {
                signalfd_siginfo info;
                if (::read(signals_, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) return Event::signal;
            }
            if (wanted[2].revents) return supervisor_.answers() ? Event::answer : Event::alone;
        }
    }

    void run() {
        Event event = wait(true, -1);
        if (event == Event::alone) {
            log_.tell("the process that takes the mount away has been killed; `uext4 umount` does it as well");
            event = wait(false, -1);
        }
        if (event == Event::ended) return;
        server_.thaw_to_end();
        supervisor_.take_away();
        event = wait(true, -1);
        if (event == Event::alone) server_.call_in_last_writes();
        if (event == Event::answer) event = wait(false, grace_milliseconds);
        // The loop may be just before the call that the signal is to interrupt.
        while (event != Event::ended) {
            server_.stop();
            server_.thaw_to_end();  // no freeze comes any more
            do event = wait(false, 50);
            while (event == Event::signal);
        }
    }

    Server& server_;
    Supervisor& supervisor_;
    Log& log_;
    int signals_, ended_;
    Thread thread_;
};

// A server in the background leaves its terminal and the directory it was started in once it is ready. What that takes
// is opened before the sandbox.
class Background {
public:
    // `report`: where it says that it is ready; -1 for a server in the foreground.
    explicit Background(int report) : report_{report} {}

    void prepare() {
        if (!report_.is_open()) return;
        Log::prepare();
        if (chdir("/") == 0) null_ = Descriptor(open("/dev/null", O_RDWR | O_CLOEXEC));
    }
    void enter(Log& log) {
        if (!report_.is_open()) return;
        log.detach();
        std::fflush(nullptr);
        for (int fd = 0; null_.is_open() && fd < 3; ++fd) dup2(null_.fd(), fd);
        const char done = 0;
        [[maybe_unused]] const ssize_t told = ::write(report_.fd(), &done, 1);
        report_.close();
    }

private:
    Descriptor report_, null_;
};

struct Job {
    MountOptions options;
    std::string image, directory;
    std::string title;  // "IMAGE on DIRECTORY"
    bool debug = false;
    bool may_only_read = false;  // an image that cannot be written is mounted read-only
    int report = -1;             // where a background server says that it is ready
    std::chrono::milliseconds wait{0};
};

// EPERM: an immutable file.
bool is_write_protected(const Error& error) {
    return error.code == EROFS || error.code == EACCES || error.code == EPERM;
}

// An image of a mount, which becomes read-only where the image cannot be written. `why` then says so.
class MountedImage {
public:
    MountedImage(Job& job, Log& log) : job_(job), log_(log) {}

    Result<void> open() {
        Result<void> opened = open_device();
        if (opened || !falls_back(opened.error())) return opened;
        return open_device();
    }
    Result<std::unique_ptr<FileSystem>> mount() {
        const auto tell = [&log = log_](const std::string& text) { log.tell(text); };
        Result<std::unique_ptr<FileSystem>> fs = FileSystem::mount_device(device_, job_.options.volume, tell);
        if (fs || fs.error().code != EROFS || !falls_back(fs.error())) return fs;
        device_->downgrade_to_read_only();
        return FileSystem::mount_device(device_, job_.options.volume, tell);
    }
    BlockDevice& device() { return *device_; }
    // The file system alone has it from now on.
    void let_go() { device_.reset(); }
    const std::string& why() const { return why_; }

private:
    Result<void> open_device() {
        const VolumeOptions& options = job_.options.volume;
        FileDeviceOptions view;
        view.writable = !options.fs.read_only;
        view.offset = options.offset;
        view.lock_timeout = job_.wait;
        view.on_wait = [&](const std::string& sentence) { log_.tell(sentence + " (--wait)"); };
        const FindPartition find = job_.options.sandbox ? find_partition_in_child : find_partition;
        if (!view.writable)
            if (const std::optional<std::string> warning = mounted_for_writing(job_.image, view.offset, find))
                log_.tell(*warning);
        device_ = TRY(uext4::open_device(job_.image, view, find));
        return {};
    }
    bool falls_back(const Error& error) {
        if (!job_.may_only_read || job_.options.volume.fs.read_only || !is_write_protected(error)) return false;
        job_.options.volume.fs.read_only = true;
        std::erase(job_.options.volume.given_names, "rw");  // mount(8) gives it always
        why_ = error.what + "; mounted read-only";
        return true;
    }

    Job& job_;
    Log& log_;
    std::shared_ptr<FileDevice> device_;
    std::string why_;
};

Result<void> serve(Job& job, Log& log) {
    set_title("uext4-server", "server", job.title);
    sigset_t signals;
    sigemptyset(&signals);
    for (const int number : ending_signals()) sigaddset(&signals, number);
    sigset_t before;
    pthread_sigmask(SIG_BLOCK, &signals, &before);
    struct sigaction interrupt{};
    interrupt.sa_handler = [](int) {};
    sigaction(interrupting_signal, &interrupt, nullptr);  // without SA_RESTART: it only interrupts
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);  // a write past the limit of sizes is an error like any other

    auto run = [&]() -> Result<void> {
        Background background(job.report);
        const bool sandbox = job.options.sandbox;
        Placement placement = job.options.placement ? Placement::start(job.title, sandbox) : Placement();
        Supervisor supervisor = TRY(Supervisor::start(job.directory, job.options, job.title));
        const auto tell = [&log](const std::string& text) { log.tell(text); };
        MountedImage opened(job, log);
        TRY(opened.open());
        const Descriptor asked_to_end{signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK)};
        background.prepare();
        share_heap();
        if (job.options.volume.cache_grows) CacheMemoryLimit::process_wide().keep_files_open();
        // From here on nothing can be opened, and the image is looked at.
        if (sandbox) TRY(enter_sandbox(SandboxProfile::server));
        std::unique_ptr<FileSystem> fs = TRY(opened.mount());
        BlockDevice& image = opened.device();
        opened.let_go();
        Result<void> served;
        {
            OwnMount mount(job.directory);
            Server server(*fs, job.options, tell, std::move(placement));
            if (sandbox) server.ask_for_groups([&supervisor](pid_t pid) { return supervisor.groups_of(pid); });
            served = server.attach([&] { return supervisor.mount(job.options.volume.fs.read_only); }, job.debug,
                                   [&] {
                                       if (!opened.why().empty()) log.tell(opened.why());
                                       background.enter(log);
                                   });
            if (served) {
                if (!sandbox) mount.made();
                {
                    const Stopper stopper(server, supervisor, asked_to_end.fd(), log);
                    served = server.loop();
                    // umount(2) has returned, and whoever called it may look at the image at once.
                    image.request_lease();
                }
            }
            // Usually the kernel has let go. If not, and somebody has killed the supervisor, only a server outside of
            // the sandbox may still take the mount away.
            if (!supervisor.drop() && mount.still_there()) mount.take_away();
            server.detach();
        }
        Result<void> closed = fs->unmount();
        fs.reset();
        if (!served) return served;
        if (!closed) return fail(closed.error().code, "{}: unmount: {}", job.image, closed.error().what);
        return {};
    };
    Result<void> result = run();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return result;
}

// In the parent: whether the server in the child came up.
int await_server(int report, pid_t child) {
    char word = 0;
    ssize_t got;
    do got = ::read(report, &word, 1);
    while (got < 0 && errno == EINTR);
    close(report);
    if (got == 1) return 0;
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status)) fmt::print(stderr, "uext4 mount: the server was ended by signal {}\n", WTERMSIG(status));
    return failure;
}

// `no_image`: the image is not there, and may be missing.
Result<Job> prepare(const MountRequest& request, bool& no_image) {
    Job job;
    job.options = TRY(parse_mount_options(request.options, geteuid() == 0));
    Result<std::string> directory = real_path(request.directory);
    if (!directory && directory.error().code == ENOTCONN) return dead_mount(request.directory);
    job.directory = TRY(std::move(directory));
    job.options.volume.mounted_on = job.directory;
    struct stat info{};
    if (stat(job.directory.c_str(), &info) != 0) {
        if (errno == ENOTCONN) return dead_mount(request.directory);
        return fail(errno, "{}: {}", request.directory, std::strerror(errno));
    }
    if (is_dead(job.directory)) return dead_mount(request.directory);
    if (!S_ISDIR(info.st_mode)) return fail(ENOTDIR, "{}: not a directory", request.directory);
    Result<std::string> image = absolute_image(request.image);
    no_image = !image && image.error().code == ENOENT && job.options.nofail;
    job.image = TRY(std::move(image));
    if (job.options.source.empty()) job.options.source = source_of(job.image);
    job.debug = request.debug;
    job.title = request.image + " on " + job.directory;
    job.may_only_read = request.by_mount_program ||
                        std::ranges::find(job.options.volume.given_names, "rw") == job.options.volume.given_names.end();
    job.wait = request.wait;
    return job;
}

}  // namespace

int run_mount(const MountRequest& request) {
    Log log(request.image);
    bool no_image = false;
    Result<Job> job = prepare(request, no_image);
    if (!job) {
        log.tell(job.error().what + (no_image ? "; nothing is mounted (nofail)" : ""));
        if (no_image) return absent;
        return failure;
    }
    const bool background = !request.foreground && !request.debug;
    if (background) {
        int report[2];
        if (pipe2(report, O_CLOEXEC) != 0) {
            log.tell(fmt::format("pipe: {}", std::strerror(errno)));
            return failure;
        }
        std::fflush(nullptr);
        const pid_t child = fork();
        if (child < 0) {
            log.tell(fmt::format("fork: {}", std::strerror(errno)));
            return failure;
        }
        if (child > 0) {
            close(report[1]);
            return await_server(report[0], child);
        }
        close(report[0]);
        job->report = report[1];
        setsid();
    }
    const Result<void> served = serve(*job, log);
    if (!served) log.tell(served.error().what);
    log.settle();
    if (background) std::exit(served ? 0 : failure);
    return served ? 0 : failure;
}

}  // namespace uext4::fuse
