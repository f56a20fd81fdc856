#include "cli/shell_worker.h"

#include "cli/interrupt.h"
#include "cli/kept_mount.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>

namespace uext4::cli {

// ---- What goes through the socket.

namespace {

struct Request {
    enum Kind : std::uint32_t { open, command, directory };
    std::uint32_t kind = open;
    std::uint32_t words = 0;  // each follows: its size, as std::uint32_t, and its bytes
};

// An exit code; or nothing was done, as only reading is possible.
constexpr std::int32_t needs_writing = -1;

bool send_all(int socket, std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t n = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
}

bool receive_all(int socket, char* out, std::size_t size) {
    while (size > 0) {
        const ssize_t n = ::recv(socket, out, size, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        out += n;
        size -= static_cast<std::size_t>(n);
    }
    return true;
}

template <class T>
std::string_view bytes_of(const T& value) {
    return {reinterpret_cast<const char*>(&value), sizeof value};
}
template <class T>
bool receive(int socket, T& out) {
    return receive_all(socket, reinterpret_cast<char*>(&out), sizeof out);
}

// ---- The process that works.

int told_failure(const Failure& failure) {
    if (!failure.what.empty()) fmt::print(stderr, "uext4 shell: {}\n", quote(failure.what));
    return failure.code;
}

// The worker ends with the process that reads the commands. After a signal that asks for an end, the command that runs
// ends at its next safe point, and the shell with it.
bool belongs_to(pid_t parent) {
    catch_interrupts_in_shell();
    return ::prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && ::getppid() == parent;
}

class Worker {
public:
    Worker(const std::string& image, const CommonOptions& options, bool settles, bool writable)
        : image_(image), options_(options), settles_(settles), kept_(image, options, writable) {
        open_beforehand(image, writable, options);
    }

    int serve(int socket) {
        Request request;
        while (receive(socket, request)) {
            std::vector<std::string> words(request.words);
            for (std::string& word : words) {
                std::uint32_t size = 0;
                if (!receive(socket, size)) return exit_failure;
                word.resize(size);
                if (!receive_all(socket, word.data(), size)) return exit_failure;
            }
            const std::int32_t code = answer(request.kind, std::move(words));
            std::fflush(stdout);
            if (!send_all(socket, bytes_of(code))) return exit_failure;
        }
        try {
            kept_.close();
        } catch (const Failure& failure) {
            return told_failure(failure);
        }
        return exit_ok;
    }

private:
    std::int32_t answer(std::uint32_t kind, std::vector<std::string> words) {
        std::int32_t code = exit_ok;
        try {
            if (kind == Request::command) code = command(std::move(words));
            else if (kind == Request::directory) code = directory(words.front());
            else kept_.open(false);
        } catch (const NeedsWritableMount&) {
            return needs_writing;
        } catch (const Failure& failure) {
            return told_failure(failure);
        }
        if (settles_) try {
                kept_.settle();
            } catch (const Failure& failure) {
                (void)told_failure(failure);
            }
        return code;
    }

    // The first word is the directory that the others are read in.
    int command(std::vector<std::string> words) {
        read_words_in_shell({image_, words.front()});
        words.erase(words.begin());
        return run_line(std::move(words));
    }

    int directory(const std::string& path) {
        Session session(image_, false, options_);
        const bool is_one = session.resolve(path)->is_directory();
        session.close();
        if (!is_one) fail_with(exit_negative, path + ": no directory");
        return exit_ok;
    }

    const std::string& image_;
    const CommonOptions& options_;
    const bool settles_;
    ShellMount kept_;
};

// The worker, for the handler of a signal: 0 while there is none.
volatile sig_atomic_t worker_process = 0;

// A child that ends as a program does: what it has started to change files of the host is waited for. Negative where
// there is none, which is told.
template <class Work>
pid_t start_process(Work work) {
    std::fflush(stdout);
    const pid_t parent = ::getpid();
    const pid_t child = ::fork();
    if (child < 0) fmt::print(stderr, "uext4 shell: no process: {}\n", std::strerror(errno));
    if (child > 0) worker_process = child;
    if (child != 0) return child;
    if (!belongs_to(parent)) ::_exit(exit_failure);
    std::exit(work());
}

}  // namespace

// ---- The process that reads.

void ShellWorker::pass_on_signal(int number) {
    if (const pid_t process = worker_process) (void)::kill(process, number);
}

ShellWorker::~ShellWorker() { (void)finish(); }

int ShellWorker::start(HostReach reach, bool writable) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        fmt::print(stderr, "uext4 shell: no socket: {}\n", std::strerror(errno));
        return exit_failure;
    }
    reach_ = WorkerReach(std::move(reach));
    writable_ = writable;
    process_ = start_process([&] {
        ::close(ends[0]);
        reach_host_files(reach_.reach());
        std::optional<Worker> worker;
        try {
            worker.emplace(image_, options_, settles_, writable);
        } catch (const Failure& failure) {
            return told_failure(failure);
        }
        return worker->serve(ends[1]);
    });
    ::close(ends[1]);
    socket_ = ends[0];
    if (process_ < 0) {
        (void)finish();
        return exit_failure;
    }
    const int code = ask(Request::open, {});
    if (code != exit_ok) (void)finish();
    return code;
}

