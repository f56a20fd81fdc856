// The allocator on damaged images and against callers that are wrong.
#include "alloc/test_space.h"

#include "sync/thread.h"

#include <atomic>

namespace uext4 {
namespace {

using test::must;
using test::TestSpace;

// Takes every free cluster: nothing that is free escapes the next question.
std::vector<Grant> take_all(TestSpace& space) {
    std::vector<Grant> all;
    for (;;) {
        Result<Grant> g = space.allocator->grant(BlockNr(0), 1u << 20, nullptr, true);
        if (!g) return all;
        all.push_back(std::move(*g));
    }
}

TEST(AllocDamage, ABadDescriptorCanBeMetByAnyGroupFirst) {
    TestSpace space("-t ext4 -b 1024 -O ^flex_bg");
    const auto place = space.geometry.descriptor_place(GroupNr(0));
    // Group 1's, in the block that group 0's is read from first.
    space.poke(place.block, place.offset + space.geometry.desc_size + 3, [](std::byte) { return std::byte{0xFF}; });
    space.reopen(true);
    EXPECT_TRUE(space.allocator->place_of(InodeNr(2)));
    EXPECT_GT(space.allocator->counts().free_blocks, 0u);
}

TEST(AllocDamage, ABadBitmapCostsItsOwnGroupOnly) {
    TestSpace space("-t ext4 -b 1024 -O ^flex_bg");
    const GroupNr bad(0);  // in use since mke2fs, so that its bitmap is read
    space.poke(space.block_bitmap(bad), 700, [](std::byte b) { return b ^ std::byte{1}; });
    space.reopen();
    const std::vector<Grant> all = take_all(space);
    ASSERT_FALSE(all.empty());
    for (const Grant& g : all) EXPECT_NE(space.geometry.group_of(g.first()), bad);
}

TEST(AllocDamage, ABadInodeBitmapLeavesTheBlocksUsable) {
    TestSpace space("-t ext4 -b 1024 -O ^flex_bg");
    space.poke(space.inode_bitmap(GroupNr(0)), 5, [](std::byte b) { return b ^ std::byte{1}; });
    space.reopen();
    EXPECT_FALSE(space.allocator->inode_in_use(InodeNr(11)));
    const Result<Grant> g = space.allocator->grant(space.geometry.first_block(GroupNr(0)), 1, nullptr, false);
    ASSERT_TRUE(g);
    EXPECT_EQ(space.geometry.group_of(g->first()), GroupNr(0));
}

// Bitmaps that lie in the middle of a group (stride): both ends of the range look like anybody's.
TEST(AllocDamage, FreeRefusesARangeAroundSystemBlocks) {
    TestSpace space("-t ext4 -b 1024 -O ^flex_bg -E stride=512");
    GroupNr g(0);
    BlockNr bitmap;
    for (std::uint64_t n = 0; n < space.geometry.group_count && !bitmap; ++n)
        if (const BlockNr b = space.block_bitmap(GroupNr(n)); !space.allocator->is_system_block(b - 1))
            g = GroupNr(n), bitmap = b;
    ASSERT_TRUE(bitmap) << "mke2fs put no bitmap in the middle of a group";
    // Everything in use, so that only whose blocks they are can be wrong.
    std::vector<Grant> all = take_all(space);
    for (Grant& one : all) {
        Handle handle = space.start();
        must(space.allocator->publish(handle, one));
    }
    const BlockNr from = bitmap - 1;
    BlockNr to = bitmap;
    while (space.allocator->is_system_block(to)) ++to;
    ASSERT_EQ(space.geometry.group_of(from), g);
    ASSERT_EQ(space.geometry.group_of(to), g);
    Handle handle = space.start();
    const Result<void> freed = space.allocator->free(handle, from, to - from + 1);
    ASSERT_FALSE(freed);
    EXPECT_EQ(freed.error().code, EUCLEAN);
}

TEST(AllocDamage, FreeRefusesToBeginInsideACluster) {
    TestSpace space("-t ext4 -b 4096 -O bigalloc -C 65536");
    Grant g = must(space.allocator->grant(BlockNr(0), 64, nullptr, false));
    const BlockNr first = g.first();
    ASSERT_GE(g.count(), 32u);
    const std::uint64_t count = g.count();
    {
        Handle handle = space.start();
        must(space.allocator->publish(handle, g));
    }
    {
        Handle handle = space.start();
        EXPECT_FALSE(space.allocator->free(handle, first + 3, 16));
        must(space.allocator->free(handle, first, count));
    }
    space.judge();
}

TEST(AllocDamage, FreeRefusesWhatIsFreeOrOutside) {
    TestSpace space("-t ext4 -b 1024");
    const std::uint64_t end = space.geometry.blocks_count;
    Handle handle = space.start();
    EXPECT_FALSE(space.allocator->free(handle, BlockNr(end - 1), 2));
    EXPECT_FALSE(space.allocator->free(handle, BlockNr(end), 1));
    EXPECT_FALSE(space.allocator->free(handle, BlockNr(1), 1));
    EXPECT_FALSE(space.allocator->free(handle, BlockNr(end - 1), 1));
    EXPECT_FALSE(space.allocator->free(handle, BlockNr(2), ~std::uint64_t{0}));
    handle.stop();
    space.judge();
}

// A4: a claim never fails later, whatever else goes on.
TEST(AllocThreads, AClaimHoldsWhileFreeSpaceIsTrimmed) {
    TestSpace space("-t ext4 -b 1024", "32M");
    std::atomic<bool> stop{false};
    std::atomic<unsigned> broken{0};
    Thread trimmer("trimmer", [&] {
        while (!stop.load()) must(space.allocator->discard_free(1));
    });
    for (int i = 0; i < 400; ++i) {
        Result<Claim> claim = space.allocator->claim(64, false);
        if (!claim) continue;
        if (!space.allocator->grant(BlockNr(0), 1, &*claim, false)) ++broken;
    }
    stop.store(true);
    trimmer.join();
    EXPECT_EQ(broken.load(), 0u);
    space.judge();
}

}  // namespace
}  // namespace uext4
