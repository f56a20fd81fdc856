#include "journal/log_map.h"

#include <gtest/gtest.h>

#include <set>

namespace uext4 {
namespace {

TEST(LogMap, NamesEachBlockInItsOrder) {
    // Runs of one to three blocks, and not in the order of the device.
    std::vector<BlockRun> runs;
    std::vector<std::uint64_t> places;
    for (std::uint64_t i = 0; i < 100; ++i) {
        const std::uint64_t first = 1000 + (i * 37 % 100) * 5;
        runs.push_back({BlockNr(first), 1 + i % 3});
        for (std::uint64_t b = 0; b < 1 + i % 3; ++b) places.push_back(first + b);
    }
    const LogMap map(runs);
    ASSERT_EQ(map.blocks(), places.size());
    for (std::size_t i = 0; i < places.size(); ++i) {
        const Result<BlockNr> place = map.block_at(i);
        ASSERT_TRUE(place);
        EXPECT_EQ(place->value, places[i]) << i;
    }
    EXPECT_EQ(map.block_at(places.size()).error().code, EUCLEAN);
    const std::set<std::uint64_t> own(places.begin(), places.end());
    for (std::uint64_t block = 990; block < 1520; ++block)
        EXPECT_EQ(map.contains(BlockNr(block)), own.contains(block)) << block;
}

TEST(LogMap, OfNothing) {
    EXPECT_EQ(LogMap().blocks(), 0u);
    EXPECT_FALSE(LogMap().block_at(0));
    EXPECT_FALSE(LogMap().contains(BlockNr(0)));
}

}  // namespace
}  // namespace uext4
