// The crash-state checker: `./dev crash`.
#include "tests/crash/judges.h"
#include "tests/crash/report.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>

namespace uext4::crash {
namespace {

// Also read by ./dev, which judges the options before anything is built.
constexpr const char* usage =
#include "tests/crash/usage.inc"
    ;

struct Known {
    const char *name, *looks_for;
    bool complete = false;  // in a long run none of its sequences is left out
};
constexpr Known workloads[] = {
    {"ace1", "every single operation on a small tree, with each way to make it durable", true},
    {"ace2", "every sequence of two operations", true},
    {"ace3", "sampled sequences of three operations, with syncs between them"},
    {"replace", "a file replaced by rename or truncate without a sync is the old one or the new one, whole", true},
    {"reuse", "blocks of directories, extents, attributes and journaled data that become data, on a full device"},
    {"exerciser", "bytes of a few files: write, direct, mapped stores, truncate, fallocate, replace, fsync"},
    {"stress", "three threads at once, each with names and bytes of its own; commits and writeback meanwhile"},
    {"namespace", "names in a few directories: create, link, rename, exchange, unlink, attributes"},
};

struct Options {
    std::string workload, format, mode, keep, html, report;
    std::size_t states = 10000, kernel = 1000, failures = 5;
    std::optional<std::size_t> e2fsck{};  // as asked for
    std::uint64_t seed = 1;
    unsigned depth = 2;
    bool thorough = false, capped = false, json = false, list = false, faults = false;

    std::size_t one_in_for_e2fsck() const { return e2fsck.value_or(thorough ? 2 : 10); }
    void be_thorough() {
        thorough = true;
        states = std::max<std::size_t>(states, 120000);
    }
};

class Checker {
public:
    explicit Checker(Options options) : o_(std::move(options)), random_(o_.seed) {}

    int run() {
        if (o_.kernel) kernel_ = kernel_can_mount(scratch_);
        const auto start = std::chrono::steady_clock::now();
        std::size_t cells = 0, done = 0;
        (void)each_cell(
            [&](const Known&, const Format&, const char*) { return ++cells, Result<void>(); });  // cannot fail
        if (cells == 0) return refuse("no workload, format or mode of that name; --list and --help tell them");
        const Result<void> ran = each_cell([&](const Known& w, const Format& f, const char* mode) -> Result<void> {
            counts_ = counts_for(w);
            const std::size_t left = o_.states - std::min(o_.states, seen_.size()), share = left / (cells - done++);
            counts_.most = seen_.size() + share;
            if (o_.thorough && !o_.capped)
                counts_.most = w.complete ? ~std::size_t{0} : seen_.size() + std::max<std::size_t>(share, 1500);
            return cell(w, f, mode);
        });
        ::unlink(scratch_.c_str());
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        if (!ran) return refuse(ran.error().what);
        return finish(seconds);
    }

private:
    static int refuse(const std::string& why) {
        fmt::print(stderr, "crash: {}\n", why);
        return 2;
    }

    Result<void> each_cell(const std::function<Result<void>(const Known&, const Format&, const char*)>& visit) {
        for (const Known& w : workloads)
            for (const Format& f : formats)
                for (const char* mode : {"ordered", "journal"}) {
                    if (!o_.workload.empty() && o_.workload != w.name) continue;
                    if (!o_.format.empty() && o_.format != f.name) continue;
                    if (!o_.mode.empty() && o_.mode != mode) continue;
                    TRY(visit(w, f, mode));
                }
        return {};
    }

    // Tried per sequence: all prefixes of the long run's few, some of its many.
    StateCounts counts_for(const Known& known) const {
        if (!o_.thorough) return {30, 4, 3, 1};
        return known.name == std::string("ace2") ? StateCounts{5, 1, 1, 0} : StateCounts{};
    }

    std::vector<Workload> sequences(const std::string& name) const {
        if (name == "ace1") return ace_workloads(1, o_.seed, 0);
        if (name == "ace2") return ace_workloads(2, o_.seed, 0);
        if (name == "ace3") return ace_workloads(3, o_.seed, 20000);
        if (name == "replace") return replacements();
        std::vector<Workload> out;
        for (std::uint64_t i = 0; i < 200; ++i) {
            const std::uint64_t seed = o_.seed * 1000 + i;
            out.push_back(name == "exerciser" ? exerciser(seed, 40)
                          : name == "stress"  ? stress(seed, 40)
                          : name == "reuse"   ? reuse(seed)
                                              : namespace_stress(seed, 60));
        }
        return out;
    }

