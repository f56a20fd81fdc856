// The crash-state checker: `./dev crash`.
#include "tests/crash/judges.h"
#include "tests/crash/report.h"
#include "tests/crash/second_life.h"
#include "tests/small_stacks.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>

namespace uext4::crash {
namespace {

// Also read by ./dev, which judges the options before anything is built.
constexpr const char* usage =
#include "tests/crash/usage.inc"
    ;

struct Known {
    const char *name, *looks_for;
    bool complete = false;    // in a long run none of its sequences is left out
    bool is_repeated = true;  // its images are the same each time
    bool small_log = false;   // on images with a small log, and on no others
};
constexpr Known workloads[] = {
    {"ace1", "every single operation on a small tree, with each way to make it durable", true},
    {"ace2", "every sequence of two operations", true},
    {"ace3", "sampled sequences of three operations, with syncs between them"},
    {"replace", "a file replaced by rename or truncate without a sync is the old one or the new one, whole", true},
    {"exerciser", "bytes of a few files: write, direct, mapped stores, truncate, fallocate, replace, fsync"},
    {"namespace", "names in a few directories: create, link, rename, exchange, unlink, attributes"},
    {"held", "files that lose their names while they are open, several at once: the list of orphans"},
    // The last, as they are others each time: what the others get does not depend on them. When the journal's thread
    // gives back what a commit has freed matters on a full device, and what it takes home when, in a full log.
    {"reuse", "blocks of directories, extents, attributes and journaled data that become data, on a full device", false,
     false},
    {"wrap", "contents that fill the log several times, and names: what goes home beside a running transaction", false,
     false},
    {"fragments", "files in hundreds of pieces, in a small log: each change of them takes several transactions", false,
     false, true},
    {"stress", "three threads at once, each with names and bytes of its own; commits and writeback meanwhile", false,
     false},
};

constexpr const char* modes[] = {"ordered", "journal"};

struct Options {
    std::string workload, format, mode, keep, html, report;
    std::size_t states = 10000, kernel = 1000, failures = 5;
    std::optional<std::size_t> e2fsck{};  // as asked for
    std::uint64_t seed = 1;
    unsigned depth = 2;
    bool thorough = false, capped = false, json = false, list = false, faults = false, each_prefix = false;
    std::string of_cuts{};      // an option that says something about cuts
    std::string beside_list{};  // one that a list takes no notice of

    std::size_t one_in_for_e2fsck() const { return e2fsck.value_or(thorough ? 2 : 10); }
    void be_thorough() {
        thorough = true;
        if (!capped) states = std::max<std::size_t>(states, 120000);
    }
};

// Whoever ends it shall find nothing of it left.
volatile std::sig_atomic_t ended = 0;
void end_soon(int) { ended = 1; }

int refuse(const std::string& why) {
    fmt::print(stderr, "crash: {}\n", why);
    return 2;
}

class Checker {
public:
    explicit Checker(Options options) : o_(std::move(options)) {}

    int run() {
        if (o_.one_in_for_e2fsck() != 0)
            if (const std::string missing = e2fsck_is_missing(); !missing.empty()) return refuse(missing);
        if (o_.kernel) kernel_ = kernel_can_mount(scratch_) ? Kernel::judges : Kernel::cannot_mount;
        const auto start = std::chrono::steady_clock::now();
        std::size_t cells = 0, done = 0;
        (void)each_cell(
            [&](const Known&, const Format&, const char*) { return ++cells, Result<void>(); });  // cannot fail
        if (cells == 0) return refuse(why_nothing_runs());
        const Result<void> ran = each_cell([&](const Known& w, const Format& f, const char* mode) -> Result<void> {
            counts_ = counts_for(w);
            const std::size_t left = o_.states - std::min(o_.states, judged_), share = left / (cells - done++);
            counts_.most = share;
            if (o_.thorough && !o_.capped)
                counts_.most = is_complete(w, f) ? ~std::size_t{0} : std::max<std::size_t>(share, 1500);
            return cell(w, f, mode);
        });
        ::unlink(scratch_.c_str());
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        if (!ran) return refuse(ran.error().what);
        if (ended) return refuse("ended by a signal");
        return finish(seconds);
    }

private:
    Result<void> each_cell(const std::function<Result<void>(const Known&, const Format&, const char*)>& visit) {
        for (const Known& w : workloads)
            for (const Format& f : formats)
                for (const char* mode : modes) {
                    if (w.small_log != (f.log_blocks != 0)) continue;
                    if (!o_.workload.empty() && o_.workload != w.name) continue;
                    if (!o_.format.empty() && o_.format != f.name) continue;
                    if (!o_.mode.empty() && o_.mode != mode) continue;
                    TRY(visit(w, f, mode));
                }
        return {};
    }

