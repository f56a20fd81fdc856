#include "tests/explore/explorer.h"

#include "base/seam.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <unordered_set>

namespace uext4::explore {

namespace {

// A schedule is stuck when it has had so much processor time, or has been looked at so often: by the clock on the wall
// alone, a process that was suspended or starved would be.
constexpr unsigned seconds_between_looks = 60, seconds_of_processor = 30, most_looks = 11;

Shared* shared_for_signals = nullptr;
std::atomic<const TokenScheduler*> scheduler_for_signals = nullptr;
volatile std::sig_atomic_t looks = 0, processor_before = 0;  // of the schedule under way

unsigned processor_seconds() {
    timespec now{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<unsigned>(now.tv_sec);
}

// The design that this process runs; null for the shipped one.
const designs::WrongDesign* wrong_design = nullptr;

// Only what a signal handler may do from here to died(): no memory is allocated, nothing is locked.
void tell_signal(int signal) {
    const std::span<char> text = std::span(shared_for_signals->text).first(shared_for_signals->text.size() - 1);
    std::span<char> rest = text;
    if (signal == SIGALRM) {
        rest = put(rest, "stuck (ALRM): no end of the schedule after ");
        rest = put(put(rest, static_cast<unsigned>(looks) * seconds_between_looks), " s, in which it used ");
        rest = put(put(rest, processor_seconds() - static_cast<unsigned>(processor_before)), " s of the processor");
    } else {
        const char* name = ::sigabbrev_np(signal);
        rest = put(put(rest, "ended by a signal: "), name ? name : "unknown");
    }
    rest.front() = 0;  // in case that nothing can be told of the threads
    if (const TokenScheduler* scheduler = scheduler_for_signals.load()) {
        const std::span<char> turn = put(rest, "\n");
        scheduler->tell_turn(turn).front() = 0;
    }
}

// What the process wrote to its error output is the reason: the caller of the child reads it.
void died(int signal) {
    if (signal == SIGALRM) {
        looks = looks + 1;
        const unsigned used = processor_seconds() - static_cast<unsigned>(processor_before);
        if (used < seconds_of_processor && static_cast<unsigned>(looks) < most_looks) {
            ::alarm(seconds_between_looks);
            return;
        }
    }
    shared_for_signals->failure.store(signal == SIGABRT   ? Failure::lock_order
                                      : signal == SIGALRM ? Failure::livelock
                                                          : Failure::crash);
    if (!shared_for_signals->text[0]) tell_signal(signal);
    ::_exit(1);
}

void watch_signals(Shared& shared) {
    shared_for_signals = &shared;
    for (int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM}) std::signal(signal, died);
}

void run_once(const Scenario& scenario, const MemoryDevice& image, Picker& picker, Shared& shared, bool record,
              std::unordered_set<std::uint64_t>& seen) {
    TokenScheduler scheduler(picker, shared, record);
    scheduler_for_signals = &scheduler;
    looks = 0;
    processor_before = static_cast<std::sig_atomic_t>(processor_seconds());
    ::alarm(seconds_between_looks);
    {
        World world(scenario, image.clone(), &scheduler);
        world.mount();
        scenario.run(world);
    }
    Counters& c = shared.counters;
    ++c.schedules;
    c.steps += scheduler.steps();
    c.waits += scheduler.waits();
    c.timers += scheduler.timers();
    c.errors += scheduler.errors();
    c.contended_schedules += scheduler.waits() != 0;
    c.trace_hash = c.trace_hash * 0x100000001b3 ^ scheduler.order_hash();
    if (seen.insert(scheduler.order_hash()).second) ++c.distinct;
    picker.end(scheduler.steps());
    scheduler_for_signals = nullptr;
}

std::string contents(int fd) {
    std::string text(1 << 15, '\0');
    const ssize_t n = ::pread(fd, text.data(), text.size(), 0);
    text.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
    return text;
}

}  // namespace

Explorer::Explorer() {
    void* memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        std::perror("mmap");
        std::_Exit(2);
    }
    shared_ = new (memory) Shared;
}

Explorer::~Explorer() { ::munmap(shared_, sizeof(Shared)); }

const std::shared_ptr<MemoryDevice>& Explorer::image_of(const Scenario& scenario) {
    if (image_scenario_ != &scenario) {
        image_ = make_template(scenario);
        image_scenario_ = &scenario;
    }
    return image_;
}

