#include "fuse/placement.h"

#include "fuse/placement_choice.h"
#include "fuse/signals.h"
#include "fuse/titles.h"
#include "sandbox/sandbox.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <optional>
#include <utility>

namespace uext4::fuse {

struct Placement::Shared {
    std::atomic<std::uint32_t> requests{0};
    std::atomic<pid_t> caller{0};
    std::atomic<pid_t> thread{0};          // the one to place
    std::atomic<std::uint32_t> asleep{0};  // the helper waits for `requests` to change
    std::atomic<std::uint32_t> ended{0};   // a sandboxed server can send no signal
    // One more than the CPU to keep awake; 0 for none. The companion waits for it to change.
    std::atomic<std::uint32_t> awake{0};
};

namespace {

constexpr timespec short_look = {0, 1'000'000}, long_look = {0, 8'000'000};
constexpr int settled = 16;      // looks without a change until they become rarer
constexpr int agreeing = 2;      // looks that must agree before the thread moves
constexpr int quiet_looks = 25;  // without a request until the thread is let go

constexpr int yields_of_a_turn = 2000;  // about a millisecond on an idle CPU
constexpr int last_turns = 2;           // without a request until the companion sleeps

void wait_for_change(std::atomic<std::uint32_t>& word, std::uint32_t value) {
    syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAIT, value, nullptr, nullptr, 0);
}

void wake_one(std::atomic<std::uint32_t>& word) {
    syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

// Field 39 of /proc/TID/stat: where the thread ran last. The second field may hold anything, parentheses included.
std::optional<int> cpu_of(pid_t thread) {
    char path[32], text[1024];
    std::snprintf(path, sizeof path, "/proc/%d/stat", static_cast<int>(thread));
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return std::nullopt;
    const ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0) return std::nullopt;
    text[got] = '\0';
    const char* at = std::strrchr(text, ')');
    for (int field = 2; at && field < 39; ++field) at = std::strchr(at + 1, ' ');
    if (!at) return std::nullopt;
    return std::atoi(at + 1);
}

bool bind(pid_t thread, int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<std::size_t>(cpu), &set);
    return sched_setaffinity(thread, sizeof set, &set) == 0;
}

// Where the thread is bound to, and when it moves.
class Follower {
public:
    // True when the caller is where it was.
    bool look(pid_t thread, pid_t caller) {
        if (!allowed_ && !remember(thread)) return true;
        const std::optional<int> cpu = cpu_of(caller);
        if (!cpu || *cpu < 0 || *cpu >= CPU_SETSIZE || !CPU_ISSET(static_cast<std::size_t>(*cpu), &*allowed_))
            return true;
        if (cpu == bound_) return true;
        votes_ = cpu == wanted_ ? votes_ + 1 : 1;
        wanted_ = cpu;
        if (votes_ >= agreeing && bind(thread, *cpu)) bound_ = cpu;
        return false;
    }
    // The one that callers would be moved to, where there are two.
    std::optional<int> other_cpu() const {
        if (!bound_ || !allowed_ || CPU_COUNT(&*allowed_) != 2) return std::nullopt;
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
            if (cpu != *bound_ && CPU_ISSET(static_cast<std::size_t>(cpu), &*allowed_)) return cpu;
        return std::nullopt;
    }
    void let_go(pid_t thread) {
        if (bound_ && allowed_) sched_setaffinity(thread, sizeof *allowed_, &*allowed_);
        bound_.reset();
        wanted_.reset();
        allowed_.reset();  // who set limits from outside may set others
    }

private:
    bool remember(pid_t thread) {
        cpu_set_t set;
        if (sched_getaffinity(thread, sizeof set, &set) != 0 || CPU_COUNT(&set) < 2) return false;
        allowed_ = set;
        return true;
    }
    std::optional<cpu_set_t> allowed_;
    std::optional<int> bound_, wanted_;
    int votes_ = 0;
};

// What both processes begin with. They end with whoever started them, whatever ends that.
void become(const char* name, const std::string& role, const std::string& mount, pid_t parent, bool sandbox) {
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) _exit(0);
    close_range(0, ~0u, 0);
    if (chdir("/") != 0) _exit(0);
    ignore_signals();
    set_title(name, role, mount);
    // Without it nothing is lost that a mount needs.
    if (sandbox && !enter_sandbox(SandboxProfile::threads)) _exit(0);
}

}  // namespace

