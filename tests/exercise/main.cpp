// Runs one segment of the exerciser: from a mount to its end, which may be a SIGKILL. exercise_test.py runs the
// segments.
//
// Exit: 0 all operations are done, 10 the next segment is due, 1 something differed, 2 it could not run. The model says
// whether the program was about to be killed.
#include "tests/exercise/steps.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <thread>

namespace {

using namespace uext4::exercise;

struct Arguments {
    std::string state, image, directory, options;
    std::uint64_t operations = 1000, seed = 1, segment = 400;  // operations of each thread
    unsigned threads = 1;
    Rules rules;
};

const char* usage =
    "uext4-exercise --state FILE (--image IMAGE [--options OPTIONS] | --directory DIR)\n"
    "  [--operations N] [--seed S] [--segment OPERATIONS] [--threads N] [--grain BYTES] [--journaled] [--no-ranges]\n"
    "  [--no-maps] [--unaligned refused|either]\n";

bool parse_unaligned(const std::string& word, Rules& rules) {
    if (word == "refused") rules.unaligned = Rules::Unaligned::refused;
    else if (word == "either") rules.unaligned = Rules::Unaligned::either;
    else return false;
    return true;
}

bool parse(int argc, char** argv, Arguments& a) {
    for (int i = 1; i < argc; ++i) {
        const std::string name = argv[i];
        if (name == "--no-ranges") a.rules.no_ranges = true;
        else if (name == "--no-maps") a.rules.maps = false;
        else if (name == "--journaled") a.rules.journaled = true;
        else if (i + 1 == argc) return false;
        else if (name == "--unaligned") {
            if (!parse_unaligned(argv[++i], a.rules)) return false;
        } else if (name == "--state") a.state = argv[++i];
        else if (name == "--image") a.image = argv[++i];
        else if (name == "--directory") a.directory = argv[++i];
        else if (name == "--options") a.options = argv[++i];
        else if (name == "--operations") a.operations = std::strtoull(argv[++i], nullptr, 10);
        else if (name == "--seed") a.seed = std::strtoull(argv[++i], nullptr, 10);
        else if (name == "--segment") a.segment = std::strtoull(argv[++i], nullptr, 10);
        else if (name == "--threads") a.threads = static_cast<unsigned>(std::strtoul(argv[++i], nullptr, 10));
        else if (name == "--grain") a.rules.grain = std::strtoull(argv[++i], nullptr, 10);
        else return false;
    }
    a.rules.alone = a.threads == 1;
    return a.threads > 0 && a.rules.grain > 0 && !a.state.empty() && a.image.empty() != a.directory.empty();
}

// One thread's part of a segment: two files of its own.
class Part {
public:
    Part(const Arguments& arguments, unsigned thread)
        : arguments_(arguments),
          thread_(thread),
          path_(thread == 0 ? arguments.state : fmt::format("{}.{}", arguments.state, thread)) {
        if (!model_.load(path_)) model_.seed = arguments.seed + 1'000 * thread;
    }
    // All threads' segments end alike.
    bool ends_in_a_kill() const { return model_.segment % 4 == 3; }
    bool is_done() const { return model_.done >= arguments_.operations; }

    void run(Side& side) {
        if (model_.killed && !adopt(side)) return;
        const bool tracing = ::getenv("UEXT4_TRACE") != nullptr;
        Steps steps(side, model_, arguments_.rules);
        for (unsigned file = 0; file < files; ++file)
            if (!steps.compare_all(file)) return differed("at the start: " + steps.problem);
        for (std::uint64_t i = 1; i <= arguments_.segment && !is_done() && !somebody_differed; ++i, ++model_.done) {
            const bool step_right = steps.step();
            newest_.push_back(fmt::format("{} {}", model_.done, steps.trace));
            if (newest_.size() > most_newest) newest_.pop_front();
            if (!step_right) return differed(steps.problem);
            if (tracing) fmt::print(stderr, "{}: {} {}\n", thread_, model_.done, steps.trace);
            if (i % 50 == 0 && !steps.compare_all(model_.done / 50 % files))
                return differed("seen afterwards: " + steps.problem);
        }
        // Those of who is killed are open then.
        if (ends_in_a_kill()) steps.leave_maps();
        else if (!steps.close_maps()) return differed(steps.problem);
    }
    bool right() const { return right_; }

    void save(bool killed) {
        ++model_.segment;
        model_.killed = killed;
        if (!killed)
            for (ModelFile& file : model_.file) file.made_durable();
        model_.save(path_);
    }

private:
    static constexpr std::size_t most_newest = 110;

    void differed(const std::string& what) {
        right_ = false;
        if (somebody_differed.exchange(true)) return;
        for (const std::string& line : newest_) fmt::print(stderr, "  {}\n", line);
        fmt::print(stderr, "seed {}, thread {}, segment {}, operation {}: {}\n", arguments_.seed, thread_,
                   model_.segment, model_.done, what);
    }

    // After a kill the files hold something between the last sync and the kill; from now on, what they hold.
    bool adopt(Side& side) {
        for (unsigned file = 0; file < files; ++file) {
            std::vector<std::byte> found(2 * largest);
            const ssize_t n = side.pread(file, Way::plain, found.data(), found.size(), 0);
            if (n < 0) {
                differed(fmt::format("file {} cannot be read: {}", file, std::strerror(static_cast<int>(-n))));
                return false;
            }
            found.resize(static_cast<std::size_t>(n));
            const std::string why = model_.file[file].refuted_by(found);
            if (!why.empty()) {
                differed(fmt::format("after a kill, file {}: {}", file, why));
                return false;
            }
            model_.file[file].take(found);
        }
        model_.killed = false;
        return true;
    }

    static std::atomic<bool> somebody_differed;
    const Arguments& arguments_;
    unsigned thread_;
    std::string path_;
    Model model_;
    std::deque<std::string> newest_;  // operations, before a difference
    bool right_ = true;
};

std::atomic<bool> Part::somebody_differed{false};

int run(const Arguments& a) {
    std::deque<Part> parts;
    for (unsigned thread = 0; thread < a.threads; ++thread) parts.emplace_back(a, thread);
    auto sides = a.image.empty() ? open_mount(a.directory, a.threads) : open_library(a.image, a.options, a.threads);
    {
        std::vector<std::jthread> others;
        for (unsigned thread = 1; thread < a.threads; ++thread)
            others.emplace_back([&, thread] { parts[thread].run(*sides[thread]); });
        parts[0].run(*sides[0]);
    }
    for (const Part& part : parts)
        if (!part.right()) return 1;
    const bool kill = parts[0].ends_in_a_kill();
    if (!kill) sides.clear();
    for (Part& part : parts) part.save(kill);
    if (kill) {
        // The library dies with this process; a mount's server is killed by whoever started it, while the maps and
        // descriptors are open.
        if (a.image.empty()) ::_exit(10);
        ::kill(::getpid(), SIGKILL);
    }
    for (const Part& part : parts)
        if (!part.is_done()) return 10;
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    Arguments arguments;
    if (!parse(argc, argv, arguments)) {
        fmt::print(stderr, "{}", usage);
        return 2;
    }
    return run(arguments);
}
