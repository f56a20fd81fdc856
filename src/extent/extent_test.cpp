// Random operations on block maps of every kind, against a model of single blocks.
#include "tests/fixtures/block_map_fs.h"

#include <algorithm>

namespace uext4::test {
namespace {

struct Kind {
    const char* name;
    const char* options;
    unsigned operations;
};

class RandomMap : public testing::TestWithParam<Kind> {
protected:
    static constexpr std::uint64_t file_blocks = 24000;
    struct Block {
        std::uint64_t physical;
        bool unwritten;
        bool operator==(const Block&) const = default;
    };

    TestFs fs{GetParam().options};
    BlockMap map{fs.context(), *fs.owner};
    std::map<std::uint64_t, Block> model;
    // Another seed: --gtest_random_seed=N
    std::mt19937_64 random{4711u + static_cast<unsigned>(testing::UnitTest::GetInstance()->random_seed())};
    std::uint64_t ratio = fs.geometry.cluster_ratio;
    bool extents = fs.owner->uses_extents();

    std::uint64_t below(std::uint64_t n) { return random() % n; }

    std::uint64_t hole_length(std::uint64_t at, std::uint64_t max) {
        const auto next = model.lower_bound(at);
        return next == model.end() ? max : std::min(max, next->first - at);
    }
    // The physical block of the logical cluster's start, if any block of it is mapped.
    std::uint64_t cluster_base(std::uint64_t at) {
        const auto it = model.lower_bound(round_down(at, ratio));
        if (it == model.end() || it->first >= round_down(at, ratio) + ratio) return 0;
        return it->second.physical - it->first % ratio;
    }

    void insert_at(std::uint64_t at, std::uint64_t want, bool unwritten) {
        std::uint64_t n = hole_length(at, std::min(want, file_blocks - at));
        if (n == 0) return;
        Handle handle = must(fs.journal->start(map.credits() + 2 * Allocator::mark_used_credits()));
        std::uint64_t counted = 0;
        BlockNr physical(cluster_base(at));
        if (ratio > 1 && physical) {
            physical += at % ratio;
            n = std::min(n, ratio - at % ratio);
        } else {
            // Clusters that start free: up to the next cluster in use.
            const std::uint64_t start = round_down(at, ratio);
            std::uint64_t span = round_up(at + n, ratio) - start;
            while (span > ratio && cluster_base(start + span - ratio)) span -= ratio;
            const BlockNr goal(fs.geometry.first_data_block + below(fs.geometry.blocks_count - 1));
            Result<Allocation> grant = fs.allocator->allocate(goal, span, nullptr, false);
            if (!grant) {
                ASSERT_EQ(grant.error().code, ENOSPC) << grant.error().what;
                handle.stop();
                must(fs.journal->commit_all());
                return;
            }
            counted = grant->count();
            physical = grant->first() + (at - start);
            n = std::min(n, start + grant->count() - at);
            must(fs.allocator->mark_used(handle, *grant));
        }
        const Result<void> done = map.insert(handle, {LogicalBlock(at), n, physical, unwritten}, nullptr, counted);
        if (!done) {
            ASSERT_EQ(done.error().code, ENOSPC) << done.error().what;
            if (counted) must(fs.allocator->free(handle, BlockNr(round_down(physical.value, ratio)), counted));
            return;
        }
        for (std::uint64_t i = 0; i < n; ++i) model[at + i] = {physical.value + i, unwritten};
    }

    void remove(std::uint64_t from, std::uint64_t to) {
        std::uint64_t end = to;
        for (unsigned turns = 0; end > from; ++turns) {
            ASSERT_LT(turns, 100000u);
            // Sometimes barely enough for one step: the tree must be valid wherever it stops.
            Handle handle = must(fs.journal->start(below(2) ? 1 : 64));
            const LogicalBlock left = must(map.remove(handle, LogicalBlock(from), LogicalBlock(end), nullptr));
            ASSERT_LE(left.value, end);
            if (left.value == end) must(handle.restart(map.credits()));
            if (left.value == end) end = must(map.remove(handle, LogicalBlock(from), LogicalBlock(end), nullptr)).value;
            else end = left.value;
        }
        model.erase(model.lower_bound(from), model.lower_bound(to));
    }

    void convert(std::uint64_t at, std::uint64_t want) {
        auto it = model.lower_bound(at);
        if (it == model.end()) return;
        const std::uint64_t first = it->first;
        std::uint64_t n = 0;
        const bool to = below(2);
        for (; n < want && it != model.end() && it->first == first + n; ++it, ++n) it->second.unwritten = to;
        Handle handle = must(fs.journal->start(map.credits() + 100));
        must(map.set_unwritten(handle, LogicalBlock(first), n, to, nullptr));
    }

    void replace(std::uint64_t at) {
        const auto it = model.lower_bound(at);
        if (it == model.end()) return;
        Handle handle = must(fs.journal->start(map.credits() + 2 * Allocator::mark_used_credits()));
        Result<Allocation> grant = fs.allocator->allocate(BlockNr(fs.geometry.first_data_block + 1), 1, nullptr, false);
        if (!grant) return;
        const BlockNr fresh = grant->first();
        must(fs.allocator->mark_used(handle, *grant));
        const Result<BlockNr> old = map.replace_block(handle, LogicalBlock(it->first), fresh, nullptr);
        if (!old) {
            ASSERT_EQ(old.error().code, ENOSPC) << old.error().what;
            must(fs.allocator->free(handle, fresh, 1));
            return;
        }
        ASSERT_EQ(old->value, it->second.physical);
        must(fs.allocator->free(handle, *old, 1));
        it->second.physical = fresh.value;
    }