int ShellWorker::ask(std::uint32_t kind, const std::vector<std::string>& words) {
    std::string message(bytes_of(Request{kind, static_cast<std::uint32_t>(words.size())}));
    for (const std::string& word : words) {
        message += bytes_of(static_cast<std::uint32_t>(word.size()));
        message += word;
    }
    std::fflush(stdout);
    std::int32_t code = exit_ok;
    if (!send_all(socket_, message) || !receive(socket_, code)) return std::max(finish(), exit_negative);
    // Whoever answers may have been taken over.
    const bool asks = code == needs_writing && kind == Request::command && !writable_;
    return asks || (code >= exit_ok && code <= 255) ? code : exit_failure;
}

int ShellWorker::prepare(const HostReach& needed, const std::function<std::vector<HostReach>()>& later) {
    if (process_ >= 0 && reach_.covers(needed)) return exit_ok;
    const bool writable = writable_;
    const int before = finish();
    HostReach reach = needed;
    if (needed.reach != SandboxProfile::image) reach = joined_reach(needed, later());
    return std::max(before, start(std::move(reach), writable));
}

int ShellWorker::run(const std::string& directory, std::vector<std::string> words) {
    words.insert(words.begin(), directory);
    const int code = ask(Request::command, words);
    if (code != needs_writing) return code;
    const int before = finish();
    const int opened = start(reach_.reach(), true);
    return std::max({before, opened, opened == exit_ok ? ask(Request::command, words) : exit_ok});
}

int ShellWorker::enter(const std::string& directory) { return ask(Request::directory, {directory}); }

int ShellWorker::run_alone(const std::vector<std::string>& words) {
    const int before = finish();
    process_ = start_process([&] { return run_line(words); });
    return std::max(before, process_ < 0 ? exit_failure : finish());
}

int ShellWorker::finish() {
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
    writable_ = false;
    if (process_ < 0) return exit_ok;
    // Its number stays taken until it is waited for.
    siginfo_t end{};
    while (::waitid(P_PID, static_cast<id_t>(process_), &end, WEXITED | WNOWAIT) < 0 && errno == EINTR) {
    }
    worker_process = 0;
    int status = 0;
    while (::waitpid(process_, &status, 0) < 0 && errno == EINTR) {
    }
    process_ = -1;
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    fmt::print(stderr, "uext4 shell: {}: the process that works on it was ended by signal {} ({})\n", quote(image_),
               WTERMSIG(status), ::strsignal(WTERMSIG(status)));
    return exit_failure;
}

}  // namespace uext4::cli
