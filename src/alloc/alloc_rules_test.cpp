// The rules of the allocator one by one: when space may be used again, who may use the reserve, threads, discards,
// damage.
#include "tests/fixtures/allocator_space.h"

#include "sync/thread.h"

#include <algorithm>
#include <atomic>
#include <random>
#include <set>

namespace uext4 {
namespace {

using test::must;
using test::TestSpace;

BlockRun publish(TestSpace& space, BlockNr goal, std::uint64_t blocks) {
    Allocation grant = must(space.allocator->allocate(goal, blocks, nullptr, false));
    const BlockRun run{grant.first(), grant.count()};
    Handle handle = space.start();
    must(space.allocator->mark_used(handle, grant));
    return run;
}

void free_blocks(TestSpace& space, const BlockRun& run) {
    Handle handle = space.start();
    must(space.allocator->free(handle, run.first, run.count));
}

TEST(AllocRules, GrantTouchesNoDisk) {
    TestSpace space("-t ext4 -b 1024");
    const auto before = space.allocator->super_free_blocks();
    Allocation grant = must(space.allocator->allocate(BlockNr(9000), 64, nullptr, false));
    EXPECT_EQ(grant.count(), 64u);
    EXPECT_EQ(space.allocator->super_free_blocks(), before);
    EXPECT_EQ(space.allocator->counts().free_blocks, before - 64);
    Allocation front = grant.split_front(10);
    EXPECT_EQ(front.count() + grant.count(), 64u);
    EXPECT_EQ(front.first() + 10, grant.first());
    front.release();
    EXPECT_EQ(space.allocator->counts().free_blocks, before - 54);
    grant.release();
    EXPECT_EQ(space.allocator->counts().free_blocks, before);
    space.judge();
}

TEST(AllocRules, FreedSpaceWaitsForItsCommit) {
    TestSpace space("-t ext4 -b 1024");
    const BlockRun run = publish(space, BlockNr(9000), 100);
    space.commit();
    const std::uint64_t free = space.allocator->counts().free_blocks;
    const std::uint64_t given_back = space.allocator->free_count_generation();
    Tid tid = 0;
    {
        Handle handle = space.start();
        tid = handle.tid();
        must(space.allocator->free(handle, run.first, run.count));
    }
    EXPECT_EQ(space.allocator->counts().free_blocks, free + 100) << "it counts as free";
    if (!space.journal->is_durable(tid)) {
        EXPECT_TRUE(space.allocator->has_pending_free());
        EXPECT_FALSE(space.allocator->reserve(free + 1, true)) << "and is nobody's yet";
        EXPECT_TRUE(space.allocator->reserve(free, true));
        EXPECT_EQ(space.allocator->super_free_blocks(), free + 100);
        const Allocation other = must(space.allocator->allocate(run.first, 100, nullptr, false));
        EXPECT_TRUE(other.first().value >= run.first.value + run.count ||
                    other.first().value + other.count() <= run.first.value);
    }
    space.commit();
    EXPECT_FALSE(space.allocator->has_pending_free());
    EXPECT_GT(space.allocator->free_count_generation(), given_back);
    EXPECT_EQ(space.allocator->counts().free_blocks, free + 100);
    const Allocation again = must(space.allocator->allocate(run.first, 100, nullptr, false));
    EXPECT_EQ(again.first(), run.first);
}

TEST(AllocRules, FreedInodeWaitsForItsCommit) {
    TestSpace space("-t ext4 -b 1024");
    InodeNr ino;
    {
        Handle handle = space.start();
        ino = must(space.allocator->allocate_inode(handle, InodeNr(2), false));
    }
    {
        Handle handle = space.start();
        must(space.allocator->free_inode(handle, ino, false));
        EXPECT_NE(must(space.allocator->allocate_inode(handle, InodeNr(2), false)), ino);
    }
    space.commit();
    Handle handle = space.start();
    EXPECT_EQ(must(space.allocator->allocate_inode(handle, InodeNr(2), false)), ino);
}

TEST(AllocRules, ReserveIsForThePrivileged) {
    TestSpace space("-t ext4 -b 4096 -m 10");
    const SpaceCounts counts = space.allocator->counts();
    EXPECT_EQ(counts.free_blocks - counts.available_blocks, space.geometry.reserved_blocks);
    DelallocReservation all = must(space.allocator->reserve(counts.available_blocks, false));
    EXPECT_EQ(space.allocator->reserved_clusters(), counts.available_blocks);
    EXPECT_EQ(space.allocator->reserve(1, false).error().code, ENOSPC);
    EXPECT_EQ(space.allocator->allocate(BlockNr(0), 1, nullptr, false).error().code, ENOSPC);
    DelallocReservation root = must(space.allocator->reserve(space.geometry.reserved_blocks, true));
    EXPECT_EQ(space.allocator->reserve(1, true).error().code, ENOSPC);
    root.release_part(5);
    all.merge(std::move(root));
    EXPECT_EQ(space.allocator->counts().free_blocks, 5u);
    // What was promised is there, to the last block.
    std::vector<Allocation> grants;
    while (all.clusters()) grants.push_back(must(space.allocator->allocate(BlockNr(0), 4000, &all, false)));
    EXPECT_EQ(space.allocator->reserved_clusters(), 0u);
    grants.clear();
    EXPECT_EQ(space.allocator->counts().free_blocks, counts.free_blocks);
}

TEST(AllocRules, AvoidedBlocksAreTheLastOnes) {
    for (const char* format : {"-t ext4 -b 1024", "-t ext4 -b 1024 -O bigalloc -C 4096", "-t ext4 -b 4096 -m 10"}) {
        TestSpace space(format);
        Allocator& a = *space.allocator;
        const SpaceCounts before = a.counts();
        const std::uint64_t ratio = space.geometry.cluster_ratio;
        Allocation grant = must(a.allocate(BlockNr(9000), 64, nullptr, false));
        const BlockNr bad = grant.first(), behind = bad + grant.count();
        a.avoid(std::move(grant));
        EXPECT_EQ(a.allocated_clusters(), 0u);
        EXPECT_EQ(a.counts().free_blocks, before.free_blocks) << "they are free";
        a.trim_avoided();
        const auto apart = [&](const Allocation& other) {
            return other.first() >= behind || other.first() + other.count() <= bad;
        };
        EXPECT_TRUE(apart(must(a.allocate(bad, 64, nullptr, false))));
        DelallocReservation most = must(a.reserve((before.free_blocks - 64) / ratio, true));
        std::vector<Allocation> grants;
        while (most.clusters()) {
            grants.push_back(must(a.allocate(bad, 4000, &most, true)));
            EXPECT_TRUE(apart(grants.back()));
        }
        // Nothing else is left.
        EXPECT_FALSE(a.reserve(64 / ratio + 1, true));
        Allocation last = must(a.allocate(bad, 64, nullptr, true));
        EXPECT_EQ(last.first(), bad);
        EXPECT_EQ(last.count(), 64u);
        EXPECT_FALSE(a.reserve(1, true));
        last.release(), grants.clear();
        EXPECT_EQ(a.counts().free_blocks, before.free_blocks);
        EXPECT_EQ(a.reserved_clusters() + a.allocated_clusters(), 0u);
        space.judge();
    }
}

// It comes back as one that is avoided, in the same mount: when its free is durable and nobody is on his way to it,
// whichever is later.
TEST(AllocRules, ARefusedBlockIsHadAgain) {
    for (const bool held_longer : {false, true}) {
        SCOPED_TRACE(held_longer ? "held longer" : "durable later");
        TestSpace space("-t ext4 -b 1024 -J size=1", "16M", true);
        Allocator& a = *space.allocator;
        const BlockRun run = publish(space, BlockNr(9000), 1);
        space.commit();
        const std::uint64_t free = a.counts().free_blocks, given_back = a.free_count_generation();
        std::shared_ptr<const void> held;
        {
            Handle handle = space.start();
            held = must(a.free_when_unused(handle, run.first, Allocator::Reuse::avoid));
        }
        EXPECT_EQ(a.counts().free_blocks, free + 1) << "it counts as free";
        if (held_longer) space.commit();
        else held.reset();
        EXPECT_TRUE(a.has_pending_free());
        EXPECT_FALSE(a.reserve(free + 1, true)) << "and is nobody's yet";
        if (held_longer) held.reset();
        else space.commit();
        ASSERT_FALSE(a.has_pending_free()) << "it never comes back";
        EXPECT_GT(a.free_count_generation(), given_back);
        EXPECT_EQ(a.counts().free_blocks, free + 1);
        std::vector<Allocation> others;
        for (DelallocReservation most = must(a.reserve(free, true)); most.clusters();) {
            others.push_back(must(a.allocate(run.first, 4000, &most, true)));
            EXPECT_TRUE(others.back().first() > run.first ||
                        others.back().first() + others.back().count() <= run.first);
        }
        // Nothing else is left.
        const Allocation last = must(a.allocate(run.first, 1, nullptr, true));
        EXPECT_EQ(last.first(), run.first);
        EXPECT_FALSE(a.reserve(1, true));
    }
}

TEST(AllocRules, AvoidedBlocksAreASmallPartOfWhatIsFree) {
    TestSpace space("-t ext4 -b 1024");
    Allocator& a = *space.allocator;
    const std::uint64_t free = a.counts().free_blocks;
    BlockNr oldest;
    for (std::uint64_t n = 0; n < free / 2;) {
        Allocation grant = must(a.allocate(BlockNr(9000), 512, nullptr, false));
        if (!oldest) oldest = grant.first();
        n += grant.count();
        a.avoid(std::move(grant));
    }
    a.trim_avoided();
    DelallocReservation all = must(a.reserve(free - free / 16 - 512, true));
    EXPECT_EQ(must(a.allocate(oldest, 512, &all, true)).first(), oldest) << "the oldest become as any other";
    EXPECT_EQ(a.counts().free_blocks, free - all.clusters());
}

TEST(AllocRules, FilesWrittenSideBySideStayWhole) {
    TestSpace space("-t ext4 -b 4096");
    struct File {
        std::vector<Allocation> grants;
        unsigned pieces = 0;
    };
    std::vector<File> files(3);
    for (int round = 0; round < 8; ++round) {
        for (File& f : files) {
            const BlockNr goal = f.grants.empty() ? BlockNr(1000) : f.grants.back().first() + f.grants.back().count();
            f.grants.push_back(must(space.allocator->allocate(goal, 256, nullptr, false)));
            EXPECT_EQ(f.grants.back().count(), 256u);
        }
    }
    // A commonplace caller asks in large pieces; none of them may be cut.
    for (const File& f : files) EXPECT_EQ(f.grants.size(), 8u);
}

TEST(AllocRules, FilesThatGrowByTurnsInSmallStepsStayWhole) {
    TestSpace space("-t ext4 -b 1024");
    constexpr int files = 4, steps = 256;
    std::vector<std::vector<Allocation>> grants(files);
    std::vector<int> pieces(files, 1);
    for (int step = 0; step < steps; ++step) {
        for (std::size_t f = 0; f < files; ++f) {
            const bool grows = !grants[f].empty();
            const BlockNr goal = grows ? grants[f].back().first() + 1 : BlockNr(4000);
            const InodeNr owner = grows ? InodeNr(static_cast<std::uint32_t>(20 + f)) : InodeNr();
            Allocation one = must(space.allocator->allocate(goal, 1, nullptr, true, owner));
            if (grows && one.first() != goal) ++pieces[f];
            grants[f].push_back(std::move(one));
        }
    }
    for (const int n : pieces) EXPECT_LE(n, 6);
    EXPECT_EQ(space.allocator->allocated_clusters(), std::uint64_t{files} * steps);
}

TEST(AllocRules, WindowsAreGivenUpWhenNothingElseIsLeft) {
    TestSpace space("-t ext4 -b 1024", "8M");
    std::vector<Allocation> grants;
    const std::uint64_t free = space.allocator->counts().free_blocks;
    for (std::uint64_t n = 0; n < free; ++n) {
        auto one = space.allocator->allocate(BlockNr(100 + n * 37 % 8000), 1, nullptr, true,
                                             InodeNr(static_cast<std::uint32_t>(20 + n % 40)));
        ASSERT_TRUE(one) << one.error().what << " after " << n << " of " << free;
        grants.push_back(std::move(*one));
    }
    EXPECT_FALSE(space.allocator->allocate(BlockNr(100), 1, nullptr, true));
}

TEST(AllocRules, DoubleAndForeignFreesAreRefused) {
    TestSpace space("-t ext4 -b 1024");
    const BlockRun run = publish(space, BlockNr(9000), 8);
    free_blocks(space, run);
    {
        Handle handle = space.start();
        const auto again = space.allocator->free(handle, run.first, run.count);
        ASSERT_FALSE(again);
        EXPECT_EQ(again.error().code, EUCLEAN);
        EXPECT_NE(again.error().what.find("group 1"), std::string::npos) << again.error().what;
        EXPECT_EQ(space.allocator->free(handle, BlockNr(1), 1).error().code, EUCLEAN);
        EXPECT_EQ(space.allocator->free(handle, space.inode_table(GroupNr(0)), 1).error().code, EUCLEAN);
        EXPECT_EQ(space.allocator->free(handle, space.block_bitmap(GroupNr(3)), 1).error().code, EUCLEAN);
        EXPECT_EQ(space.allocator->free(handle, BlockNr(space.geometry.blocks_count - 1), 2).error().code, EUCLEAN);
        EXPECT_EQ(space.allocator->free_inode(handle, InodeNr(2), true).error().code, EUCLEAN);
        EXPECT_EQ(space.allocator->free_inode(handle, InodeNr(100), false).error().code, EUCLEAN);
        EXPECT_EQ(space.allocator->free_inode(handle, InodeNr(space.geometry.inodes_count + 1), false).error().code,
                  EUCLEAN);
    }
    EXPECT_EQ(space.allocator->locate_inode(InodeNr(0)).error().code, EUCLEAN);
    space.judge();
}

TEST(AllocRules, DamagedBitmapIsLeftAlone) {
    TestSpace space("-t ext4 -b 1024");
    const GroupNr bad(2);
    // A group that was never used has no bitmap to damage.
    publish(space, space.geometry.first_block(bad) + 100, 8);
    space.commit();
    must(space.journal->checkpoint_all());
    space.reopen();
    space.poke(space.block_bitmap(bad), 1000, [](std::byte b) { return b ^ std::byte{0x10}; });
    space.poke(space.inode_bitmap(GroupNr(0)), 100, [](std::byte b) { return b ^ std::byte{0x10}; });
    space.reopen();
    const std::uint64_t start = space.geometry.first_block(bad).value, end = start + space.geometry.blocks_per_group;
    const Allocation grant = must(space.allocator->allocate(BlockNr(start + 4000), 100, nullptr, false));
    EXPECT_TRUE(grant.first().value + grant.count() <= start || grant.first().value >= end) << grant.first().value;
    Handle handle = space.start();
    const auto freed = space.allocator->free(handle, BlockNr(start + 4000), 1);
    ASSERT_FALSE(freed);
    EXPECT_EQ(freed.error().code, EUCLEAN);
    EXPECT_NE(freed.error().what.find("group 2"), std::string::npos) << freed.error().what;
    EXPECT_GT(must(space.allocator->allocate_inode(handle, InodeNr(2), false)).value, space.geometry.inodes_per_group);
}

TEST(AllocRules, ThreadsShareTheSpace) {
    TestSpace space("-t ext4 -b 1024");
    const SpaceCounts before = space.allocator->counts();
    std::atomic<unsigned> failures{0};
    {
        std::vector<Thread> threads;
        for (unsigned t = 0; t < 4; ++t) {
            threads.emplace_back(fmt::format("worker-{}", t), [&, t] {
                std::mt19937_64 random(t + 1);
                std::vector<BlockRun> used;
                std::vector<std::pair<InodeNr, bool>> inodes;  // and whether it is a directory's
                auto good = [&](const auto& r) {
                    if (!r) ++failures;
                    return bool(r);
                };
                for (int i = 0; i < 1500; ++i) {
                    if (i % 200 == 199) good(space.journal->commit_all());
                    Allocation grant;
                    if (random() % 2) {
                        auto r = space.allocator->allocate(BlockNr(random() % space.geometry.blocks_count),
                                                           1 + random() % 40, nullptr, false);
                        if (!r) continue;  // all is pending
                        grant = std::move(*r);
                    }
                    Handle handle = space.start();
                    if (grant && random() % 4) {
                        const BlockRun run{grant.first(), grant.count()};
                        if (good(space.allocator->mark_used(handle, grant))) used.push_back(run);
                    } else if (!used.empty()) {
                        good(space.allocator->free(handle, used.back().first, used.back().count));
                        used.pop_back();
                    }
                    if (random() % 3 == 0) {
                        const bool directory = random() % 2;
                        if (auto ino = space.allocator->allocate_inode(handle, InodeNr(2), directory); good(ino))
                            inodes.emplace_back(*ino, directory);
                    } else if (!inodes.empty() && random() % 2) {
                        good(space.allocator->free_inode(handle, inodes.back().first, inodes.back().second));
                        inodes.pop_back();
                    }
                }
                for (const BlockRun& r : used) {
                    Handle handle = space.start();
                    good(space.allocator->free(handle, r.first, r.count));
                }
                for (const auto& [ino, directory] : inodes) {
                    Handle handle = space.start();
                    good(space.allocator->free_inode(handle, ino, directory));
                }
            });
        }
    }
    EXPECT_EQ(failures.load(), 0u);
    space.commit();
    EXPECT_EQ(space.allocator->counts().free_blocks, before.free_blocks);
    EXPECT_EQ(space.allocator->counts().free_inodes, before.free_inodes);
    EXPECT_EQ(space.allocator->allocated_clusters(), 0u);
    EXPECT_EQ(space.allocator->reserved_clusters(), 0u);
    space.judge();
}

TEST(AllocRules, FreedClustersAreDiscardedBeforeTheyAreUsedAgain) {
    TestSpace space("-t ext4 -b 1024");
    std::atomic<std::uint64_t> bytes{0};
    std::atomic<bool> granted_meanwhile{false};
    const BlockRun run = publish(space, BlockNr(9000), 64);
    space.commit();
    space.device->on_discard = [&](std::uint64_t offset, std::uint64_t length) {
        bytes += length;
        const BlockNr first(offset / space.geometry.block_size);
        const auto grant = space.allocator->allocate(first, 1, nullptr, true);
        if (grant && grant->first() == first) granted_meanwhile = true;
    };
    space.allocator->set_discard(true);
    free_blocks(space, run);
    space.commit();
    space.allocator->finish_discards();
    EXPECT_FALSE(space.allocator->has_pending_free());
    EXPECT_EQ(bytes.load(), run.count * space.geometry.block_size);
    EXPECT_FALSE(granted_meanwhile.load());
    EXPECT_EQ(space.allocator->counts().free_blocks, space.allocator->super_free_blocks());
    space.judge();
    space.device->on_discard = nullptr;
}

TEST(AllocRules, DiscardOfAllFreeSpaceSparesWhatIsUsed) {
    TestSpace space("-t ext4 -b 1024");
    const std::uint64_t free = space.allocator->counts().free_blocks;
    std::atomic<std::uint64_t> system{0};
    space.device->on_discard = [&](std::uint64_t offset, std::uint64_t length) {
        for (std::uint64_t b = offset / 1024; b < (offset + length) / 1024; ++b)
            system += space.allocator->is_system_block(BlockNr(b));
    };
    EXPECT_EQ(must(space.allocator->trim(1)), free * 1024);
    EXPECT_EQ(system.load(), 0u);
    EXPECT_EQ(space.allocator->counts().free_blocks, free);
    space.judge();
    space.device->on_discard = nullptr;
}

TEST(AllocRules, DirectoriesBelowTheRootSpread) {
    TestSpace space("-t ext4 -b 1024");
    std::set<std::uint64_t> groups;
    for (int i = 0; i < 24; ++i) {
        Handle handle = space.start();
        groups.insert(space.geometry.group_of(must(space.allocator->allocate_inode(handle, InodeNr(2), true))).value);
    }
    EXPECT_GE(groups.size(), 4u);
    Handle handle = space.start();
    const InodeNr file =
        must(space.allocator->allocate_inode(handle, InodeNr(5 * space.geometry.inodes_per_group + 9), false));
    EXPECT_EQ(space.geometry.group_of(file).value, 5u);
}

}  // namespace
}  // namespace uext4