    void shift(std::uint64_t from, std::int64_t delta) {
        if (delta < 0) remove(from - static_cast<std::uint64_t>(-delta), from);
        std::uint64_t progress = 0;
        for (unsigned turns = 0;; ++turns) {
            ASSERT_LT(turns, 100000u);
            Handle handle = must(fs.journal->start(below(2) ? 1 : 40));
            if (must(map.shift(handle, LogicalBlock(from), delta, progress))) break;
            must(handle.restart(map.credits()));
            if (must(map.shift(handle, LogicalBlock(from), delta, progress))) break;
        }
        std::map<std::uint64_t, Block> moved;
        for (const auto& [at, block] : model) moved[at < from ? at : at + static_cast<std::uint64_t>(delta)] = block;
        model = std::move(moved);
    }

    void check_lookup(std::uint64_t at, std::uint64_t max) {
        const MappedRun run = must(map.lookup(LogicalBlock(at), max));
        ASSERT_EQ(run.logical.value, at);
        const std::uint64_t hole = hole_length(at, max);
        if (hole) {
            ASSERT_TRUE(run.hole()) << at;
            ASSERT_EQ(run.count, hole) << at;
            return;
        }
        ASSERT_GE(run.count, 1u);
        ASSERT_LE(run.count, max);
        for (std::uint64_t i = 0; i < run.count; ++i) {
            const auto it = model.find(at + i);
            ASSERT_TRUE(it != model.end()) << at + i;
            ASSERT_EQ(it->second, (Block{run.physical.value + i, run.unwritten})) << at + i;
        }
    }

    void check_all() {
        std::uint64_t seen = 0, tree = 0, clusters = 0, last_cluster = ~std::uint64_t{0};
        must(map.for_each(LogicalBlock(0), [&](const MappedRun& run) {
            for (std::uint64_t i = 0; i < run.count; ++i, ++seen) {
                const auto it = model.find(run.logical.value + i);
                EXPECT_TRUE(it != model.end() && it->second == (Block{run.physical.value + i, run.unwritten}))
                    << run.logical.value + i;
                const std::uint64_t cluster = (run.logical.value + i) / ratio;
                if (cluster != last_cluster) ++clusters;
                last_cluster = cluster;
            }
            return !HasFailure();
        }));
        ASSERT_EQ(seen, model.size());
        must(map.for_each_tree_block([&](BlockNr) { return ++tree, true; }));
        ASSERT_EQ(static_cast<std::uint64_t>(fs.owner->blocks), (clusters + tree) * ratio);
    }

    void step() {
        const std::uint64_t at = below(file_blocks);
        const unsigned what = static_cast<unsigned>(below(100));
        if (what < 45) insert_at(at, below(4) ? 1 + below(3) : 1 + below(300), extents && below(2));
        else if (what < 60) check_lookup(at, 1 + below(file_blocks));
        else if (what < 75) remove(at, at + 1 + (below(30) ? below(40) : below(4000)));
        else if (what < 90 && extents) convert(at, 1 + below(60));
        else if (what < 96 && ratio == 1) replace(at);
        else if (extents && below(20) == 0) {
            const std::uint64_t from = round_up(1 + below(file_blocks), ratio), by = round_up(1 + below(50), ratio);
            if (below(2) && from >= by) shift(from, -static_cast<std::int64_t>(by));
            else {
                remove(file_blocks - by, file_blocks + 2000);
                shift(from, static_cast<std::int64_t>(by));
            }
        }
    }
};

TEST_P(RandomMap, AgreesWithModel) {
    for (unsigned n = 0; n < GetParam().operations; ++n) {
        ASSERT_NO_FATAL_FAILURE(step()) << "operation " << n;
        if (n % 64 == 0) must(fs.journal->commit_all());
        if (n % 1000 != 0) continue;
        ASSERT_NO_FATAL_FAILURE(check_all()) << "operation " << n;
    }
    ASSERT_NO_FATAL_FAILURE(check_all());
    ASSERT_NO_FATAL_FAILURE(fs.judge());
    ASSERT_NO_FATAL_FAILURE(remove(0, map.max_block().value));
    ASSERT_NO_FATAL_FAILURE(fs.judge());
    EXPECT_EQ(fs.owner->blocks, 0);
    EXPECT_EQ(fs.allocator->counts().free_blocks, fs.free_at_start);
    EXPECT_EQ(fs.allocator->allocated_clusters(), 0u);
    EXPECT_EQ(fs.allocator->reserved_clusters(), 0u);
    std::byte fresh[60] = {};
    if (extents) initialise_extent_root(fresh);
    // What lies behind the header of an empty extent root means nothing.
    const std::size_t matters = extents ? 8 : 60;
    EXPECT_TRUE(std::ranges::equal(fs.owner->i_block().first(matters), Bytes(fresh).first(matters)));
}

INSTANTIATE_TEST_SUITE_P(Kinds, RandomMap,
                         testing::Values(Kind{"extents_4k", "-t ext4 -b 4096 -O ^has_journal", 20000},
                                         Kind{"extents_1k", "-t ext4 -b 1024 -O ^has_journal", 50000},
                                         Kind{"no_checksums", "-t ext4 -b 2048 -O ^has_journal,^metadata_csum,^64bit",
                                              10000},
                                         Kind{"bigalloc", "-t ext4 -b 1024 -C 8192 -O ^has_journal,bigalloc", 30000},
                                         Kind{"indirect_1k", "-t ext4 -b 1024 -O ^has_journal,^extent,^64bit", 30000},
                                         Kind{"indirect_4k", "-t ext3 -b 4096 -O ^has_journal,^extent", 10000}),
                         [](const auto& kind) { return std::string(kind.param.name); });

}  // namespace
}  // namespace uext4::test
