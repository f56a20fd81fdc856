#include "tests/crash/second_life.h"

#include "tests/crash/judges.h"

namespace uext4::crash {

namespace {

constexpr std::size_t most_steps = 6;
constexpr int cuts = 3;
constexpr unsigned other_bytes = 500;  // what the same step writes is told apart from what it wrote before

// Those that the first life began with, or some from its middle.
Recording next_of(const Recording& first, std::mt19937_64& random) {
    const bool several = !first.workload.threads.empty();
    const std::vector<Operation>& steps =
        several ? first.workload.threads[random() % first.workload.threads.size()] : first.workload.steps;
    Recording next;
    next.format = first.format;
    next.mode = first.mode;
    next.between = random() % 2 ? Between::commit : static_cast<Between>(random() % 4);
    next.poisons = first.poisons;
    next.first_serial = other_bytes;
    next.workload.name = first.workload.name + ", again";
    next.workload.in_several_transactions = first.workload.in_several_transactions;
    const std::size_t from = random() % 2 ? 0 : random() % steps.size();
    for (std::size_t i = from; i < std::min(steps.size(), from + most_steps); ++i)
        next.workload.steps.push_back(steps[i]);
    if (random() % 2) next.workload.steps.push_back({Operation::Kind::Sync});
    return next;
}

std::string told(const Recording& life, const std::string& cut, const std::string& problem) {
    std::string out = fmt::format("after recovery, between the steps: {}\n", between_name(life.between));
    for (const Step& s : life.steps)
        out += fmt::format("      requests {:4} to {:4}  {}{}\n", s.begin, s.end, describe(s.operation),
                           s.done ? "" : "  (refused)");
    return out + "    " + cut + ": " + problem;
}

}  // namespace

std::string judge_second_life(const Recording& recording, const CrashState& state, std::mt19937_64& random,
                              CrashState& last) {
    last = state;
    Recording life = next_of(recording, random);
    if (Result<void> lived = record_on(std::make_shared<OverlayDevice>(state.image), life); !lived)
        return "after recovery: " + lived.error().what;
    const std::vector<RecordedWrite>& log = life.log;
    const std::size_t recovered = life.steps.empty() ? 0 : life.steps.front().begin;
    for (int i = 0; i < cuts; ++i) {
        // The recovery itself is cut elsewhere.
        const std::size_t cut = recovered + random() % (log.size() + 1 - recovered);
        const unsigned keep = std::array<unsigned, 4>{100, 100, 50, 90}[random() % 4];
        std::size_t flushed = 0;
        for (std::size_t n = 0; n < cut; ++n)
            if (log[n].kind == RecordedWrite::Kind::Flush) flushed = n;
        auto image = std::make_shared<OverlayDevice>(state.image);
        std::string what = fmt::format("cut again after {} of {} requests, lost:", cut, log.size());
        for (std::size_t n = 0; n < cut; ++n) {
            if (n > flushed && log[n].kind == RecordedWrite::Kind::Write && random() % 100 >= keep) {
                what += fmt::format(" {}", n);
                continue;
            }
            if (!RecordingDevice::apply(log[n], *image)) return "the device failed";
        }
        last = {CutKind::subset, what, cut, cut, image};
        Tree tree;
        std::string problem = judge_ourselves(life, last, tree);
        if (problem.empty() && random() % 4 == 0) problem = judge_growth(last, life.mode, tree);
        if (!problem.empty()) return told(life, what, problem);
    }
    return {};
}

}  // namespace uext4::crash