    // The first of the words that nothing is called by; else a workload and a format that do not go together.
    std::string why_nothing_runs() const {
        const auto is_one_of = [](const std::string& word, const auto& all, auto name) {
            return word.empty() || std::ranges::any_of(all, [&](const auto& one) { return word == name(one); });
        };
        const auto name_of = [](const auto& one) { return one.name; };
        if (!is_one_of(o_.workload, workloads, name_of))
            return fmt::format("no workload {}; --list tells them", o_.workload);
        if (!is_one_of(o_.format, formats, name_of)) return fmt::format("no format {}; --help tells them", o_.format);
        if (!is_one_of(o_.mode, modes, std::identity())) return fmt::format("no mode {}: ordered or journal", o_.mode);
        return fmt::format("{} is not run on images of the format {}; --help tells which are", o_.workload, o_.format);
    }

    static bool is_complete(const Known& known, const Format& format) {
        return known.complete && !(format.samples_pairs && known.name == std::string("ace2"));
    }

    // Tried per sequence: all prefixes of the long run's few, some of its many.
    StateCounts counts_for(const Known& known) const {
        StateCounts counts;
        if (!o_.thorough) counts = {30, 4, 3, 1};
        else if (known.name == std::string("ace2")) counts = {5, 1, 1, 0};
        // A sequence has hundreds of requests, and what matters is several of them; or thousands, of which few are
        // about where the log begins.
        if (known.small_log || known.name == std::string("wrap")) counts.prefix_percent = o_.thorough ? 10 : 2;
        if (known.name == std::string("wrap")) counts.subsets *= 20;
        if (o_.each_prefix) counts.prefix_percent = 100;
        counts.ends_recordings = !o_.each_prefix;
        return counts;
    }

    std::vector<Workload> sequences(const std::string& name, bool large_values) const {
        if (name == "ace1") return ace_workloads(1, o_.seed, 0, large_values);
        if (name == "ace2") return ace_workloads(2, o_.seed, 0, large_values);
        if (name == "ace3") return ace_workloads(3, o_.seed, 20000, large_values);
        if (name == "replace") return replacements();
        std::vector<Workload> out;
        for (std::uint64_t i = 0; i < 200; ++i) {
            const std::uint64_t seed = o_.seed * 1000 + i;
            out.push_back(name == "exerciser"   ? exerciser(seed, 40)
                          : name == "stress"    ? stress(seed, 40)
                          : name == "reuse"     ? reuse(seed, large_values)
                          : name == "wrap"      ? wrap(seed)
                          : name == "held"      ? held(seed)
                          : name == "fragments" ? fragments(seed)
                                                : namespace_stress(seed, 60, large_values));
        }
        return out;
    }