    Result<void> cell(const Known& known, const Format& format, const char* mode) {
        tallies_.push_back({known.name, format.name, mode});
        const std::vector<Workload> all = sequences(known.name);
        tallies_.back().sequences = all.size();
        Recorder recorder(TRY(make_image(format, scratch_)), format.name, mode);
        for (const Workload& workload : all) {
            if (seen_.size() >= counts_.most || failures_.size() >= o_.failures) break;
            const Recording recording = TRY(recorder.record(workload, static_cast<Between>(random_() % 4)));
            ++tallies_.back().recordings;
            bool good = true;
            TRY(for_each_state(recording, counts_, random_, seen_, [&](const CrashState& state) -> Result<bool> {
                good = judge(recording, state);
                return good;  // one failure tells enough of a recording
            }));
        }
        if (!o_.json) fmt::print("{}\n", line_of(tallies_.back()));
        std::fflush(stdout);
        return {};
    }

    bool judge(const Recording& recording, const CrashState& state) {
        Tally& tally = tallies_.back();
        ++tally.states[static_cast<int>(state.kind)];
        Tree tree;
        std::string problem = judge_ourselves(recording, state, tree);
        if (state.kind == CutKind::lying) {
            note_lying(recording, state, problem);
            return true;
        }
        if (problem.empty() && o_.depth > 1 && random_() % 5 == 0) {
            ++tally.cut_recoveries;
            problem = judge_cut_recovery(recording, state, tree, o_.depth - 1, random_);
        }
        if (problem.empty() && random_() % 4 == 0) problem = judge_growth(state, recording.mode, tree);
        // Counted, so that each cell has some; of these, what we have recovered is looked at in one of five.
        const std::size_t one_in = o_.one_in_for_e2fsck();
        if (problem.empty() && one_in && (tally.all_states() - 1) % one_in == 0) {
            problem = judge_by_e2fsck(state, recording.mode, e2fsck_file_, tally.by_e2fsck % 5 == 0);
            ++tally.by_e2fsck;
        }
        if (problem.empty() && kernel_ && random_() % o_.kernel == 0) {
            ++tally.by_kernel;
            problem = judge_by_kernel(recording, state, tree, scratch_);
        }
        if (problem.empty()) return true;
        ++tally.failures;
        failed(recording, state, problem);
        return false;
    }

    void note_lying(const Recording& recording, const CrashState& state, const std::string& problem) {
        Tally& tally = tallies_.back();
        auto image = std::make_shared<OverlayDevice>(state.image);
        const bool opens = recover_and_capture(image, recording.mode).has_value();
        tally.lying_opened += opens;
        tally.lying_sound += opens && (problem.empty() || problem.starts_with("no state"));
        tally.lying_kept += problem.empty();
    }

    void failed(const Recording& recording, const CrashState& state, const std::string& problem) {
        Failure f{recording.format,     recording.mode, between_name(recording.between),
                  cut_name(state.kind), state.what,     problem};
        for (const Operation& o : recording.workload.setup) f.steps.push_back("before: " + describe(o));
        tell_steps(recording, f.steps);
        for (const Recording& thread : recording.threads) tell_steps(thread, f.steps);
        if (o_.keep.empty()) {
            char folder[] = "/tmp/uext4-crash-XXXXXX";
            if (::mkdtemp(folder)) o_.keep = folder;
        } else {
            ::mkdir(o_.keep.c_str(), 0755);
        }
        const std::string path = fmt::format("{}/{}.img", o_.keep, failures_.size() + 1);
        if (save_image(*state.image, path)) f.image = path;
        if (!o_.json) fmt::print("{}", text_of(f));
        failures_.push_back(std::move(f));
    }

    static void tell_steps(const Recording& recording, std::vector<std::string>& out) {
        for (std::size_t i = 0; i < recording.steps.size(); ++i) {
            const Step& s = recording.steps[i];
            out.push_back(fmt::format("{:3}  requests {:4} to {:4}  {}{}", i + 1, s.begin, s.end, describe(s.operation),
                                      s.done ? "" : "  (refused)"));
        }
    }

    static std::string line_of(const Tally& t) {
        return fmt::format("{} {} {}: {} states of {} of {} sequences, {} failures", t.workload, t.format, t.mode,
                           t.all_states(), t.recordings, t.sequences, t.failures);
    }

