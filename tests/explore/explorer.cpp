#include "tests/explore/explorer.h"

#include "base/seam.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unordered_set>

namespace uext4::explore {

namespace {

constexpr unsigned seconds_a_schedule = 60;

Shared* shared_for_signals = nullptr;

// The design that this process runs; null for the shipped one.
const designs::WrongDesign* wrong_design = nullptr;

// What the process wrote to its error output is the reason: the caller of the child reads it.
void died(int signal) {
    shared_for_signals->failure.store(signal == SIGABRT   ? Failure::lock_order
                                      : signal == SIGALRM ? Failure::livelock
                                                          : Failure::crash);
    if (!shared_for_signals->text[0]) {
        const char* name = ::sigabbrev_np(signal);
        shared_for_signals->set_text(name ? name : "signal");
    }
    ::_exit(1);
}

void watch_signals(Shared& shared) {
    shared_for_signals = &shared;
    for (int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM}) std::signal(signal, died);
}

void run_once(const Scenario& scenario, const MemoryDevice& image, Picker& picker, Shared& shared, bool record,
              std::unordered_set<std::uint64_t>& seen) {
    ::alarm(seconds_a_schedule);
    TokenScheduler scheduler(picker, shared, record);
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
    const pid_t child = ::fork();
    if (child < 0) {
        std::perror("fork");
        std::_Exit(2);
    }
    if (child == 0) {
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

bool kept(const char* name) {
    const std::string_view seam(name + std::strlen("seam:"));
    if (seam == "lock_order_ends") {
        if (explore::shared_for_signals) ++explore::shared_for_signals->counters.against_order;
        return !explore::wrong_design;
    }
    return !explore::wrong_design ||
           std::ranges::find(explore::wrong_design->seams, seam) == explore::wrong_design->seams.end();
}

}  // namespace uext4::seams