    // What a cell does depends on the seed and on its names alone: it does the same when it runs by itself.
    Result<void> cell(const Known& known, const Format& format, const char* mode) {
        tallies_.push_back({known.name, format.name, mode});
        tallies_.back().repeated = known.is_repeated;
        tallies_.back().prefix_percent = counts_.prefix_percent;
        const std::string names = fmt::format("{} {} {} {}", o_.seed, known.name, format.name, mode);
        std::seed_seq seed(names.begin(), names.end());
        random_.seed(seed);
        SeenImages seen;
        const std::vector<Workload> all = sequences(known.name, format.large_values);
        tallies_.back().sequences = all.size();
        Recorder recorder(TRY(make_image(format, scratch_)), format.name, mode);
        for (const Workload& workload : all) {
            if (seen.size() >= counts_.most || failures_.size() >= o_.failures || ended) break;
            const auto between = static_cast<Between>(random_() % 4);
            // Of files in pieces each piece would be a write of its own.
            const bool poisons = random_() % 2 && !known.small_log;
            const Recording recording = TRY(recorder.record(workload, between, poisons));
            ++tallies_.back().recordings;
            bool good = true;
            const auto visit = [&](const CrashState& state) -> Result<bool> {
                good = TRY(judge(recording, state));
                return good;  // one failure tells enough of a recording
            };
            TRY(for_each_state(recording, counts_, random_, seen, visit));
            tallies_.back().at_limit += good && counts_.ends_recordings && seen.size() >= counts_.most;
        }
        if (!o_.json) fmt::print("{}\n", line_of(tallies_.back()));
        std::fflush(stdout);
        return {};
    }

    Result<bool> judge(const Recording& recording, const CrashState& state) {
        Tally& tally = tallies_.back();
        ++tally.states[static_cast<int>(state.kind)];
        ++judged_;
        distinct_.insert(state.hash);
        tally.trace = (tally.trace ^ state.hash) * 0x100000001b3;
        // Drawn whether they are needed or not, so that who judges does not change what is judged.
        std::mt19937_64 of_recovery(random_());
        const bool cut_again = random_() % 5 == 0, grows = random_() % 4 == 0;
        // By the image, so that it is the same whatever else is drawn.
        std::mt19937_64 of_second_life(state.hash ^ o_.seed);
        const bool lives_on = of_second_life() % 8 == 0;
        const bool by_kernel = random_() % std::max<std::size_t>(o_.kernel, 1) == 0 && kernel_ == Kernel::judges &&
                               kernel_mounts(recording.format);
        Tree tree;
        std::string problem = judge_ourselves(recording, state, tree);
        if (state.kind == CutKind::lying) {
            note_lying(recording, state, problem);
            return true;
        }
        CrashState failing = state;  // that the problem is of
        if (problem.empty() && o_.depth > 1 && cut_again) {
            ++tally.cut_recoveries;
            problem = judge_cut_recovery(recording, state, tree, o_.depth - 1, of_recovery, failing.image);
            if (problem.empty()) failing = state;
        }
        if (problem.empty() && grows) problem = judge_growth(state, recording.mode, tree);
        // Counted, so that each cell has some; of these, what we have recovered is looked at in one of five.
        const std::size_t one_in = o_.one_in_for_e2fsck();
        if (problem.empty() && one_in && (tally.all_states() - 1) % one_in == 0) {
            const bool ours = tally.by_e2fsck++ % 5 == 0;
            tally.ours_by_e2fsck += ours;
            problem = TRY(judge_by_e2fsck(state, recording.mode, e2fsck_file_, ours));
        }
        if (problem.empty() && by_kernel) {
            ++tally.by_kernel;
            problem = TRY(judge_by_kernel(recording, state, tree, scratch_));
        }
        if (problem.empty() && lives_on) problem = TRY(judge_what_follows(recording, state, of_second_life, failing));
        if (ended) return false;  // and so may have been whoever judged
        if (problem.empty()) return true;
        ++tally.failures;
        failed(recording, state, *failing.image, problem);
        return false;
    }

    Result<std::string> judge_what_follows(const Recording& recording, const CrashState& state, std::mt19937_64& random,
                                           CrashState& last) {
        const std::size_t one_in = o_.one_in_for_e2fsck(), n = tallies_.back().second_lives++;
        std::string problem = judge_second_life(recording, state, random, last);
        if (!problem.empty() || one_in == 0 || n % one_in != 0) return problem;
        problem = TRY(judge_by_e2fsck(last, recording.mode, e2fsck_file_, false));
        return problem.empty() ? problem : "after recovery, " + last.what + ": " + problem;
    }

