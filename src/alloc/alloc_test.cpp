// The allocator on real images of many formats: what it says is compared with what it did, and e2fsck has the last
// word.
#include "tests/fixtures/allocator_space.h"

#include "sync/thread.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>

namespace uext4 {
namespace {

using test::must;
using test::TestSpace;

struct Format {
    const char* name;
    const char* options;
    bool log = false;
};

class AllocFormats : public testing::TestWithParam<Format> {};

// What a random worker has: blocks published, and inodes.
struct Worker {
    TestSpace& space;
    std::mt19937_64 random;
    std::vector<BlockRun> used;
    std::vector<std::pair<InodeNr, bool>> inodes;
    std::vector<Allocation> grants;

    Worker(TestSpace& s, std::uint64_t seed) : space(s), random(seed) {}
    std::uint64_t below(std::uint64_t n) { return random() % n; }

    void step() {
        Allocator& a = *space.allocator;
        const BlockNr goal(below(space.geometry.blocks_count));
        switch (below(8)) {
            case 0:
            case 1:
                if (Result<Allocation> g = a.allocate(goal, 1 + below(300), nullptr, false))
                    grants.push_back(std::move(*g));
                else ASSERT_EQ(g.error().code, ENOSPC) << g.error().what;
                break;
            case 2: {
                Result<DelallocReservation> promise = a.reserve(1 + below(40), false);
                if (!promise) {
                    ASSERT_EQ(promise.error().code, ENOSPC) << promise.error().what;
                    break;
                }
                DelallocReservation claim = std::move(*promise);
                const std::uint64_t promised = claim.clusters();
                Result<Allocation> g = a.allocate(goal, space.geometry.cluster_ratio * promised, &claim, false);
                ASSERT_TRUE(g) << g.error().what;
                ASSERT_EQ(claim.clusters() + divide_up(g->count(), space.geometry.cluster_ratio), promised);
                grants.push_back(std::move(*g));
                break;
            }
            case 3:
            case 4: {
                if (grants.empty()) break;
                std::swap(grants[below(grants.size())], grants.back());
                const BlockRun run{grants.back().first(), grants.back().count()};
                if (below(3) != 0) {
                    Handle handle = space.start();
                    must(a.mark_used(handle, grants.back()));
                    used.push_back(run);
                }
                grants.pop_back();
                break;
            }
            case 5: {
                if (used.empty()) break;
                std::swap(used[below(used.size())], used.back());
                Handle handle = space.start();
                must(a.free(handle, used.back().first, used.back().count));
                used.pop_back();
                break;
            }
            case 6: {
                const bool directory = below(2) != 0;
                const InodeNr parent =
                    inodes.empty() || below(3) == 0 ? InodeNr(2) : inodes[below(inodes.size())].first;
                Handle handle = space.start();
                Result<InodeNr> got = a.allocate_inode(handle, parent, directory);
                if (!got) {
                    ASSERT_EQ(got.error().code, ENOSPC) << got.error().what;
                    break;
                }
                const InodeNr made = *got;
                ASSERT_GE(made.value, space.geometry.first_inode);
                ASSERT_TRUE(space.geometry.valid_inode(made));
                inodes.emplace_back(made, directory);
                break;
            }
            case 7: {
                if (inodes.empty()) break;
                std::swap(inodes[below(inodes.size())], inodes.back());
                Handle handle = space.start();
                must(a.free_inode(handle, inodes.back().first, inodes.back().second));
                inodes.pop_back();
                break;
            }
        }
    }
    void give_everything_back() {
        grants.clear();
        for (const BlockRun& run : used) {
            Handle handle = space.start();
            must(space.allocator->free(handle, run.first, run.count));
        }
        for (const auto& [ino, directory] : inodes) {
            Handle handle = space.start();
            must(space.allocator->free_inode(handle, ino, directory));
        }
        used.clear();
        inodes.clear();
    }
};

void expect_as_before(TestSpace& space, const SpaceCounts& before) {
    const SpaceCounts after = space.allocator->counts();
    EXPECT_EQ(after.free_blocks, before.free_blocks);
    EXPECT_EQ(after.free_inodes, before.free_inodes);
    EXPECT_EQ(space.allocator->super_free_blocks(), before.free_blocks);
    EXPECT_EQ(space.allocator->allocated_clusters(), 0u);
    EXPECT_EQ(space.allocator->reserved_clusters(), 0u);
}

TEST_P(AllocFormats, RandomWorkAndBack) {
    TestSpace space(GetParam().options, "96M", GetParam().log);
    const SpaceCounts before = space.allocator->counts();
    EXPECT_EQ(before.free_blocks, space.super().free_blocks());
    Worker worker(space, 7);
    for (int i = 0; i < 3000; ++i) {
        worker.step();
        if (HasFatalFailure()) return;
        if (i % 100 == 99) space.commit();
    }
    // Nothing is handed out twice, and nothing of the file system's own.
    std::map<std::uint64_t, std::uint64_t> held;
    for (const BlockRun& r : worker.used) held[r.first.value] = r.count;
    for (const Allocation& g : worker.grants) held[g.first().value] = g.count();
    EXPECT_EQ(held.size(), worker.used.size() + worker.grants.size());
    std::uint64_t end = 0;
    for (const auto& [first, count] : held) {
        EXPECT_GE(first, end);
        end = first + count;
        for (std::uint64_t b = first; b < end; ++b) ASSERT_FALSE(space.allocator->is_system_block(BlockNr(b))) << b;
    }
    std::set<std::uint64_t> numbers;
    for (const auto& [ino, directory] : worker.inodes) EXPECT_TRUE(numbers.insert(ino.value).second) << ino.value;
    worker.give_everything_back();
    space.commit();
    expect_as_before(space, before);
    space.judge();
    space.reopen(true);
    expect_as_before(space, before);
}

TEST_P(AllocFormats, EveryClusterCanBeHadAndGivenBack) {
    TestSpace space(GetParam().options);
    const SpaceCounts before = space.allocator->counts();
    {
        std::vector<Allocation> all;
        std::uint64_t blocks = 0;
        for (;;) {
            Result<Allocation> g = space.allocator->allocate(BlockNr(0), 100000, nullptr, true);
            if (!g) {
                EXPECT_EQ(g.error().code, ENOSPC);
                break;
            }
            blocks += g->count();
            all.push_back(std::move(*g));
        }
        EXPECT_EQ(blocks, before.free_blocks);
        EXPECT_EQ(space.allocator->counts().free_blocks, 0u);
        // In small pieces, in two transactions.
        std::vector<BlockRun> used;
        for (Allocation& g : all) {
            Handle handle = space.start();
            used.push_back({g.first(), g.count()});
            must(space.allocator->mark_used(handle, g));
        }
        space.commit();
        EXPECT_EQ(space.allocator->super_free_blocks(), 0u);
        for (const BlockRun& r : used) {
            Handle handle = space.start();
            must(space.allocator->free(handle, r.first, r.count));
        }
    }
    space.commit();
    expect_as_before(space, before);
    space.judge();
}

TEST_P(AllocFormats, EveryInodeCanBeHadAndGivenBack) {
    TestSpace space(std::string(GetParam().options) + " -N 2048");
    const SpaceCounts before = space.allocator->counts();
    std::vector<InodeNr> all;
    for (;;) {
        Handle handle = space.start();
        Result<InodeNr> ino = space.allocator->allocate_inode(handle, InodeNr(2), false);
        if (!ino) {
            EXPECT_EQ(ino.error().code, ENOSPC);
            break;
        }
        // A table block that comes into use shows nothing of what the device held.
        const auto place = must(space.allocator->locate_inode(*ino));
        const BufferRef table = must(space.buffers->read(place.block, "inode table"));
        ASSERT_TRUE(all_zero(ConstBytes(table->data()).subspan(place.offset, space.geometry.inode_size))) << ino->value;
        EXPECT_TRUE(must(space.allocator->is_inode_used(*ino)));
        all.push_back(*ino);
    }
    EXPECT_EQ(all.size(), before.free_inodes);
    EXPECT_EQ(std::set<InodeNr>(all.begin(), all.end()).size(), all.size());
    for (const InodeNr ino : all) {
        Handle handle = space.start();
        must(space.allocator->free_inode(handle, ino, false));
    }
    space.commit();
    expect_as_before(space, before);
    space.judge();
}

INSTANTIATE_TEST_SUITE_P(
    Formats, AllocFormats,
    testing::Values(Format{"default_4k", "-t ext4 -b 4096"}, Format{"with_log", "-t ext4 -b 4096 -J size=4", true},
                    Format{"block_1k", "-t ext4 -b 1024"}, Format{"block_2k_inode_128", "-t ext4 -b 2048 -I 128"},
                    Format{"bigalloc", "-t ext4 -b 4096 -O bigalloc -C 65536"},
                    Format{"bigalloc_1k", "-t ext4 -b 1024 -O bigalloc -C 8192"},
                    Format{"no_flex_bg", "-t ext4 -b 1024 -O ^flex_bg"},
                    Format{"meta_bg", "-t ext4 -b 1024 -O meta_bg,^resize_inode"},
                    Format{"uninit_bg", "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg"},
                    Format{"uninit_bg_32_bit", "-t ext4 -b 1024 -O ^metadata_csum,^64bit,uninit_bg,^flex_bg"},
                    Format{"sparse_super2", "-t ext4 -b 1024 -O sparse_super2,^resize_inode"},
                    Format{"csum_32_bit", "-t ext4 -b 4096 -O ^64bit"}, Format{"plain_ext2", "-t ext2 -b 1024"},
                    Format{"lazy_tables", "-t ext4 -b 1024 -E lazy_itable_init=1,lazy_journal_init=1"}),
    [](const auto& format) { return std::string(format.param.name); });

}  // namespace
}  // namespace uext4
