#include "fuse/lost_ranges.h"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <random>

namespace uext4::fuse {
namespace {

TEST(LostRanges, AreLostUntilAllOfThemIsWritten) {
    LostRanges lost;
    EXPECT_EQ(lost.error(), 0);
    lost.add(100, 50, EIO);
    lost.written(0, 100);
    lost.written(150, 1000);
    lost.written(120, 10);
    EXPECT_EQ(lost.error(), EIO);
    lost.written(130, 20);
    EXPECT_EQ(lost.error(), EIO);
    lost.written(90, 40);
    EXPECT_EQ(lost.error(), 0);
}

TEST(LostRanges, AreGoneWithTheEndOfTheFile) {
    LostRanges lost;
    lost.add(100, 50, EIO);
    lost.add(1000, ~std::uint64_t{0} - 1000, ENOSPC);
    EXPECT_EQ(lost.error(), ENOSPC);
    lost.cut(120);
    EXPECT_NE(lost.error(), 0);
    lost.written(100, 20);
    EXPECT_EQ(lost.error(), 0);
    lost.add(7, 1, EIO);
    lost.cut(0);
    EXPECT_EQ(lost.error(), 0);
}

TEST(LostRanges, AreWhatAModelSays) {
    std::mt19937 random(1);
    for (int round = 0; round < 200; ++round) {
        LostRanges lost;
        std::array<bool, 64> model{};
        for (int step = 0; step < 40; ++step) {
            const unsigned at = random() % 64, length = random() % (65 - at), what = random() % 3;
            if (what == 0) lost.add(at, length, EIO);
            else if (what == 1) lost.written(at, length);
            else lost.cut(at);
            for (unsigned i = at; i < (what == 2 ? 64 : at + length); ++i) model[i] = what == 0;
            bool any = false;
            for (const bool one : model) any = any || one;
            ASSERT_EQ(lost.error() != 0, any) << "round " << round << ", step " << step;
            // What is left is exactly the model's: written one by one, nothing is lost after the last.
            if (step != 39) continue;
            for (unsigned i = 0; i < 64; ++i) {
                if (model[i]) {
                    EXPECT_NE(lost.error(), 0);
                    lost.written(i, 1);
                }
            }
            EXPECT_EQ(lost.error(), 0);
        }
    }
}

}  // namespace
}  // namespace uext4::fuse