// Runs where nothing else wants to, and yields even to its own kind.
void Placement::keep_awake(Shared& shared) {
    const sched_param none{};
    if (sched_setscheduler(0, SCHED_IDLE, &none) != 0) return;
    std::uint32_t bound = 0;
    while (shared.ended.load() == 0) {
        const std::uint32_t cpu = shared.awake.load();
        if (cpu == 0) {
            wait_for_change(shared.awake, cpu);
            continue;
        }
        if (cpu != bound && !bind(0, static_cast<int>(cpu) - 1)) return;
        bound = cpu;
        for (int quiet = 0; quiet < last_turns && shared.awake.load() == cpu && shared.ended.load() == 0;) {
            const std::uint32_t before = shared.requests.load();
            for (int i = 0; i < yields_of_a_turn; ++i) sched_yield();
            quiet = shared.requests.load() == before ? quiet + 1 : 0;
        }
        std::uint32_t expected = cpu;
        shared.awake.compare_exchange_strong(expected, 0);
    }
}

void Placement::follow(Shared& shared, pid_t server) {
    using Clock = std::chrono::steady_clock;
    Follower follower;
    PlacementChoice choice;
    std::uint32_t seen = shared.requests.load();
    Clock::time_point last = Clock::now();
    int quiet = 0, same = 0;
    while (shared.ended.load() == 0) {
        const std::uint32_t now = shared.requests.load();
        const Clock::time_point moment = Clock::now();
        choice.saw(now - seen, std::chrono::duration_cast<PlacementChoice::Time>(moment - last));
        last = moment;
        const pid_t thread = shared.thread.load(), caller = shared.caller.load();
        // What the server says is not believed: only a thread of its own is moved.
        if (now != seen && thread != 0 && caller != 0 && syscall(SYS_tgkill, server, thread, 0) == 0) {
            seen = now;
            quiet = 0;
            if (choice.is_beside()) same = follower.look(thread, caller) ? same + 1 : 0;
            else follower.let_go(thread);
            const std::optional<int> other = follower.other_cpu();
            const std::uint32_t awake = other ? static_cast<std::uint32_t>(*other) + 1 : 0;
            if (shared.awake.exchange(awake) != awake) wake_one(shared.awake);
        } else if (++quiet >= quiet_looks) {
            if (thread != 0 && syscall(SYS_tgkill, server, thread, 0) == 0) follower.let_go(thread);
            shared.asleep.store(1);
            wait_for_change(shared.requests, now);
            shared.asleep.store(0);
            seen = shared.requests.load() - 1;
            last = Clock::now();
            quiet = same = 0;
            continue;
        }
        const bool often = choice.is_trying() || (choice.is_beside() && same < settled);
        nanosleep(often ? &short_look : &long_look, nullptr);
    }
}

Placement Placement::start(const std::string& mount, bool sandbox) {
    Placement made;
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) return made;
    void* page = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return made;
    made.shared_ = new (page) Shared;
    const pid_t server = getpid();
    made.helper_ = fork();
    if (made.helper_ != 0) return made;

    const pid_t helper = getpid();
    if (fork() == 0) {  // before this process may not fork any more
        become("uext4-awake", "waker of", mount, helper, sandbox);
        keep_awake(*made.shared_);
        _exit(0);
    }
    become("uext4-placement", "placement of", mount, server, sandbox);
    follow(*made.shared_, server);
    _exit(0);
}

Placement::Placement(Placement&& other) noexcept
    : shared_(std::exchange(other.shared_, nullptr)), helper_(std::exchange(other.helper_, -1)) {}

Placement& Placement::operator=(Placement&& other) noexcept {
    std::swap(shared_, other.shared_);
    std::swap(helper_, other.helper_);
    return *this;
}

Placement::~Placement() {
    if (helper_ > 0) {
        shared_->ended.store(1);
        shared_->requests.fetch_add(1);
        wake_one(shared_->requests);
        kill(helper_, SIGKILL);
        // It may be inside a look that waits for somebody: then it ends later, by itself.
        for (int attempt = 0; attempt < 200 && waitpid(helper_, nullptr, WNOHANG) == 0; ++attempt)
            nanosleep(&short_look, nullptr);
    }
    if (shared_) munmap(shared_, sizeof(Shared));
}

void Placement::place_this_thread() {
    if (shared_ && helper_ > 0) shared_->thread.store(gettid());
}

void Placement::called_by(pid_t caller) {
    if (!shared_) return;
    if (caller != 0) shared_->caller.store(caller, std::memory_order_relaxed);
    shared_->requests.fetch_add(1);
    if (shared_->asleep.load() != 0 && shared_->asleep.exchange(0) != 0) wake_one(shared_->requests);
}

}  // namespace uext4::fuse
