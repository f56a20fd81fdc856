// What the places that a transaction has moved tell of those that are asked for.
#include "extent_status/uncommitted_moves.h"

#include "tests/fixtures/inode_volume.h"

namespace uext4 {
namespace {

constexpr LogicalBlock last{~std::uint64_t{0}};

LogicalBlock block(std::uint64_t number) { return LogicalBlock(number); }

TEST(MovedPlaces, TellTheNewestOfWhatIsAskedFor) {
    TestVolume volume{"-b 4096 -J size=4"};
    UncommittedMoves moved;
    EXPECT_EQ(moved.unmap_tid(block(0), last), 0u);
    EXPECT_EQ(moved.shift_tid(), 0u);
    moved.note_unmap(3, block(4), block(8), volume.journal());
    moved.note_unmap(5, block(6), block(7), volume.journal());
    EXPECT_EQ(moved.unmap_tid(block(0), block(4)), 0u);
    EXPECT_EQ(moved.unmap_tid(block(0), block(5)), 3u);
    EXPECT_EQ(moved.unmap_tid(block(6), block(7)), 5u);
    EXPECT_EQ(moved.unmap_tid(block(7), last), 3u);
    EXPECT_EQ(moved.unmap_tid(block(8), last), 0u);
    moved.note_shift(6);
    EXPECT_EQ(moved.shift_tid(), 6u);
    EXPECT_EQ(moved.unmap_tid(block(6), block(7)), 5u);
}

// None of very many is forgotten before it is durable.
TEST(MovedPlaces, OfVeryManyAllOfTheFileCounts) {
    TestVolume volume{"-b 4096 -J size=4"};
    const Tid under_way = volume.journal().durable_tid() + 1;
    UncommittedMoves moved;
    for (std::uint64_t n = 0; n < 1000; ++n) {
        moved.note_unmap(under_way, block(2 * n), block(2 * n + 1), volume.journal());
        ASSERT_EQ(moved.unmap_tid(block(2 * n), block(2 * n + 1)), under_way);
    }
    for (std::uint64_t n = 0; n < 1000; ++n) EXPECT_EQ(moved.unmap_tid(block(2 * n), block(2 * n + 1)), under_way);
}

TEST(MovedPlaces, WhatIsDurableMakesRoomForOthers) {
    TestVolume volume{"-b 4096 -J size=4"};
    const Tid durable = volume.journal().durable_tid();
    UncommittedMoves moved;
    for (std::uint64_t n = 0; n < 64; ++n) moved.note_unmap(durable, block(2 * n), block(2 * n + 1), volume.journal());
    moved.note_unmap(durable + 1, block(5000), block(5001), volume.journal());
    EXPECT_EQ(moved.unmap_tid(block(5000), block(5001)), durable + 1);
    EXPECT_EQ(moved.unmap_tid(block(0), block(5000)), 0u);
}

}  // namespace
}  // namespace uext4
