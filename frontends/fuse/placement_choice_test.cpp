// Which place wins, for machines and callers of several kinds. Time is the test's own.
#include "fuse/placement_choice.h"

#include <gtest/gtest.h>

namespace uext4::fuse {
namespace {

using Time = PlacementChoice::Time;

// What a caller that waits for each answer gets done: requests a millisecond, beside it and apart.
struct Pace {
    unsigned beside, apart;
};

// How much of `milliseconds` the thread was beside its caller.
unsigned beside_during(PlacementChoice& choice, Pace pace, unsigned milliseconds) {
    unsigned beside = 0;
    for (unsigned i = 0; i < milliseconds; ++i) {
        const bool now = choice.is_beside();
        beside += now;
        choice.saw(now ? pace.beside : pace.apart, Time{1000});
    }
    return beside;
}

TEST(PlacementChoice, BeginsBesideAndStaysWhereThatIsBetter) {
    PlacementChoice choice;
    EXPECT_TRUE(choice.is_beside());
    EXPECT_GT(beside_during(choice, {40, 10}, 10'000), 9'500u);
    EXPECT_TRUE(choice.is_beside() || choice.is_trying());
}

TEST(PlacementChoice, GoesWhereRequestsAreAnsweredSooner) {
    PlacementChoice choice;
    EXPECT_LT(beside_during(choice, {10, 15}, 10'000), 500u);
}

TEST(PlacementChoice, ComesBackWhenSomethingElseIsDone) {
    PlacementChoice choice;
    beside_during(choice, {10, 15}, 20'000);
    ASSERT_FALSE(choice.is_beside());
    // The next trial by time alone may be eight seconds away.
    EXPECT_GT(beside_during(choice, {14, 10}, 1'000), 700u);
}

TEST(PlacementChoice, TriesAgainLaterAtTheSamePace) {
    PlacementChoice choice;
    beside_during(choice, {15, 15}, 20'000);
    EXPECT_TRUE(choice.is_beside() || choice.is_trying());
    EXPECT_LT(beside_during(choice, {15, 30}, 20'000), 10'000u);
}

TEST(PlacementChoice, StaysWhereItIsForALittle) {
    PlacementChoice choice;
    EXPECT_GT(beside_during(choice, {100, 104}, 10'000), 9'500u);
}

TEST(PlacementChoice, RareRequestsSayNothing) {
    PlacementChoice choice;
    EXPECT_EQ(beside_during(choice, {1, 1}, 5'000), 5'000u);
    for (int i = 0; i < 1000; ++i) {
        choice.saw(0, Time{8000});
        EXPECT_TRUE(choice.is_beside());
    }
}

TEST(PlacementChoice, APauseEndsATrial) {
    PlacementChoice choice;
    while (!choice.is_trying()) choice.saw(20, Time{1000});
    EXPECT_FALSE(choice.is_beside());
    choice.saw(0, Time{1000});
    EXPECT_FALSE(choice.is_trying());
    EXPECT_TRUE(choice.is_beside());
}

}  // namespace
}  // namespace uext4::fuse
