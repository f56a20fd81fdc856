// Which fast commits the area behind the ring holds: finished ones only, up to the first that lies about its form.
#include "journal/fast_commit.h"
#include "journal/log_reader.h"
#include "tests/fixtures/fast_commit_fixture.h"
#include "tests/fixtures/log_fixture.h"

#include <functional>

namespace uext4::test {
namespace {

constexpr std::uint32_t area_blocks = 32, tid = 7;

// A log with an area, and what is read of it.
struct Area {
    LogShape shape;
    std::shared_ptr<MemoryDevice> device;

    explicit Area(std::uint32_t blocks = area_blocks) : device(make_log(shape)) {
        auto super = super_of(*device, shape);
        super.feature_incompat = super.feature_incompat | j::incompat_fast_commit;
        super.num_fc_blocks = blocks;
        super.start = 1u;
        super.sequence = tid;
        super.checksum = format::journal_super_checksum(super);
        EXPECT_TRUE(device->write(log_place(shape, 0).value * shape.block_size, bytes_of(super)));
        first = shape.log_blocks - blocks + 1;
    }
    void put(ConstBytes bytes) {
        for (std::size_t at = 0; at < bytes.size(); at += shape.block_size)
            EXPECT_TRUE(device->write(
                log_place(shape, first + static_cast<std::uint32_t>(at / shape.block_size)).value * shape.block_size,
                bytes.subspan(at, std::min<std::size_t>(shape.block_size, bytes.size() - at))));
    }
    Result<FastCommits> try_to_read() {
        const LogReader log = TRY(LogReader::open(*device, shape.block_size, log_runs(shape)));
        return read_fast_commits(log, tid, shape.block_size);
    }
    FastCommits read() {
        auto found = try_to_read();
        EXPECT_TRUE(found) << found.error().what;
        return found ? std::move(*found) : FastCommits{};
    }
    std::uint32_t first;
};

FastCommits read_of(const std::function<void(FastCommitWriter&)>& write) {
    Area area;
    FastCommitWriter writer(area.shape.block_size, tid);
    write(writer);
    area.put(writer.bytes());
    return area.read();
}

const std::vector<std::byte> raw(160, std::byte{3});

TEST(FastCommit, EveryTagIsRead) {
    const FastCommits found = read_of([](FastCommitWriter& w) {
        w.inode(12, raw);
        w.add_range(12, 5, 6, (std::uint64_t{9} << 32) | 1000);
        w.add_range(12, 50, 32768 + 7, 2000);
        w.add_range(12, 90, 32768, 3000);
        w.delete_range(12, 100, 0x7FFFFFFF);
        w.name(format::fc_create, 2, 12, "new");
        w.name(format::fc_link, 2, 12, std::string(255, 'l'));
        w.name(format::fc_unlink, 2, 12, "old");
        w.commit();
    });
    EXPECT_EQ(found.commits, 1u);
    EXPECT_EQ(found.tid, tid);
    ASSERT_EQ(found.operations.size(), 8u);
    const auto& o = found.operations;
    EXPECT_EQ(o[0].contents, raw);
    EXPECT_EQ(o[1].physical, BlockNr((std::uint64_t{9} << 32) | 1000));
    EXPECT_EQ(o[1].logical, LogicalBlock(5));
    EXPECT_EQ(o[1].count, 6u);
    EXPECT_FALSE(o[1].unwritten);
    EXPECT_EQ(o[2].count, 7u);
    EXPECT_TRUE(o[2].unwritten);
    EXPECT_EQ(o[3].count, 32768u);
    EXPECT_FALSE(o[3].unwritten);
    EXPECT_EQ(o[4].count, 0x7FFFFFFFu);
    EXPECT_EQ(o[5].name, "new");
    EXPECT_EQ(o[5].parent, InodeNr(2));
    EXPECT_EQ(o[6].name.size(), 255u);
    EXPECT_EQ(o[7].type, format::fc_unlink);
    EXPECT_EQ(o[7].describe(), "journal: block 993: fast commit tag at 538 (unlink, inode 12)");
}

TEST(FastCommit, CommitsOfSeveralBlocksAndSeveralCommits) {
    const FastCommits found = read_of([](FastCommitWriter& w) {
        for (std::uint32_t commit = 0; commit < 3; ++commit) {
            for (std::uint32_t n = 0; n < 17; ++n) w.inode(12 + n, raw);
            w.commit();
        }
    });
    EXPECT_EQ(found.commits, 3u);
    EXPECT_EQ(found.operations.size(), 51u);
    EXPECT_EQ(found.operations.back().inode, InodeNr(28));
}

// What is left over of a block is too short for a tag: 1, 2 and 3 bytes, and padding of no length.
TEST(FastCommit, BlocksFilledToTheirLastBytes) {
    for (std::size_t rest = 0; rest <= 4; ++rest) {
        const FastCommits found = read_of([&](FastCommitWriter& w) {
            w.name(format::fc_link, 2, 12, "some");
            const std::size_t used = w.bytes().size();
            w.inode(12, std::vector<std::byte>(1024 - used - 8 - rest, std::byte{1}));
            EXPECT_EQ(w.bytes().size(), 1024 - rest);
            w.name(format::fc_unlink, 2, 12, "other");
            w.commit();
        });
        EXPECT_EQ(found.commits, 1u) << rest;
        EXPECT_EQ(found.operations.size(), 3u) << rest;
    }
}

TEST(FastCommit, NoneWithoutAHeadOfThisTransaction) {
    EXPECT_FALSE(Area().read().any());
    Area area;
    for (const std::uint32_t other : {tid - 1, tid + 1}) {
        FastCommitWriter writer(area.shape.block_size, other);
        writer.inode(12, raw);
        writer.commit(tid);
        area.put(writer.bytes());
        EXPECT_FALSE(area.read().any()) << other;
    }
    EXPECT_FALSE(read_of([](FastCommitWriter& w) { w.inode(12, raw); }).any());  // no tail
    EXPECT_FALSE(read_of([](FastCommitWriter& w) {
                     w.bytes().clear();
                     w.inode(12, raw);
                     w.commit();
                 }).any());
}

TEST(FastCommit, FeaturesThatNobodyKnowsAreRefused) {
    for (const bool behind_others : {false, true}) {
        Area area;
        FastCommitWriter writer(area.shape.block_size, tid);
        if (behind_others) {
            writer.inode(12, raw);
            writer.commit();
        }
        writer.head(tid, 0x80000001);
        writer.inode(12, raw);
        writer.commit();
        area.put(writer.bytes());
        const auto found = area.try_to_read();
        ASSERT_FALSE(found);
        EXPECT_EQ(found.error().code, EOPNOTSUPP);
        EXPECT_NE(found.error().what.find("0x80000001"), std::string::npos) << found.error().what;
    }
}

// After a sound commit: what is read ends with it.
TEST(FastCommit, ADamagedCommitEndsWhatIsRead) {
    const std::vector<std::pair<const char*, std::function<void(FastCommitWriter&)>>> damages = {
        {"wrong sum", [](FastCommitWriter& w) { w.commit(tid, 1); }},
        {"tail of another transaction", [](FastCommitWriter& w) { w.commit(tid - 1); }},
        {"short tail", [](FastCommitWriter& w) { w.put(format::fc_tail, {tid}); }},
        {"tag 0",
         [](FastCommitWriter& w) {
             w.put(0, {1});
             w.commit();
         }},
        {"tag 10",
         [](FastCommitWriter& w) {
             w.put(10, {1});
             w.commit();
         }},
        {"tag 65535",
         [](FastCommitWriter& w) {
             w.put(65535, {1});
             w.commit();
         }},
        {"short range",
         [](FastCommitWriter& w) {
             w.put(format::fc_add_range, {12, 0, 1});
             w.commit();
         }},
        {"long range",
         [](FastCommitWriter& w) {
             w.put(format::fc_delete_range, {12, 0, 1, 4});
             w.commit();
         }},
        {"no name",
         [](FastCommitWriter& w) {
             w.name(format::fc_create, 2, 12, "");
             w.commit();
         }},
        {"name of 256",
         [](FastCommitWriter& w) {
             w.name(format::fc_create, 2, 12, std::string(256, 'a'));
             w.commit();
         }},
        {"name without inode",
         [](FastCommitWriter& w) {
             w.put(format::fc_unlink, {2});
             w.commit();
         }},
        {"inode of 127",
         [](FastCommitWriter& w) {
             w.inode(12, ConstBytes(raw).first(127));
             w.commit();
         }},
        {"length beyond the block",
         [](FastCommitWriter& w) {
             view_as<Le16>(Bytes(w.bytes()), w.bytes().size() - raw.size() - 6) = std::uint16_t{1000};
             w.commit();
         }},
    };
    for (const auto& [what, damage] : damages) {
        const FastCommits found = read_of([&](FastCommitWriter& w) {
            w.name(format::fc_link, 2, 12, "kept");
            w.commit();
            w.inode(13, raw);
            damage(w);
            w.name(format::fc_link, 2, 12, "behind");
            w.commit();
        });
        EXPECT_EQ(found.commits, 1u) << what;
        EXPECT_EQ(found.operations.size(), 1u) << what;
    }
}

TEST(FastCommit, EveryFlippedBitEndsWhatIsRead) {
    Area area;
    FastCommitWriter writer(area.shape.block_size, tid);
    writer.inode(12, raw);
    writer.name(format::fc_create, 2, 12, "name");
    const std::size_t summed = writer.bytes().size() + 12;  // and what follows in the tail means nothing
    writer.commit();
    for (std::size_t at = 0; at < summed; ++at)
        for (const unsigned bit : {0u, 3u, 7u}) {
            std::vector<std::byte> bytes = writer.bytes();
            bytes[at] ^= std::byte(1u << bit);
            area.put(bytes);
            constexpr std::size_t features = 4;  // of the head: these are refused
            const auto found = area.try_to_read();
            if (at >= features && at < features + 4) {
                EXPECT_FALSE(found) << at;
            } else {
                EXPECT_TRUE(found && !found->any()) << at;
            }
        }
    area.put(writer.bytes());
    EXPECT_TRUE(area.read().any());
}

TEST(FastCommit, AFullAreaEnds) {
    Area area(9);  // the first of them is not used
    FastCommitWriter writer(area.shape.block_size, tid);
    for (int commit = 0; commit < 8; ++commit) {
        writer.inode(12, raw);
        writer.commit();
    }
    ASSERT_EQ(writer.bytes().size(), 8u * 1024);
    area.put(writer.bytes());
    EXPECT_EQ(area.read().commits, 8u);
    // Without a tail to its end.
    FastCommitWriter endless(area.shape.block_size, tid);
    while (endless.bytes().size() < 8u * 1024 - 300) endless.inode(12, raw);
    area.put(endless.bytes());
    EXPECT_FALSE(area.read().any());
}

}  // namespace
}  // namespace uext4::test
