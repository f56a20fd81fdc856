// Promises of the contract that are not kept yet: each test fails until its defect is mended.
#include "tests/fixtures/allocator_space.h"

#include <vector>

namespace uext4 {
namespace {

using test::must;
using test::TestSpace;

// A long run whose ends are data may have the file system's own blocks in its middle.
TEST(AllocOpen, FreeRefusesSystemBlocksInTheMiddle) {
    TestSpace space("-t ext4 -b 4096");
    const BlockNr bitmap = space.inode_bitmap(GroupNr(0)), first = bitmap - 1, last = bitmap + 1;
    ASSERT_TRUE(space.allocator->is_system_block(bitmap));
    ASSERT_FALSE(space.allocator->is_system_block(first) || space.allocator->is_system_block(last));
    // Every free block is taken, so that all of the range is in use.
    for (;;) {
        Result<Allocation> grant = space.allocator->allocate(first, 1000, nullptr, true);
        if (!grant) break;
        Handle handle = space.start();
        must(space.allocator->mark_used(handle, *grant));
    }
    Handle handle = space.start();
    const auto freed = space.allocator->free(handle, first, last - first + 1);
    ASSERT_FALSE(freed) << "blocks " << first.value << " to " << last.value << " were freed, bitmaps among them";
    EXPECT_EQ(freed.error().code, EUCLEAN);
}

// A superblock whose log was replayed by whoever does no more has old counters and looks clean: also where there are so
// many groups that opening does not look at them.
class OldCounters : public testing::TestWithParam<const char*> {
protected:
    TestSpace space{"-t ext4 -b 1024 -N 4096 -E lazy_itable_init=1", GetParam()};
    SpaceCounts before = space.allocator->counts();
    void set(std::uint64_t free_blocks, std::uint32_t free_inodes) {
        format::SuperBlock super = space.super();
        super.set_free_blocks(free_blocks);
        super.free_inodes_count = free_inodes;
        format::set_super_checksum(super);
        must(space.device->write(format::super_offset, std::as_bytes(std::span(&super, 1))));
        space.reopen();
    }
};

TEST_P(OldCounters, AreNotTold) {
    set(3, 1);
    EXPECT_EQ(space.allocator->counts().free_blocks, before.free_blocks);
    EXPECT_EQ(space.allocator->counts().free_inodes, before.free_inodes);
    space.judge();
}

TEST_P(OldCounters, PromiseNothingThatIsNotThere) {
    set(before.free_blocks + 1000, before.inodes);
    const auto more = space.allocator->reserve(before.free_blocks + 1, true);
    ASSERT_FALSE(more);
    EXPECT_EQ(more.error().code, ENOSPC);
    EXPECT_TRUE(space.allocator->reserve(before.free_blocks, true));
}

TEST_P(OldCounters, AreMendedByTheFirstChange) {
    set(3, 1);
    {
        Handle handle = space.start();
        must(space.allocator->allocate_inode(handle, InodeNr(2), false));
        Allocation grant = must(space.allocator->allocate(space.geometry.first_block(GroupNr(1)), 1, nullptr, true));
        must(space.allocator->mark_used(handle, grant));
    }
    EXPECT_EQ(space.allocator->super_free_blocks(), before.free_blocks - 1);
    EXPECT_EQ(space.allocator->super_free_inodes(), before.free_inodes - 1);
}

// Freeing comes first: nothing is counted twice.
TEST_P(OldCounters, AreMendedByAFirstFreeing) {
    const BlockNr at = space.geometry.first_block(GroupNr(1)) + 5000;
    {
        Handle handle = space.start();
        Allocation grant = must(space.allocator->allocate(at, 8, nullptr, true));
        ASSERT_EQ(grant.first(), at);
        must(space.allocator->mark_used(handle, grant));
    }
    space.commit();
    must(space.journal->checkpoint_all());
    set(3, 1);
    {
        Handle handle = space.start();
        must(space.allocator->free(handle, at, 8));
    }
    EXPECT_EQ(space.allocator->super_free_blocks(), before.free_blocks);
    space.commit();
    EXPECT_EQ(space.allocator->counts().free_blocks, before.free_blocks);
}

INSTANTIATE_TEST_SUITE_P(Few, OldCounters, testing::Values("96M"));
INSTANTIATE_TEST_SUITE_P(Many, OldCounters, testing::Values("768M"));

// With 1 KiB blocks and bigalloc the superblock is block 1 while blocks count from 0.
TEST(AllocOpen, LastDescriptorBlockIsTheFileSystems) {
    TestSpace space("-t ext4 -b 1024 -O bigalloc -C 8192");
    ASSERT_EQ(space.geometry.first_data_block, 0u);
    const BlockNr last(1 + divide_up(space.geometry.group_count, space.geometry.descs_per_block) +
                       space.geometry.reserved_gdt_blocks);
    EXPECT_TRUE(space.allocator->is_system_block(last)) << last.value;
    EXPECT_TRUE(space.allocator->is_system_block(last - 1));
}

// A reservation never fails later (A4), not even while free space is being discarded.
TEST(AllocOpen, ClaimsHoldDuringDiscard) {
    TestSpace space("-t ext4 -b 4096", "64M");
    bool tried = false, granted = true;
    std::string why;
    space.device->on_discard = [&](std::uint64_t, std::uint64_t) {
        if (std::exchange(tried, true)) return;
        Result<DelallocReservation> all = space.allocator->reserve(space.allocator->counts().free_blocks, true);
        if (!all) return;
        std::vector<Allocation> grants;
        while (granted && all->clusters()) {
            Result<Allocation> g = space.allocator->allocate(BlockNr(0), all->clusters(), &*all, true);
            if (g) grants.push_back(std::move(*g));
            else granted = false, why = g.error().what;
        }
    };
    must(space.allocator->trim(1));
    EXPECT_TRUE(tried);
    EXPECT_TRUE(granted) << why;
    space.device->on_discard = nullptr;
}

// Without checksums a bitmap can be judged only by the blocks that must be in it.
TEST(AllocOpen, BitmapThatLacksSystemBlocksIsNotUsed) {
    TestSpace space("-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg");
    const GroupNr g(0);
    const std::uint64_t inside = space.inode_table(g).value + 5 - space.geometry.first_block(g).value;
    space.poke(space.block_bitmap(g), inside / 8,
               [&](std::byte b) { return b & ~(std::byte{1} << static_cast<int>(inside % 8)); });
    space.reopen();
    std::vector<Allocation> all;
    for (;;) {
        Result<Allocation> grant = space.allocator->allocate(space.inode_table(g), 1000, nullptr, true);
        if (!grant) break;
        for (std::uint64_t i = 0; i < grant->count(); ++i)
            ASSERT_FALSE(space.allocator->is_system_block(grant->first() + i))
                << (grant->first() + i).value << " was granted";
        all.push_back(std::move(*grant));
    }
}

// A bitmap that is read again is checked again: else damage gets a good checksum with the next change.
TEST(AllocOpen, BitmapReadAgainIsCheckedAgain) {
    TestSpace space("-t ext4 -b 1024");
    const GroupNr g(1);
    auto use = [&] {
        Handle handle = space.start();
        Allocation grant = must(space.allocator->allocate(space.geometry.first_block(g) + 4000, 4, nullptr, true));
        return space.allocator->mark_used(handle, grant);
    };
    must(use());
    space.commit();
    must(space.journal->checkpoint_all());
    space.buffers->invalidate_all_clean();
    space.poke(space.block_bitmap(g), 1000, [](std::byte b) { return b ^ std::byte{0x10}; });
    const auto again = use();
    ASSERT_FALSE(again) << "the damaged bitmap was taken and summed anew";
    EXPECT_EQ(again.error().code, EUCLEAN);
}

// One damaged descriptor costs its group, not all that share the block.
TEST(AllocOpen, DamagedDescriptorCostsOneGroup) {
    TestSpace space("-t ext4 -b 1024 -O ^flex_bg");
    const GroupNr bad(3);
    const auto place = space.geometry.descriptor_place(bad);
    space.poke(place.block, place.offset + 0x1E, [](std::byte b) { return b ^ std::byte{1}; });  // bg_checksum
    space.reopen();
    const Result<Allocation> grant =
        space.allocator->allocate(space.geometry.first_block(GroupNr(5)) + 4000, 10, nullptr, true);
    ASSERT_TRUE(grant) << grant.error().what;
    const BlockNr start = space.geometry.first_block(bad);
    EXPECT_TRUE(grant->first() < start || grant->first().value >= start.value + space.geometry.blocks_per_group);
}

// A shorter run is the longest of those that were met.
TEST(AllocOpen, FallsBackToTheLongestRun) {
    TestSpace space("-t ext4 -b 1024 -O ^flex_bg");
    // Group 2 is cut into pieces of 9 blocks, group 4 keeps a run of thousands; 8000 are in no group.
    std::vector<Allocation> held;
    const BlockNr start = space.geometry.first_block(GroupNr(2));
    for (std::uint64_t at = 600; at < space.geometry.blocks_per_group - 10; at += 10)
        held.push_back(must(space.allocator->allocate(start + at, 1, nullptr, true)));
    const Allocation grant = must(space.allocator->allocate(start + 601, 8100, nullptr, true));
    EXPECT_GT(grant.count(), 4000u);
}

}  // namespace
}  // namespace uext4