Found Explorer::in_child(const Scenario& scenario, const Design& design, Picker& picker, std::uint64_t schedules,
                         bool record) {
    const MemoryDevice& image = *image_of(scenario);
    shared_->counters = {};
    shared_->failure.store(Failure::none);
    shared_->text[0] = 0;
    shared_->failing_schedule = 0;
    shared_->deviation_count = 0;
    const int words = ::memfd_create("explore-stderr", MFD_CLOEXEC);
    std::fflush(nullptr);
    const pid_t parent = ::getpid(), child = ::fork();
    if (child < 0) {
        std::perror("fork");
        std::_Exit(2);
    }
    if (child == 0) {
        // Nobody waits for it when this process is killed; which it may have been already.
        if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || ::getppid() != parent) ::_exit(2);
        ::dup2(words, 2);
        watch_signals(*shared_);
        // One at a time is all that ever runs: on one processor the token changes hands quicker.
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(::sched_getcpu(), &one);
        ::sched_setaffinity(0, sizeof one, &one);
        wrong_design = design.wrong;
        std::unordered_set<std::uint64_t> seen;
        for (std::uint64_t i = 0; i < schedules && picker.begin(i); ++i) {
            shared_->failing_schedule = i + 1;
            run_once(scenario, image, picker, *shared_, record, seen);
        }
        ::_exit(0);
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    Found found;
    found.failure = shared_->failure.load();
    if (found.failure == Failure::none && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
        found.failure = Failure::crash;
        shared_->set_text("the process ended without a word");
    }
    found.counters = shared_->counters;
    found.number = shared_->failing_schedule;
    if (found.failure != Failure::none) {
        found.text = shared_->text.data();
        if (const std::string said = contents(words); !said.empty()) found.text += "\n" + said;
        found.schedule = shared_->schedule();
        ++found.counters.schedules;
    }
    ::close(words);
    return found;
}

Found Explorer::explore(const Request& r) {
    auto picker = r.algorithm == Algorithm::random ? make_random(r.seed)
                  : r.algorithm == Algorithm::pct  ? make_pct(r.seed)
                                                   : make_dfs();
    return in_child(*r.scenario, *r.design, *picker, r.schedules, false);
}

Found Explorer::replay(const Scenario& scenario, const Design& design, const Schedule& schedule, bool record) {
    const std::span<char> followed =
        std::span(shared_->followed).first(std::min(schedule.size(), Shared::max_deviations));
    std::ranges::fill(followed, 0);
    auto picker = make_replay(schedule, followed);
    Found found = in_child(scenario, design, *picker, 1, record);
    for (std::size_t i = 0; i < schedule.size(); ++i)
        if (i >= followed.size() || !followed[i]) found.skipped.push_back(schedule[i]);
    return found;
}

// Leaves out ever smaller parts of the choices as long as what is left fails in the same way.
Schedule Explorer::shrink(const Scenario& scenario, const Design& design, const Found& found) {
    Schedule best = found.schedule;
    const auto stop = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    auto fails = [&](const Schedule& candidate) {
        const Found again = replay(scenario, design, candidate, false);
        return again.failure == found.failure;
    };
    if (!fails(best)) return best;
    if (fails({})) return {};
    for (std::size_t part = (best.size() + 1) / 2; part >= 1;) {
        bool smaller = false;
        for (std::size_t at = 0; at < best.size() && std::chrono::steady_clock::now() < stop;) {
            Schedule candidate = best;
            const auto first = candidate.begin() + static_cast<std::ptrdiff_t>(at);
            candidate.erase(first, first + static_cast<std::ptrdiff_t>(std::min(part, best.size() - at)));
            if (fails(candidate)) {
                best = std::move(candidate);
                smaller = true;
            } else {
                at += part;
            }
        }
        if (std::chrono::steady_clock::now() >= stop) break;
        if (part == 1 && !smaller) break;
        if (!smaller || part > best.size()) part = std::max<std::size_t>(1, part / 2);
        if (best.empty()) break;
    }
    return best;
}

}  // namespace uext4::explore

namespace uext4::seams {

bool is_enabled(const char* name) {
    const std::string_view seam(name + std::strlen("seam:"));
    if (seam == "lock_order_ends") {
        if (explore::shared_for_signals) ++explore::shared_for_signals->counters.against_order;
        return !explore::wrong_design;
    }
    return !explore::wrong_design ||
           std::ranges::find(explore::wrong_design->seams, seam) == explore::wrong_design->seams.end();
}

}  // namespace uext4::seams
