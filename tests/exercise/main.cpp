// Runs one segment of the exerciser: from a mount to its end, which may be a SIGKILL. exercise_test.py runs the
// segments.
//
// Exit: 0 all operations are done, 10 the next segment is due, 1 something differed, 2 it could not run. The model says
// whether the program was about to be killed.
#include "tests/exercise/steps.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <deque>

namespace {

using namespace uext4::exercise;

struct Arguments {
    std::string state, image, directory, options;
    std::uint64_t operations = 1000, seed = 1, segment = 400;
    Rules rules;
};

const char* usage =
    "uext4-exercise --state FILE (--image IMAGE [--options OPTIONS] | --directory DIR)\n"
    "  [--operations N] [--seed S] [--segment OPERATIONS] [--no-ranges] [--no-maps] [--unaligned "
    "refused|taken|either]\n";

bool parse_unaligned(const std::string& word, Rules& rules) {
    if (word == "refused") rules.unaligned = Rules::Unaligned::refused;
    else if (word == "taken") rules.unaligned = Rules::Unaligned::taken;
    else if (word == "either") rules.unaligned = Rules::Unaligned::either;
    else return false;
    return true;
}

bool parse(int argc, char** argv, Arguments& a) {
    for (int i = 1; i < argc; ++i) {
        const std::string name = argv[i];
        if (name == "--no-ranges") a.rules.no_ranges = true;
        else if (name == "--no-maps") a.rules.maps = false;
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
        else return false;
    }
    return !a.state.empty() && a.image.empty() != a.directory.empty();
}

// The operations before a difference, newest last.
std::deque<std::string> newest;
constexpr std::size_t most_newest = 110;

int differed(const Model& model, const std::string& what) {
    for (const std::string& line : newest) fmt::print(stderr, "  {}\n", line);
    fmt::print(stderr, "seed {}, segment {}, operation {}: {}\n", model.seed, model.segment, model.done, what);
    return 1;
}

// After a kill the files hold something between the last sync and the kill; from now on, what they hold.
int adopt(Side& side, Model& model) {
    for (unsigned file = 0; file < files; ++file) {
        std::vector<std::byte> found(2 * largest);
        const ssize_t n = side.pread(file, Way::plain, found.data(), found.size(), 0);
        if (n < 0)
            return differed(model,
                            fmt::format("file {} cannot be read: {}", file, std::strerror(static_cast<int>(-n))));
        found.resize(static_cast<std::size_t>(n));
        const std::string why = model.file[file].refuted_by(found);
        if (!why.empty()) return differed(model, fmt::format("after a kill, file {}: {}", file, why));
        model.file[file].take(found);
    }
    model.killed = false;
    return 0;
}

int run(const Arguments& a) {
    Model model;
    if (!model.load(a.state)) model.seed = a.seed;
    std::unique_ptr<Side> side = a.image.empty() ? open_mount(a.directory) : open_library(a.image, a.options);
    if (model.killed)
        if (const int status = adopt(*side, model)) return status;
    const bool kill = model.segment % 4 == 3, tracing = ::getenv("UEXT4_TRACE") != nullptr;
    {
        Steps steps(*side, model, a.rules);
        for (unsigned file = 0; file < files; ++file)
            if (!steps.compare_all(file)) return differed(model, "at the start: " + steps.problem);
        for (std::uint64_t i = 1; i <= a.segment && model.done < a.operations; ++i, ++model.done) {
            const bool right = steps.step();
            newest.push_back(fmt::format("{} {}", model.done, steps.trace));
            if (newest.size() > most_newest) newest.pop_front();
            if (!right) return differed(model, steps.problem);
            if (tracing) fmt::print(stderr, "{} {}\n", model.done, steps.trace);
            if (i % 50 == 0 && !steps.compare_all(model.done / 50 % files))
                return differed(model, "seen afterwards: " + steps.problem);
        }
        // Those of who is killed are open then.
        if (!kill && !steps.close_maps()) return differed(model, steps.problem);
        ++model.segment;
        if (kill) {
            model.killed = true;
            model.save(a.state);
            // The library dies with this process; a mount's server is killed by whoever started it, while the maps and
            // descriptors are open.
            if (side->is_mount()) ::_exit(10);
            ::kill(::getpid(), SIGKILL);
        }
    }
    side.reset();
    for (ModelFile& file : model.file) file.made_durable();
    model.save(a.state);
    return model.done < a.operations ? 10 : 0;
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
