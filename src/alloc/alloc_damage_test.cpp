// The allocator on damaged images and against callers that are wrong.
#include "tests/fixtures/allocator_space.h"

#include "sync/thread.h"

#include <atomic>

namespace uext4 {
namespace {

using test::must;
using test::TestSpace;

// Takes every free cluster: nothing that is free escapes the next question.
std::vector<Allocation> take_all(TestSpace& space) {
    std::vector<Allocation> all;
    for (;;) {
        Result<Allocation> g = space.allocator->allocate(BlockNr(0), 1u << 20, nullptr, true);
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
    EXPECT_TRUE(space.allocator->locate_inode(InodeNr(2)));
    EXPECT_GT(space.allocator->counts().free_blocks, 0u);
}

TEST(AllocDamage, ABadBitmapCostsItsOwnGroupOnly) {
    TestSpace space("-t ext4 -b 1024 -O ^flex_bg");
    const GroupNr bad(0);  // in use since mke2fs, so that its bitmap is read
    space.poke(space.block_bitmap(bad), 700, [](std::byte b) { return b ^ std::byte{1}; });
    space.reopen();
    const std::vector<Allocation> all = take_all(space);
    ASSERT_FALSE(all.empty());
    for (const Allocation& g : all) EXPECT_NE(space.geometry.group_of(g.first()), bad);
}

// Without checksums only what must be in use tells a bitmap from nonsense with the right count.
TEST(AllocDamage, ABitmapThatCallsTheFileSystemsOwnFreeIsNotUsed) {
    TestSpace space("-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg -G 4");
    const GroupNr copies(1);  // copies of the superblock and of the descriptors; its bitmaps lie elsewhere
    const BlockNr bitmap = space.block_bitmap(copies);
    std::uint32_t free = 0;
    space.poke(bitmap, 0, [](std::byte b) { return b & ~std::byte{1}; });
    for (std::uint32_t i = 100; !free; ++i)
        space.poke(bitmap, i, [&](std::byte b) {
            if ((b & std::byte{1}) == std::byte{0}) free = i;
            return b | std::byte{1};
        });
    space.reopen();
    std::vector<std::string> told;
    space.allocator->set_corruption_callback([&](const Error& e) {
        told.push_back(e.what);
        return true;
    });
    for (const Allocation& g : take_all(space)) EXPECT_NE(space.geometry.group_of(g.first()), copies);
    ASSERT_EQ(told.size(), 1u);
    EXPECT_NE(told[0].find("group 1: block bitmap: block 8193, of the file system's own"), std::string::npos)
        << told[0];
}

TEST(AllocDamage, ABitmapThatCallsTheLogFreeIsNotUsed) {
    TestSpace space("-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg");
    const BlockNr log = space.geometry.first_block(GroupNr(2)) + 4000;
    space.allocator->set_journal_blocks({BlockRun{log, 16}});
    std::vector<std::string> told;
    space.allocator->set_corruption_callback([&](const Error& e) {
        told.push_back(e.what);
        return true;
    });
    for (const Allocation& g : take_all(space)) EXPECT_NE(space.geometry.group_of(g.first()), GroupNr(2));
    ASSERT_EQ(told.size(), 1u);
    EXPECT_NE(told[0].find(fmt::format("block {}", log)), std::string::npos) << told[0];
}

TEST(AllocDamage, WhoeverHearsOfDamageMayStopAllocation) {
    TestSpace space("-t ext4 -b 1024 -O ^flex_bg");
    space.poke(space.block_bitmap(GroupNr(0)), 700, [](std::byte b) { return b ^ std::byte{1}; });
    space.reopen();
    space.allocator->set_corruption_callback([](const Error&) { return false; });
    const Result<Allocation> first =
        space.allocator->allocate(space.geometry.first_block(GroupNr(0)), 1, nullptr, false);
    ASSERT_FALSE(first);
    EXPECT_EQ(first.error().code, EUCLEAN);
    const Result<Allocation> second =
        space.allocator->allocate(space.geometry.first_block(GroupNr(1)), 1, nullptr, false);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, EROFS);
    Handle handle = space.start();
    const Result<InodeNr> inode = space.allocator->allocate_inode(handle, InodeNr(2), false);
    ASSERT_FALSE(inode);
    EXPECT_EQ(inode.error().code, EROFS);
}

// What cannot be read is not taken: the inode could not be stored, and not given back.
TEST(AllocDamage, InodesOfATableBlockThatCannotBeReadAreLeftAlone) {
    TestSpace space("-t ext4 -b 1024 -I 256 -O ^flex_bg");
    const std::uint64_t free = space.allocator->counts().free_inodes;
    // Inodes 9 to 12: 12 is the first that anybody gets, and 11 (lost+found) is there.
    space.device->unreadable = (space.inode_table(GroupNr(0)) + 2).value * 1024;
    unsigned told = 0;
    space.allocator->set_corruption_callback([&](const Error& e) {
        EXPECT_EQ(e.code, EIO) << e.what;
        ++told;
        return true;
    });
    {
        Handle handle = space.start();
        const InodeNr got = must(space.allocator->allocate_inode(handle, InodeNr(2), false));
        EXPECT_EQ(got.value, 13u);
    }
    EXPECT_EQ(told, 1u);
    EXPECT_EQ(space.allocator->counts().free_inodes, free - 1);
    EXPECT_FALSE(must(space.allocator->is_inode_used(InodeNr(14))));
    space.device->unreadable.reset();
    {
        Handle handle = space.start();
        must(space.allocator->free_inode(handle, InodeNr(13), false));
    }
    space.judge();
}

TEST(AllocDamage, ABadInodeBitmapLeavesTheBlocksUsable) {
    TestSpace space("-t ext4 -b 1024 -O ^flex_bg");
    space.poke(space.inode_bitmap(GroupNr(0)), 5, [](std::byte b) { return b ^ std::byte{1}; });
    space.reopen();
    EXPECT_FALSE(space.allocator->is_inode_used(InodeNr(11)));
    const Result<Allocation> g = space.allocator->allocate(space.geometry.first_block(GroupNr(0)), 1, nullptr, false);
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
    std::vector<Allocation> all = take_all(space);
    for (Allocation& one : all) {
        Handle handle = space.start();
        must(space.allocator->mark_used(handle, one));
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
    Allocation g = must(space.allocator->allocate(BlockNr(0), 64, nullptr, false));
    const BlockNr first = g.first();
    ASSERT_GE(g.count(), 32u);
    const std::uint64_t count = g.count();
    {
        Handle handle = space.start();
        must(space.allocator->mark_used(handle, g));
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

// A4: a reservation never fails later, whatever else goes on.
TEST(AllocThreads, AClaimHoldsWhileFreeSpaceIsTrimmed) {
    TestSpace space("-t ext4 -b 1024", "32M");
    std::atomic<bool> stop{false};
    std::atomic<unsigned> broken{0};
    Thread trimmer("trimmer", [&] {
        while (!stop.load()) must(space.allocator->trim(1));
    });
    for (int i = 0; i < 400; ++i) {
        Result<DelallocReservation> claim = space.allocator->reserve(64, false);
        if (!claim) continue;
        if (!space.allocator->allocate(BlockNr(0), 1, &*claim, false)) ++broken;
    }
    stop.store(true);
    trimmer.join();
    EXPECT_EQ(broken.load(), 0u);
    space.judge();
}

}  // namespace
}  // namespace uext4