    void note_lying(const Recording& recording, const CrashState& state, const std::string& problem) {
        Tally& tally = tallies_.back();
        auto image = std::make_shared<OverlayDevice>(state.image);
        const bool opens = recover_and_capture(image, recording.mode).has_value();
        tally.lying_opened += opens;
        tally.lying_sound += opens && (problem.empty() || problem.starts_with("no state"));
        tally.lying_kept += problem.empty();
    }

    // `image`: what was recovered when it was seen.
    void failed(const Recording& recording, const CrashState& state, BlockDevice& image, const std::string& problem) {
        Failure f{recording.format,     recording.mode, between_name(recording.between),
                  cut_name(state.kind), state.what,     problem};
        if (recording.poisons) f.between += ", what is freed is overwritten";
        if (tallies_.back().repeated) f.again = call_of(tallies_.back());
        for (const Operation& o : recording.workload.setup) f.steps.push_back("before: " + describe(o));
        tell_steps(recording, f.steps);
        for (const Recording& thread : recording.threads) tell_steps(thread, f.steps);
        keep(image, f);
        if (!o_.json) fmt::print("{}", text_of(f));
        failures_.push_back(std::move(f));
    }

    void keep(BlockDevice& image, Failure& f) {
        if (o_.keep.empty()) {
            char folder[] = "/tmp/uext4-crash-XXXXXX";
            if (!::mkdtemp(folder)) {
                f.not_kept = fmt::format("{}: {}", folder, std::strerror(errno));
                return;
            }
            o_.keep = folder;
        } else {
            ::mkdir(o_.keep.c_str(), 0755);
        }
        const std::string path = fmt::format("{}/{}.img", o_.keep, failures_.size() + 1);
        if (const Result<void> saved = save_image(image, path); saved) {
            f.image = path;
        } else {
            ::unlink(path.c_str());  // a part of an image misleads
            f.not_kept = saved.error().what;
        }
    }

    // What runs this cell again, with the same judges.
    std::string call_of(const Tally& t) const {
        std::string call = fmt::format("./dev crash --seed {} --workload {} --format {} --mode {}", o_.seed, t.workload,
                                       t.format, t.mode);
        const Options usual;
        if (o_.thorough) call += " --long";
        if (o_.capped) call += fmt::format(" --states {}", o_.states);  // behind --long, which asks for more
        if (o_.each_prefix) call += " --each-prefix";
        if (o_.depth != usual.depth) call += fmt::format(" --depth {}", o_.depth);
        if (o_.e2fsck) call += fmt::format(" --e2fsck {}", *o_.e2fsck);
        if (o_.kernel != usual.kernel) call += fmt::format(" --kernel {}", o_.kernel);
        if (o_.failures != usual.failures) call += fmt::format(" --failures {}", o_.failures);
        return call;
    }

    static void tell_steps(const Recording& recording, std::vector<std::string>& out) {
        for (std::size_t i = 0; i < recording.steps.size(); ++i) {
            const Step& s = recording.steps[i];
            out.push_back(fmt::format("{:3}  requests {:4} to {:4}  {}{}", i + 1, s.begin, s.end, describe(s.operation),
                                      s.done ? "" : "  (refused)"));
        }
    }

    static std::string line_of(const Tally& t) {
        return fmt::format("{} {} {}: {} states of {} of {} sequences, {} failures, trace {:016x}", t.workload,
                           t.format, t.mode, t.all_states(), t.recordings, t.sequences, t.failures, t.trace);
    }

    std::uint64_t trace_of_all() const {
        std::uint64_t trace = 0;
        for (const Tally& t : tallies_)
            if (t.repeated) trace = (trace ^ t.trace) * 0x100000001b3;
        return trace;
    }

