// Bitmaps in memory are bounded, and nothing is forgotten of what the disk does not tell.
#include "tests/fixtures/allocator_space.h"

#include "sync/thread.h"

#include <algorithm>
#include <random>

namespace uext4 {
namespace {

using test::must;
using test::TestSpace;

constexpr std::uint64_t one_map = 1024 + 384;  // of a group with 1 KiB blocks: the bits, and where the free runs are
constexpr std::uint64_t groups = 12;

BlockNr in_group(const TestSpace& space, std::uint64_t group) {
    return space.geometry.first_block(GroupNr(group)) + 4000;
}

BlockRun take(TestSpace& space, BlockNr goal, std::uint64_t blocks) {
    Handle handle = space.start();
    Allocation grant = must(space.allocator->allocate(goal, blocks, nullptr, false));
    const BlockRun run{grant.first(), grant.count()};
    must(space.allocator->mark_used(handle, grant));
    return run;
}

TEST(AllocLimit, MapsThatTheDiskTellsOfGo) {
    TestSpace space("-t ext4 -b 1024", "96M", true);
    ASSERT_EQ(space.geometry.group_count, groups);
    space.allocator->set_bitmap_memory_limit(3 * one_map);
    std::vector<BlockRun> runs;
    for (int round = 0; round < 4; ++round)
        for (std::uint64_t g = 0; g < groups; ++g) {
            runs.push_back(take(space, in_group(space, g), 20));
            EXPECT_LE(space.allocator->bitmap_memory_bytes(), 4 * one_map);
        }
    // No block twice, although the maps were made again from what no commit had brought to the disk.
    std::ranges::sort(runs, {}, &BlockRun::first);
    for (std::size_t i = 1; i < runs.size(); ++i)
        EXPECT_LE(runs[i - 1].first.value + runs[i - 1].count, runs[i].first.value);
    for (const BlockRun& run : runs) {
        Handle handle = space.start();
        must(space.allocator->free(handle, run.first, run.count));
    }
    space.judge();
}

TEST(AllocLimit, MapsWithMoreThanTheDiskTellsStay) {
    TestSpace space("-t ext4 -b 1024", "96M", true);
    const std::uint64_t free = space.allocator->counts().free_blocks;
    space.allocator->set_bitmap_memory_limit(one_map);
    std::vector<BlockRun> freed;
    std::vector<Allocation> held;
    for (std::uint64_t g = 0; g < groups; ++g) freed.push_back(take(space, in_group(space, g), 20));
    space.commit();
    for (const BlockRun& run : freed) {
        Handle handle = space.start();
        must(space.allocator->free(handle, run.first, run.count));
    }
    for (std::uint64_t g = 0; g < groups; ++g)
        held.push_back(must(space.allocator->allocate(in_group(space, g), 20, nullptr, false)));
    EXPECT_EQ(space.allocator->bitmap_memory_bytes(), groups * one_map);
    for (std::uint64_t g = 0; g < groups; ++g) {
        const Allocation other = must(space.allocator->allocate(in_group(space, g), 20, nullptr, false));
        for (const BlockRun& run : freed)
            EXPECT_TRUE(other.first() >= run.first + run.count || run.first >= other.first() + other.count());
        for (const Allocation& grant : held)
            EXPECT_TRUE(other.first() >= grant.first() + grant.count() ||
                        grant.first() >= other.first() + other.count());
    }
    held.clear();
    space.commit();
    EXPECT_EQ(space.allocator->counts().free_blocks, free);
    // The next loads let go of the others.
    for (std::uint64_t g = 0; g < groups; ++g)
        must(space.allocator->is_inode_used(InodeNr(g * space.geometry.inodes_per_group + 1)));
    for (std::uint64_t g = 0; g < groups; ++g)
        must(space.allocator->is_inode_used(InodeNr(g * space.geometry.inodes_per_group + 1)));
    EXPECT_LE(space.allocator->bitmap_memory_bytes(), 2 * one_map);
    space.judge();
}

TEST(AllocLimit, InodesOfManyGroups) {
    TestSpace space("-t ext4 -b 1024", "96M", true);
    space.allocator->set_bitmap_memory_limit(one_map);
    std::vector<InodeNr> inodes;
    for (int i = 0; i < 60; ++i) {
        Handle handle = space.start();
        const InodeNr parent(static_cast<std::uint32_t>(i) % groups * space.geometry.inodes_per_group + 1);
        inodes.push_back(must(space.allocator->allocate_inode(handle, parent, false)));
    }
    for (const InodeNr ino : inodes) {
        Handle handle = space.start();
        must(space.allocator->free_inode(handle, ino, false));
        EXPECT_TRUE(must(space.allocator->is_inode_used(ino))) << "its number is not free before the commit";
    }
    std::ranges::sort(inodes);
    EXPECT_EQ(std::ranges::adjacent_find(inodes), inodes.end());
    space.commit();
    for (const InodeNr ino : inodes) EXPECT_FALSE(must(space.allocator->is_inode_used(ino)));
    space.judge();
}

TEST(AllocLimit, ThreadsWhileMapsComeAndGo) {
    TestSpace space("-t ext4 -b 1024", "96M", true);
    space.allocator->set_bitmap_memory_limit(2 * one_map);
    const std::uint64_t free = space.allocator->counts().free_blocks;
    std::vector<Thread> threads;
    for (unsigned t = 0; t < 4; ++t)
        threads.emplace_back("alloc-limit", [&space, t] {
            std::mt19937 random(t);
            std::vector<BlockRun> mine;
            for (int i = 0; i < 400; ++i) {
                if (mine.size() < 8) {
                    Handle handle = space.start();
                    Allocation grant = must(space.allocator->allocate(in_group(space, random() % groups),
                                                                      1 + random() % 30, nullptr, false));
                    if (random() % 4 == 0) continue;  // given back
                    mine.push_back({grant.first(), grant.count()});
                    must(space.allocator->mark_used(handle, grant));
                } else {
                    std::swap(mine[random() % mine.size()], mine.back());
                    Handle handle = space.start();
                    must(space.allocator->free(handle, mine.back().first, mine.back().count));
                    mine.pop_back();
                }
                if (random() % 50 == 0) space.commit();
            }
            for (const BlockRun& run : mine) {
                Handle handle = space.start();
                must(space.allocator->free(handle, run.first, run.count));
            }
        });
    for (Thread& thread : threads) thread.join();
    space.commit();
    EXPECT_EQ(space.allocator->counts().free_blocks, free);
    space.judge();
}

TEST(AllocLimit, FullGroupsAreNotRead) {
    TestSpace space("-t ext4 -b 1024", "96M");
    for (const std::uint64_t blocks : {std::uint64_t{256}, std::uint64_t{1}})
        for (std::uint64_t g = 0; g + 1 < groups; ++g)
            for (;;) {
                Allocation grant =
                    must(space.allocator->allocate(space.geometry.first_block(GroupNr(g)), blocks, nullptr, true));
                if (space.geometry.group_of(grant.first()).value != g) break;
                Handle handle = space.start();
                must(space.allocator->mark_used(handle, grant));
            }
    space.commit();
    must(space.journal->checkpoint_all());
    space.reopen();
    const Allocation grant = must(space.allocator->allocate(in_group(space, 0), 1, nullptr, true));
    EXPECT_EQ(space.geometry.group_of(grant.first()).value, groups - 1);
    EXPECT_EQ(space.allocator->bitmap_memory_bytes(), one_map);
}

TEST(AllocLimit, WhatWasPublishedIsTakenBackAfterItsMapHasGone) {
    TestSpace space("-t ext4 -b 1024", "96M", true);
    space.allocator->set_bitmap_memory_limit(one_map);
    {
        Handle handle = space.start();
        std::vector<BlockRun> runs;
        for (std::uint64_t g = 0; g < groups; ++g) {
            Allocation grant = must(space.allocator->allocate(in_group(space, g), 20, nullptr, false));
            runs.emplace_back(grant.first(), grant.count());
            must(space.allocator->mark_used(handle, grant));
        }
        for (const BlockRun& run : runs) {
            const Allocation back = must(space.allocator->unmark_used(handle, run.first, run.count));
            EXPECT_EQ(back.first(), run.first);
        }
    }
    space.judge();
}

}  // namespace
}  // namespace uext4
