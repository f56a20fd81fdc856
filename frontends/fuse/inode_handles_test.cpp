#include "fuse/inode_handles.h"

#include <gtest/gtest.h>

namespace uext4::fuse {
namespace {

// A regular file in the root's place, whose number needs no inode.
class BlocksAreCalledBack : public ::testing::Test {
protected:
    static constexpr std::uint64_t node = 1;
    InodeHandles inodes;
    struct stat shown{};

    BlocksAreCalledBack() {
        shown.st_mode = S_IFREG | 0644;
        shown.st_nlink = 1;
        inodes.add_root();
        inodes.opened(node, true);
    }
    // The kernel asks for a write or a look, then the file gets a block and is synced.
    bool called_back() {
        EXPECT_EQ(inodes.attributes_last(node, shown, 1), growing_timeout);
        shown.st_blocks += 8;
        return inodes.told_other_blocks(node, shown.st_blocks);
    }
};

TEST_F(BlocksAreCalledBack, AsLongAsSomebodyLooks) {
    for (unsigned i = 0; i < 10 * most_unseen; ++i) {
        inodes.note_look(node);
        EXPECT_TRUE(called_back()) << i;
    }
}

TEST_F(BlocksAreCalledBack, ButNotForEver) {
    for (unsigned i = 0; i < most_unseen; ++i) EXPECT_TRUE(called_back()) << i;
    for (unsigned i = 0; i < 3; ++i) EXPECT_FALSE(called_back()) << i;
    inodes.note_look(node);
    EXPECT_TRUE(called_back());
}

TEST_F(BlocksAreCalledBack, ForWhoeverOpensItAnew) {
    for (unsigned i = 0; i <= most_unseen; ++i) called_back();
    inodes.closed_to_write(node);
    inodes.opened(node, true);
    EXPECT_TRUE(called_back());
}

TEST_F(BlocksAreCalledBack, OnlyWhereThereAreOthers) {
    inodes.attributes_last(node, shown, 1);
    EXPECT_FALSE(inodes.told_other_blocks(node, shown.st_blocks));
    EXPECT_TRUE(inodes.told_other_blocks(node, std::nullopt));
    EXPECT_FALSE(inodes.told_other_blocks(node, std::nullopt)) << "the kernel believes nothing any more";
}

// What is written to a file waits for its turn from when it was opened on: who closed it before had to send.
TEST(TurnsToSend, CountFromTheFirstOpening) {
    using namespace std::chrono_literals;
    constexpr std::uint64_t node = 1;
    constexpr auto end = InodeHandles::Part::end, holes = InodeHandles::Part::holes;
    InodeHandles inodes;
    inodes.add_root();
    EXPECT_FALSE(inodes.take_turn_to_send(node, end, 0s)) << "nobody writes";
    inodes.opened(node, false);
    EXPECT_EQ(inodes.written_to(), 0u);
    inodes.opened(node, true);
    inodes.opened(node, true);
    EXPECT_EQ(inodes.written_to(), 1u);
    EXPECT_FALSE(inodes.take_turn_to_send(node, end, 1h));
    EXPECT_TRUE(inodes.take_turn_to_send(node, end, 0s));
    EXPECT_FALSE(inodes.take_turn_to_send(node, end, 1h));
    EXPECT_FALSE(inodes.take_turn_to_send(node, holes, 1h));
    EXPECT_TRUE(inodes.take_turn_to_send(node, holes, 0s));
    EXPECT_FALSE(inodes.take_turn_to_send(node, holes, 1h));
    inodes.closed_to_write(node);
    EXPECT_TRUE(inodes.take_turn_to_send(node, end, 0s));
    inodes.closed_to_write(node);
    EXPECT_EQ(inodes.written_to(), 0u);
    EXPECT_FALSE(inodes.take_turn_to_send(node, end, 0s));
}

}  // namespace
}  // namespace uext4::fuse
