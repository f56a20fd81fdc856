#include "fuse/marks.h"

#include <gtest/gtest.h>

namespace uext4::fuse {

namespace {

TEST(Marks, TellsWhenTheOneThatIsAskedForIsGone) {
    Marks marks;
    const std::uint32_t first = marks.make(), second = marks.make();
    EXPECT_NE(first, 0U);
    EXPECT_NE(first, second);
    std::vector<std::uint32_t> told;
    for (const std::uint32_t mark : {first, second, first})
        marks.when_gone(mark, [&told, mark](bool is_gone) {
            EXPECT_TRUE(is_gone);
            told.push_back(mark);
        });
    marks.gone(0);
    EXPECT_TRUE(told.empty());
    marks.gone(second);
    EXPECT_EQ(told, std::vector{second});
    marks.gone(second);
    marks.gone(first);
    EXPECT_EQ(told, (std::vector{second, first, first}));
}

TEST(Marks, WhatIsGoneOrNeverWasIsToldAtOnce) {
    Marks marks;
    const std::uint32_t mark = marks.make();
    marks.gone(mark);
    unsigned told = 0;
    for (const std::uint32_t number : {mark, mark + 1, 0U})
        marks.when_gone(number, [&told](bool is_gone) { told += is_gone ? 1 : 0; });
    EXPECT_EQ(told, 3U);
}

TEST(Marks, NobodyWaitsForWhatIsGivenUp) {
    Marks marks;
    const std::uint32_t mark = marks.make();
    unsigned given_up = 0;
    for (unsigned n = 0; n < 2; ++n) marks.when_gone(mark, [&given_up](bool is_gone) { given_up += is_gone ? 0 : 1; });
    marks.give_up();
    EXPECT_EQ(given_up, 2U);
    marks.gone(mark);
    EXPECT_EQ(given_up, 2U);
}

// What is told may ask again.
TEST(Marks, OneThatIsToldMayWaitForAnother) {
    Marks marks;
    const std::uint32_t first = marks.make();
    bool told = false;
    std::uint32_t next = 0;
    marks.when_gone(first, [&](bool) {
        next = marks.make();
        marks.when_gone(next, [&told](bool is_gone) { told = is_gone; });
    });
    marks.gone(first);
    EXPECT_FALSE(told);
    marks.gone(next);
    EXPECT_TRUE(told);
}

}  // namespace

}  // namespace uext4::fuse