    int finish(double seconds) {
        Result<void> told;
        if (!o_.html.empty()) told = write_text(o_.html, html(tallies_, failures_, kernel_));
        if (!o_.report.empty()) {
            const std::string tables = markdown(tallies_, distinct_.size(), seconds, kernel_);
            if (Result<void> r = write_between_marks(o_.report, "crash", tables); !r) told = std::move(r);
        }
        if (o_.json) fmt::print("{}", json(tallies_, failures_, kernel_));
        else
            fmt::print(
                "{}\n{}\n{}\ntrace {:016x} of what is the same each time\n{} states, {} distinct, {:.0f} a second, {} "
                "failures\n",
                prefixes_of(tallies_), judges_of(tallies_, kernel_), lying_of(tallies_), trace_of_all(), judged_,
                distinct_.size(), static_cast<double>(judged_) / std::max(seconds, 0.001), failures_.size());
        if (!told) return refuse(told.error().what);
        return failures_.empty() ? 0 : 1;
    }

    Options o_;
    std::mt19937_64 random_;
    const std::string scratch_ = fmt::format("/dev/shm/uext4-crash-{}", ::getpid());
    ScratchFile e2fsck_file_{scratch_ + ".e2fsck"};
    StateCounts counts_;
    SeenImages distinct_;     // of all cells
    std::size_t judged_ = 0;  // told apart within their cell
    std::vector<Tally> tallies_;
    std::vector<Failure> failures_;
    Kernel kernel_ = Kernel::not_asked;
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

// What of these options a number may be. Nobody waits for as many cuts as that.
constexpr unsigned most_depth = 16;

bool takes(std::string_view option, unsigned long long value) {
    if (option == "--depth") return value >= 1 && value <= most_depth;
    return value != 0 || (option != "--failures" && option != "--states");
}

// False: not understood, and said so.
bool parse(int argc, char** argv, Options& o) {
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        if (option != "--faults" && option != "--seed" && option != "--long" && option != "--report")
            o.of_cuts = option;
        if (option != "--list" && option != "--json") o.beside_list = option;
        if (option == "--long") o.be_thorough();
        else if (option == "--each-prefix") o.each_prefix = true;
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
            if ((!text && !number) || i + 1 == argc || (text && !*argv[i + 1])) {
                fmt::print(stderr, "crash: {}: {}\n", option, text || number ? "needs a value" : "no such option");
                return false;
            }
            if (text) {
                *text = argv[++i];
                continue;
            }
            char* end = nullptr;
            errno = 0;
            const unsigned long long value = std::strtoull(argv[++i], &end, 10);
            const bool is_digit = *argv[i] >= '0' && *argv[i] <= '9';
            if (!is_digit || *end != '\0' || errno != 0 || !takes(option, value)) {
                fmt::print(stderr, "crash: {}: '{}' is no number that it takes\n", option, argv[i]);
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
    uext4::use_small_stacks();
    for (int i = 1; i < argc; ++i)
        if (!std::strcmp(argv[i], "--help") || !std::strcmp(argv[i], "-h")) return fmt::print("{}\n", usage), 0;
    Options options;
    const char* wanted = std::getenv("UEXT4_LONG");
    if (wanted && std::string(wanted) == "1") options.be_thorough();
    if (!parse(argc, argv, options)) return 2;
    if (options.list && !options.beside_list.empty())
        return refuse(fmt::format("--list tells of everything, so {} has no meaning beside it", options.beside_list));
    if (options.list) return list(options.json);
    if (options.faults && !options.of_cuts.empty())
        return refuse(fmt::format("--faults makes no cuts, so {} has no meaning beside it", options.of_cuts));
    if (!options.keep.empty())
        if (auto may = can_be_filled(options.keep); !may) return refuse(may.error().what);
    for (const std::string& path : {options.html, options.report})
        if (!path.empty())
            if (auto may = can_be_written(path); !may) return refuse(may.error().what);
    if (options.faults) return run_faults(options);
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) std::signal(number, end_soon);
    return Checker(options).run();
}