    int finish(double seconds) {
        if (!o_.html.empty()) std::ofstream(o_.html) << html(tallies_, failures_);
        if (!o_.report.empty()) write_between_marks(o_.report, "crash", markdown(tallies_, seconds, kernel_));
        if (o_.json) fmt::print("{}", json(tallies_, failures_));
        else
            fmt::print("{} states, distinct, {:.0f} a second, {} failures\n", seen_.size(),
                       static_cast<double>(seen_.size()) / std::max(seconds, 0.001), failures_.size());
        return failures_.empty() ? 0 : 1;
    }

    Options o_;
    std::mt19937_64 random_;
    const std::string scratch_ = fmt::format("/dev/shm/uext4-crash-{}", ::getpid());
    ScratchFile e2fsck_file_{scratch_ + ".e2fsck"};
    StateCounts counts_;
    SeenImages seen_;
    std::vector<Tally> tallies_;
    std::vector<Failure> failures_;
    bool kernel_ = false;
};

int list(bool as_json) {
    if (as_json) fmt::print("{{\"workloads\": [");
    bool first = true;
    for (const Known& w : workloads) {
        if (as_json)
            fmt::print("{}{{\"name\": \"{}\", \"looks_for\": \"{}\"}}", first ? "" : ", ", w.name, w.looks_for);
        else fmt::print("{:12} {}\n", w.name, w.looks_for);
        first = false;
    }
    if (as_json) fmt::print("]}}\n");
    return 0;
}

// The same workloads on a device that fails: a test, which lies beside this program.
int run_faults(const Options& o) {
    std::error_code failed;
    const auto self = std::filesystem::read_symlink("/proc/self/exe", failed);
    const std::string test = self.parent_path() / "faults_workloads_test";
    ::setenv("UEXT4_SEED", std::to_string(o.seed).c_str(), 1);
    if (o.thorough) ::setenv("UEXT4_LONG", "1", 1);
    if (!o.report.empty()) ::setenv("UEXT4_FAULTS_REPORT", o.report.c_str(), 1);
    ::execl(test.c_str(), test.c_str(), "--gtest_brief=1", static_cast<char*>(nullptr));
    fmt::print(stderr, "crash: {}: {}\n", test, std::strerror(errno));
    return 2;
}

// False: not understood, and said so.
bool parse(int argc, char** argv, Options& o) {
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        if (option == "--long") o.be_thorough();
        else if (option == "--json") o.json = true;
        else if (option == "--list") o.list = true;
        else if (option == "--faults") o.faults = true;
        else {
            std::string* text = option == "--workload" ? &o.workload
                                : option == "--format" ? &o.format
                                : option == "--mode"   ? &o.mode
                                : option == "--keep"   ? &o.keep
                                : option == "--html"   ? &o.html
                                : option == "--report" ? &o.report
                                                       : nullptr;
            const bool number = option == "--states" || option == "--seed" || option == "--depth" ||
                                option == "--e2fsck" || option == "--kernel" || option == "--failures";
            if ((!text && !number) || i + 1 == argc) {
                fmt::print(stderr, "crash: {}: {}\n", option, text || number ? "needs a value" : "no such option");
                return false;
            }
            if (text) {
                *text = argv[++i];
                continue;
            }
            char* end = nullptr;
            const unsigned long long value = std::strtoull(argv[++i], &end, 10);
            if (*argv[i] == '\0' || *end != '\0') {
                fmt::print(stderr, "crash: {}: '{}' is no number\n", option, argv[i]);
                return false;
            }
            if (option == "--states") o.states = value, o.capped = true;
            else if (option == "--seed") o.seed = value;
            else if (option == "--depth") o.depth = static_cast<unsigned>(value);
            else if (option == "--e2fsck") o.e2fsck = value;
            else if (option == "--kernel") o.kernel = value;
            else o.failures = value;
        }
    }
    return true;
}

}  // namespace
}  // namespace uext4::crash

int main(int argc, char** argv) {
    using namespace uext4::crash;
    for (int i = 1; i < argc; ++i)
        if (!std::strcmp(argv[i], "--help") || !std::strcmp(argv[i], "-h")) return fmt::print("{}\n", usage), 0;
    Options options;
    const char* wanted = std::getenv("UEXT4_LONG");
    if (wanted && std::string(wanted) == "1") options.be_thorough();
    if (!parse(argc, argv, options)) return 2;
    if (options.list) return list(options.json);
    if (options.faults) return run_faults(options);
    return Checker(options).run();
}
