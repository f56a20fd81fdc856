// The workload whose changes take several transactions: that they do, and what a cut between them shows.
#include "tests/crash/judges.h"
#include "tests/crash/recorder.h"

#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <random>

namespace uext4::crash {
namespace {

std::vector<Format> small_logs() {
    std::vector<Format> out;
    std::ranges::copy_if(formats, std::back_inserter(out), [](const Format& f) { return f.log_blocks != 0; });
    return out;
}

class Fragments : public testing::TestWithParam<std::tuple<Format, const char*>> {};

// Each alone, so that it begins with a transaction of its own, and does not fit into it.
TEST_P(Fragments, EachChangeTakesSeveralTransactions) {
    const auto& [format, mode] = GetParam();
    auto image = make_image(format, fmt::format("/dev/shm/uext4-fragments-{}", ::getpid()));
    ASSERT_TRUE(image) << image.error().what;
    Recorder recorder(*image, format.name, mode);
    const bool shifts = !std::string(format.name).ends_with("indirect");
    const Workload all = fragments(1);
    for (std::size_t i = 0; i < all.steps.size(); ++i) {
        const Operation& change = all.steps[i];
        if (change.kind != Operation::Kind::Fallocate && change.kind != Operation::Kind::Truncate &&
            change.kind != Operation::Kind::Unlink)
            continue;
        if (!shifts && change.kind == Operation::Kind::Fallocate && change.path == "/f") continue;
        Workload w = all;
        w.steps = {change, {Operation::Kind::Commit}};
        auto recorded = recorder.record(w, Between::nothing);
        ASSERT_TRUE(recorded) << recorded.error().what;
        EXPECT_TRUE(recorded->steps.front().done) << describe(change);
        // A name is gone at once, the blocks with the commit, which ends the last one.
        const bool later = change.kind == Operation::Kind::Unlink;
        const Step& step = recorded->steps[later];
        EXPECT_GT(step.last_transaction - step.first_transaction, later) << describe(change);
    }
}

// The contents of /f in the images that a cut leaves are those before a shift, those after it, or what is half moved.
TEST_P(Fragments, AShiftIsCutInItsMiddle) {
    const auto& [format, mode] = GetParam();
    if (std::string(format.name).ends_with("indirect")) return;  // shifts nothing
    auto image = make_image(format, fmt::format("/dev/shm/uext4-fragments-{}", ::getpid()));
    ASSERT_TRUE(image) << image.error().what;
    Recorder recorder(*image, format.name, mode);
    for (const int shift : {FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE}) {
        Workload w = fragments(1);
        std::erase_if(w.steps,
                      [&](const Operation& o) { return o.kind != Operation::Kind::Fallocate || o.mode != shift; });
        auto recording = recorder.record(w, Between::nothing);
        ASSERT_TRUE(recording) << recording.error().what;
        std::mt19937_64 random(1);
        SeenImages seen;
        unsigned halves = 0;
        auto visit = [&](const CrashState& state) -> Result<bool> {
            Tree tree;
            EXPECT_EQ(judge_ourselves(*recording, state, tree), "") << state.what;
            const auto shows = [&](const Tree& t) { return t.at("/f").contents == tree.at("/f").contents; };
            halves += std::ranges::none_of(recording->trees, shows);
            return !HasFailure();
        };
        ASSERT_TRUE(for_each_state(*recording, {.prefix_percent = 20, .subsets = 5, .torn = 5, .lying = 0}, random,
                                   seen, visit));
        EXPECT_GT(halves, 0u) << shift;
    }
}

// A truncation, or a deletion, goes on where it was cut, also as e2fsck judges it.
TEST_P(Fragments, ACutTruncationIsFinished) {
    const auto& [format, mode] = GetParam();
    const std::string path = fmt::format("/dev/shm/uext4-fragments-{}", ::getpid());
    auto image = make_image(format, path);
    ASSERT_TRUE(image) << image.error().what;
    Workload w = fragments(1);
    std::erase_if(w.steps, [](const Operation& o) {
        return o.kind != Operation::Kind::Truncate && o.kind != Operation::Kind::Unlink &&
               o.kind != Operation::Kind::Commit;
    });
    auto recording = Recorder(*image, format.name, mode).record(w, Between::nothing);
    ASSERT_TRUE(recording) << recording.error().what;
    ScratchFile scratch(path);
    std::mt19937_64 random(1);
    SeenImages seen;
    auto visit = [&](const CrashState& state) -> Result<bool> {
        Tree tree;
        EXPECT_EQ(judge_ourselves(*recording, state, tree), "") << state.what;
        EXPECT_EQ(TRY(judge_by_e2fsck(state, mode, scratch, true)), "") << state.what;
        return !HasFailure();
    };
    ASSERT_TRUE(
        for_each_state(*recording, {.prefix_percent = 4, .subsets = 5, .torn = 5, .lying = 0}, random, seen, visit));
}

INSTANTIATE_TEST_SUITE_P(SmallLogs, Fragments,
                         testing::Combine(testing::ValuesIn(small_logs()), testing::Values("ordered", "journal")),
                         [](const auto& p) {
                             std::string name = std::get<0>(p.param).name;
                             std::ranges::replace(name, '-', '_');
                             return name + "_" + std::get<1>(p.param);
                         });

}  // namespace
}  // namespace uext4::crash
