// What trees look like as they grow and shrink, where they end, and what they do with lies on disk.
#include "extent/extent_node.h"
#include "extent/extent_tree.h"
#include "tests/fixtures/block_map_fs.h"

#include <algorithm>
#include <numeric>
#include <ranges>
#include <set>

namespace uext4::test {
namespace {

struct MapUnderTest {
    TestFs fs;
    BlockMap map;
    explicit MapUnderTest(const std::string& options) : fs(options), map(fs.context(), *fs.owner) {}

    Handle start() { return must(fs.journal->start(map.credits() + 4 * Allocator::mark_used_credits())); }
    void insert(std::uint64_t at, std::uint64_t n = 1, bool unwritten = false) {
        Handle handle = start();
        while (n) {
            Allocation grant =
                must(fs.allocator->allocate(fs.allocator->goal_for(fs.owner->number()), n, nullptr, true));
            const BlockNr first = grant.first();
            const std::uint64_t count = std::min(n, grant.count()), counted = grant.count();
            must(fs.allocator->mark_used(handle, grant));
            must(map.insert(handle, {LogicalBlock(at), count, first, unwritten}, nullptr, counted));
            at += count;
            n -= count;
            if (n) must(handle.restart(map.credits() + 4 * Allocator::mark_used_credits()));
        }
    }
    void remove(std::uint64_t from, std::uint64_t to) {
        while (from < to) {
            Handle handle = must(fs.journal->start(60));
            to = must(map.remove(handle, LogicalBlock(from), LogicalBlock(to), nullptr)).value;
        }
    }
    unsigned depth() { return node_header(fs.owner->i_block()).depth; }
    std::vector<BlockNr> tree_blocks() {
        std::vector<BlockNr> blocks;
        must(map.for_each_tree_block([&](BlockNr b) { return blocks.push_back(b), true; }));
        return blocks;
    }
    std::uint64_t mapped() {
        std::uint64_t n = 0;
        must(map.for_each(LogicalBlock(0), [&](const MappedRun& run) { return n += run.count, true; }));
        return n;
    }
};

const char* const small_blocks = "-t ext4 -b 1024 -O ^has_journal";

TEST(ExtentShape, AppendsFillTheirLeaves) {
    MapUnderTest t(small_blocks);
    constexpr unsigned extents = 4200;
    for (unsigned i = 0; i < extents; ++i) t.insert(2 * i);
    EXPECT_EQ(t.depth(), 2u);
    EXPECT_LE(t.tree_blocks().size(), divide_up(extents, format::extent_capacity(1024)) + 4);
    t.fs.judge();
    t.remove(8, 1u << 20);
    EXPECT_EQ(t.depth(), 0u);
    EXPECT_EQ(t.mapped(), 4u);
    EXPECT_EQ(t.fs.owner->blocks, 4);
    t.fs.judge();
}

TEST(ExtentShape, RandomOrderGrowsDeepAndShrinks) {
    MapUnderTest t(small_blocks);
    std::vector<std::uint64_t> order(20000);
    std::iota(order.begin(), order.end(), 0);
    std::mt19937 random(7);
    std::shuffle(order.begin(), order.end(), random);
    for (const std::uint64_t n : order) t.insert(n * 3 + 1, 1, n % 2);
    EXPECT_GE(t.depth(), 2u);
    EXPECT_EQ(t.mapped(), order.size());
    EXPECT_EQ(t.fs.owner->blocks, static_cast<std::int64_t>(order.size() + t.tree_blocks().size()));
    t.fs.judge();
    std::shuffle(order.begin(), order.end(), random);
    for (const std::uint64_t n : order) t.remove(n * 3, n * 3 + 3);
    EXPECT_EQ(t.depth(), 0u);
    EXPECT_EQ(t.fs.owner->blocks, 0);
    t.fs.judge();
    EXPECT_EQ(t.fs.allocator->counts().free_blocks, t.fs.free_at_start);
}

TEST(ExtentShape, HolesAreExactAcrossLeaves) {
    MapUnderTest t(small_blocks);
    for (unsigned i = 0; i < 400; ++i) t.insert(100 * i);
    for (unsigned i = 0; i + 1 < 400; ++i) {
        const MappedRun hole = must(t.map.lookup(LogicalBlock(100 * i + 1), 1000));
        ASSERT_TRUE(hole.hole());
        ASSERT_EQ(hole.count, 99u);
    }
    EXPECT_EQ(must(t.map.lookup(LogicalBlock(39901), 5000)).count, 5000u);
}

TEST(ExtentShape, LimitsAreRefused) {
    MapUnderTest t(small_blocks);
    EXPECT_EQ(t.map.max_block().value, 0xFFFFFFFFu);
    t.insert(t.map.max_block().value - 1);
    {
        Handle handle = t.start();
        EXPECT_EQ(t.map.insert(handle, {t.map.max_block(), 1, BlockNr(20000), false}, nullptr, 1).error().code, EFBIG);
        const MappedRun last{t.map.max_block() - 1, 1, BlockNr(20000), false};
        EXPECT_EQ(t.map.insert(handle, last, nullptr, 1).error().code, EUCLEAN);
        std::uint64_t progress = 0;
        EXPECT_EQ(t.map.shift(handle, LogicalBlock(0), 1, progress).error().code, EFBIG);
        EXPECT_EQ(t.map.replace_block(handle, LogicalBlock(5), BlockNr(20000), nullptr).error().code, EUCLEAN);
        EXPECT_EQ(t.map.set_unwritten(handle, LogicalBlock(5), 1, true, nullptr).error().code, EUCLEAN);
    }
    EXPECT_EQ(t.mapped(), 1u);
    EXPECT_TRUE(must(t.map.lookup(t.map.max_block(), 10)).hole());
    t.remove(0, t.map.max_block().value);
    EXPECT_EQ(t.mapped(), 0u);
}

TEST(ExtentShape, LongestExtents) {
    ExtentListBuilder list;
    list.add(0, 100000, BlockNr(1000), false);
    list.add(100000, 40000, BlockNr(101000), true);
    std::uint64_t at = 0;
    for (const NodeEntry& raw : list.entries()) {
        const auto e = std::bit_cast<format::ExtentLeaf>(raw);
        EXPECT_EQ(e.block, at);
        EXPECT_EQ(e.start().value, 1000 + at);
        EXPECT_LE(e.count(), e.unwritten() ? 32767u : 32768u);
        EXPECT_EQ(e.unwritten(), at >= 100000);
        at += e.count();
    }
    EXPECT_EQ(at, 140000u);
}

TEST(ExtentShape, ClaimsCoverTheTree) {
    MapUnderTest t(small_blocks);
    std::mt19937 random(3);
    std::set<std::uint64_t> taken;
    for (unsigned round = 0; round < 40; ++round) {
        DelallocReservation paid = must(t.fs.allocator->reserve(BlockMap::tree_blocks_for(64, 1024, true), false));
        const std::size_t before = t.tree_blocks().size();
        for (unsigned i = 0; i < 64; ++i) {
            const std::uint64_t at = 2 * (random() % 50000);
            if (!taken.insert(at).second) continue;
            Handle handle = t.start();
            Allocation grant = must(t.fs.allocator->allocate(BlockNr(30000), 1, nullptr, false));
            const BlockNr block = grant.first();
            must(t.fs.allocator->mark_used(handle, grant));
            must(t.map.insert(handle, {LogicalBlock(at), 1, block, false}, &paid, 1));
        }
        EXPECT_EQ(paid.clusters() + (t.tree_blocks().size() - before), BlockMap::tree_blocks_for(64, 1024, true));
    }
    EXPECT_EQ(t.fs.allocator->reserved_clusters(), 0u);
}

TEST(ExtentShape, SharedClustersAreKept) {
    MapUnderTest t("-t ext4 -b 1024 -C 8192 -O ^has_journal,bigalloc");
    t.insert(8, 8);
    EXPECT_EQ(t.fs.owner->blocks, 8);
    t.remove(8, 12);
    EXPECT_EQ(t.fs.owner->blocks, 8);
    {
        Handle handle = t.start();
        auto keeps = [](LogicalBlock cluster) { return cluster.value == 8; };
        EXPECT_EQ(must(t.map.remove(handle, LogicalBlock(0), LogicalBlock(100), keeps)).value, 0u);
    }
    EXPECT_EQ(t.fs.owner->blocks, 8);
    EXPECT_EQ(t.mapped(), 0u);
}

TEST(IndirectShape, LevelsAndLimits) {
    MapUnderTest t("-t ext4 -b 1024 -O ^has_journal,^extent,^64bit");
    const std::uint64_t places[] = {
        0, 11, 12, 267, 268, 268 + 65535, 268 + 65536, 268 + 65536 + 65536, t.map.max_block().value - 1};
    for (const std::uint64_t at : places) t.insert(at);
    t.insert(5000, 700);
    EXPECT_EQ(t.mapped(), std::size(places) + 700);
    EXPECT_EQ(t.fs.owner->blocks, static_cast<std::int64_t>(t.mapped() + t.tree_blocks().size()));
    for (const std::uint64_t at : places) EXPECT_FALSE(must(t.map.lookup(LogicalBlock(at), 1)).hole());
    {
        Handle handle = t.start();
        EXPECT_EQ(t.map.insert(handle, {t.map.max_block(), 1, BlockNr(20000), false}, nullptr, 1).error().code, EFBIG);
        EXPECT_EQ(t.map.set_unwritten(handle, LogicalBlock(0), 1, false, nullptr).error().code, EOPNOTSUPP);
        std::uint64_t progress = 0;
        EXPECT_EQ(t.map.shift(handle, LogicalBlock(0), 1, progress).error().code, EOPNOTSUPP);
    }
    t.remove(0, t.map.max_block().value);
    EXPECT_EQ(t.fs.owner->blocks, 0);
    EXPECT_TRUE(all_zero(t.fs.owner->i_block()));
    t.fs.judge();
}

// Whatever a node says, the map answers or names what is wrong.
void lie(const std::string& options, bool extents) {
    MapUnderTest t(options);
    for (unsigned i = 0; i < 3000; ++i) t.insert(2 * i, 1, extents && i % 3 == 0);
    std::mt19937 random(11);
    const std::vector<std::byte> root(t.fs.owner->i_block().begin(), t.fs.owner->i_block().end());
    const std::vector<BlockNr> nodes = t.tree_blocks();
    unsigned refused = 0;
    for (unsigned round = 0; round < 1500; ++round) {
        std::vector<std::pair<BufferRef, std::vector<std::byte>>> saved;
        for (unsigned n = 0; n < 1 + round % 3; ++n) {
            Bytes victim = t.fs.owner->i_block();
            if (random() % 4) {
                BufferRef buffer = must(t.fs.buffers->read(nodes[random() % nodes.size()], "test"));
                saved.emplace_back(buffer, std::vector<std::byte>(buffer->data().begin(), buffer->data().end()));
                victim = buffer->data();
            }
            const std::size_t reach = random() % 2 ? std::min<std::size_t>(victim.size(), 40) : victim.size();
            for (unsigned i = 0; i < 1 + random() % 4; ++i) {
                const auto value = random() % 3 ? random() : nodes[random() % nodes.size()].value;
                view_as<Le32>(victim, random() % (reach - 3)) = static_cast<std::uint32_t>(value);
            }
        }
        for (const BlockNr b : nodes) must(t.fs.buffers->read(b, "test"))->set_kind(BlockKind::unchecked);
        std::uint64_t seen = 0;
        const auto listed = t.map.for_each(LogicalBlock(0), [&](const MappedRun&) { return ++seen < 100000; });
        const auto walked = t.map.for_each_tree_block([](BlockNr) { return true; });
        const auto found = t.map.lookup(LogicalBlock(random() % 6000), 100);
        if (!listed || !walked || !found) ++refused;
        EXPECT_TRUE(listed || listed.error().code == EUCLEAN) << listed.error().what;
        for (auto& [buffer, bytes] : saved | std::views::reverse) std::ranges::copy(bytes, buffer->data().begin());
        std::ranges::copy(root, t.fs.owner->i_block().begin());
    }
    EXPECT_GT(refused, 100u);
    for (const BlockNr b : nodes) must(t.fs.buffers->read(b, "test"))->set_kind(BlockKind::unchecked);
    EXPECT_EQ(t.mapped(), 3000u);
}

TEST(MapLies, Extents) { lie("-t ext4 -b 1024 -O ^has_journal,^metadata_csum", true); }
TEST(MapLies, Indirect) { lie("-t ext4 -b 1024 -O ^has_journal,^extent,^64bit", false); }

// All pointers of a block name one block, down to zeros or to one block of data: 256 ^ 3 slots in three blocks.
TEST(MapLies, IndirectBlocksThatAreShared) {
    for (const bool zeros : {true, false}) {
        MapUnderTest t("-t ext4 -b 1024 -O ^has_journal,^extent,^64bit");
        t.insert(268 + 65536);
        const std::vector<BlockNr> nodes = t.tree_blocks();  // from the top
        ASSERT_EQ(nodes.size(), 3u);
        for (std::size_t n = 0; n < 3; ++n) {
            const BufferRef buffer = must(t.fs.buffers->read(nodes[n], "test"));
            const std::uint32_t below = n < 2 ? static_cast<std::uint32_t>(nodes[n + 1].value) : 0;
            for (unsigned i = n == 2 && !zeros; i < 256; ++i) view_as<Le32>(buffer->data(), i * 4) = below;
            buffer->set_kind(BlockKind::unchecked);
        }
        std::uint64_t seen = 0;
        const auto listed = t.map.for_each(LogicalBlock(0), [&](const MappedRun&) { return ++seen, true; });
        ASSERT_FALSE(listed);
        EXPECT_EQ(listed.error().code, EUCLEAN);
        EXPECT_EQ(listed.error().what, fmt::format("inode 12: indirect block {} is named twice", nodes[2]));
        EXPECT_EQ(seen, zeros ? 0u : 1u);
        // Who looks for the end of a hole.
        const auto hole = t.map.lookup(LogicalBlock(268 + 65536 + 1), std::uint64_t{1} << 40);
        EXPECT_EQ(hole ? 0 : hole.error().code, zeros ? EUCLEAN : 0);
        EXPECT_EQ(hole ? hole->count : 0u, zeros ? 0u : 255u);
    }
}

// Changes to a tree that lies end in an answer too. The bitmaps may suffer, the process may not.
void change_lies(const std::string& options, bool extents) {
    std::mt19937 random(5);
    for (unsigned round = 0; round < 24; ++round) {
        MapUnderTest t(options);
        for (unsigned i = 0; i < 700; ++i) t.insert(2 * i, 1, extents && i % 3 == 0);
        const std::vector<BlockNr> nodes = t.tree_blocks();
        for (unsigned n = 0; n < 3; ++n) {
            Bytes victim = t.fs.owner->i_block();
            if (random() % 4) victim = must(t.fs.buffers->read(nodes[random() % nodes.size()], "test"))->data();
            const auto value = random() % 3 ? random() % 65536 : nodes[random() % nodes.size()].value;
            view_as<Le32>(victim, random() % (victim.size() - 3)) = static_cast<std::uint32_t>(value);
        }
        for (const BlockNr b : nodes) must(t.fs.buffers->read(b, "test"))->set_kind(BlockKind::unchecked);
        for (unsigned n = 0; n < 40; ++n) {
            Handle handle = must(t.fs.journal->start(80));
            const LogicalBlock at(random() % 1500);
            std::uint64_t progress = 0;
            switch (random() % 5) {
                case 0: (void)t.map.remove(handle, at, at + random() % 100, nullptr); break;
                case 1: (void)t.map.set_unwritten(handle, at, 1 + random() % 20, random() % 2, nullptr); break;
                case 2: (void)t.map.insert(handle, {at, 1, BlockNr(40000), false}, nullptr, 0); break;
                case 3: (void)t.map.replace_block(handle, at, BlockNr(40001), nullptr); break;
                default: (void)t.map.shift(handle, at, static_cast<int>(random() % 40) - 20, progress);
            }
        }
        Handle handle = must(t.fs.journal->start(80));
        (void)t.map.remove(handle, LogicalBlock(0), t.map.max_block(), nullptr);
    }
}

TEST(MapLies, ChangedExtents) { change_lies("-t ext4 -b 1024 -O ^has_journal,^metadata_csum", true); }
TEST(MapLies, ChangedIndirect) { change_lies("-t ext4 -b 1024 -O ^has_journal,^extent,^64bit", false); }

TEST(MapLies, ChecksumsAreChecked) {
    MapUnderTest t(small_blocks);
    for (unsigned i = 0; i < 300; ++i) t.insert(2 * i);
    BufferRef node = must(t.fs.buffers->read(t.tree_blocks().back(), "test"));
    node->data()[1023] ^= std::byte{1};
    node->set_kind(BlockKind::unchecked);
    const auto listed = t.map.for_each(LogicalBlock(0), [](const MappedRun&) { return true; });
    ASSERT_FALSE(listed);
    EXPECT_EQ(listed.error().code, EUCLEAN);
    EXPECT_NE(listed.error().what.find("et_checksum"), std::string::npos);
    EXPECT_EQ(t.fs.owner->damages, 1u);
}

}  // namespace
}  // namespace uext4::test
