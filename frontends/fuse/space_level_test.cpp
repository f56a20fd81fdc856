#include "fuse/space_level.h"

#include <gtest/gtest.h>

namespace uext4::fuse {
namespace {

constexpr std::uint64_t MiB = std::uint64_t{1} << 20;

TEST(SpaceLevel, FallsOnceForEachHalf) {
    SpaceLevel level(8000 * MiB);
    EXPECT_FALSE(level.fell(5000 * MiB));
    EXPECT_FALSE(level.fell(1024 * MiB));
    EXPECT_TRUE(level.fell(1023 * MiB));
    EXPECT_FALSE(level.fell(1022 * MiB));
    EXPECT_FALSE(level.fell(512 * MiB));
    EXPECT_TRUE(level.fell(511 * MiB));
    EXPECT_TRUE(level.fell(20 * MiB)) << "several halves at once";
    EXPECT_FALSE(level.fell(17 * MiB));
}

TEST(SpaceLevel, ThatMovesAboutALimitDoesNotFallEachTime) {
    SpaceLevel level(5000 * MiB);
    EXPECT_TRUE(level.fell(255 * MiB));
    for (int i = 0; i < 10; ++i) {
        EXPECT_FALSE(level.fell(257 * MiB));
        EXPECT_FALSE(level.fell(255 * MiB));
    }
    EXPECT_FALSE(level.fell(512 * MiB)) << "space came back";
    EXPECT_TRUE(level.fell(255 * MiB));
}

// Nothing has been taken yet of a small file system.
TEST(SpaceLevel, HasNotFallenAtTheStart) {
    SpaceLevel level(100 * MiB);
    EXPECT_FALSE(level.fell(100 * MiB));
    EXPECT_FALSE(level.fell(65 * MiB));
    EXPECT_TRUE(level.fell(63 * MiB));
}

TEST(SpaceLevel, EndsWithTheLastMegabyte) {
    SpaceLevel level(5000 * MiB);
    EXPECT_TRUE(level.fell(MiB - 1));
    EXPECT_FALSE(level.fell(1000));
    EXPECT_FALSE(level.fell(0));
}

}  // namespace
}  // namespace uext4::fuse
