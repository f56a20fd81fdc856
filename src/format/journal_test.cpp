// Journals, orphan files and multiple-mount protection, as e2fsprogs writes them.
#include "format/journal.h"

#include "format/checksum.h"
#include "format/describe.h"
#include "format/orphan.h"
#include "tests/fixtures/format_image.h"

#include <cstring>
#include <random>

namespace uext4::format {
namespace {

struct Log {
    const char* features;
    const char* journal;  // of debugfs' journal_open
    std::uint32_t tag_bytes;
};

class Journals : public testing::TestWithParam<Log> {};

TEST_P(Journals, OfTheJudgeAreUnderstood) {
    TestImage image(fmt::format("-t ext4 -b 1024 -O {}", GetParam().features));
    std::string data(3072, 'd');
    std::memcpy(data.data() + 1024, "\xC0\x3B\x39\x98", 4);  // has to be escaped
    std::ofstream(image.folder() + "/data") << data;
    image.change(fmt::format("jo {}\njw -b 5000-5002 {}/data\njc\njo {}\njw -r 6000-6004\njc", GetParam().journal,
                             image.folder(), GetParam().journal));
    const auto log_block = [&](std::uint64_t n) { return image.block(image.block_of("<8>", n)); };
    const auto& super = view_as<JournalSuper>(log_block(0));
    const auto parsed = parse_journal_super(super, 1024, 4096);
    ASSERT_TRUE(parsed) << parsed.error().what;
    const JournalLayout& layout = *parsed;
    EXPECT_EQ(layout.tag_bytes(), GetParam().tag_bytes);
    ASSERT_NE(layout.start, 0u);
    EXPECT_EQ(layout.length, 4096u);
    const std::uint32_t sequence = layout.sequence;

    const Bytes descriptor = log_block(layout.start);
    const auto& header = view_as<JournalHeader>(descriptor);
    ASSERT_EQ(header.magic, journal::magic);
    ASSERT_EQ(header.blocktype, journal::descriptor);
    EXPECT_EQ(header.sequence, sequence);
    EXPECT_TRUE(journal_block_checksum_ok(layout, descriptor));
    std::vector<std::byte> before(descriptor.begin(), descriptor.end());
    set_journal_block_checksum(layout, descriptor);
    EXPECT_TRUE(std::equal(descriptor.begin(), descriptor.end(), before.begin()));
    std::size_t at = sizeof(JournalHeader);
    for (std::uint32_t i = 0; i < 3; ++i) {
        const ConstBytes contents = log_block(layout.start + 1 + i);
        const std::uint32_t sum = journal_data_checksum(layout, sequence, contents);
        std::uint32_t home = 0, flags = 0;
        if (layout.csum_v3()) {
            const auto& tag = view_as<JournalTag3>(descriptor, at);
            home = tag.blocknr;
            flags = tag.flags;
            EXPECT_EQ(tag.checksum, sum);
        } else {
            home = view_as<Be32>(descriptor, at);
            flags = view_as<Be16>(descriptor, at + 6);
            if (layout.csum_v2()) {
                EXPECT_EQ(view_as<Be16>(descriptor, at + 4), sum & 0xFFFF);
            }
        }
        EXPECT_EQ(home, 5000 + i);
        EXPECT_EQ((flags & journal::tag_escape) != 0, i == 1);
        EXPECT_EQ((flags & journal::tag_last) != 0, i == 2);
        at += layout.tag_bytes() + (flags & journal::tag_same_uuid ? 0 : 16);
    }
    const Bytes commit = log_block(layout.start + 4);
    const auto& record = view_as<JournalCommit>(commit);
    EXPECT_EQ(record.header.blocktype, journal::commit);
    if (layout.tail_bytes()) {
        EXPECT_EQ(record.checksum[0], journal_commit_checksum(layout, commit));
    }

    const Bytes revoke = log_block(layout.start + 5);
    const auto& revoked = view_as<JournalRevokeHeader>(revoke);
    ASSERT_EQ(revoked.header.blocktype, journal::revoke);
    EXPECT_EQ(revoked.count, sizeof(JournalRevokeHeader) + 5u * (layout.wide() ? 8 : 4));
    EXPECT_TRUE(journal_block_checksum_ok(layout, revoke));
    if (layout.tail_bytes()) {
        revoke[20] ^= std::byte{1};
        EXPECT_FALSE(journal_block_checksum_ok(layout, revoke));
    }
}

INSTANTIATE_TEST_SUITE_P(Versions, Journals,
                         testing::Values(Log{"^64bit,^metadata_csum", "", 8}, Log{"64bit,^metadata_csum", "", 12},
                                         Log{"^64bit,metadata_csum", "-c -v 2", 10},
                                         Log{"64bit,metadata_csum", "-c -v 2", 14},
                                         Log{"^64bit,metadata_csum", "-c -v 3", 16},
                                         Log{"64bit,metadata_csum", "-c -v 3", 16}));

JournalSuper good_super() {
    JournalSuper s{};
    s.header.magic = journal::magic;
    s.header.blocktype = journal::super_v2;
    s.blocksize = 1024u;
    s.maxlen = 1024u;
    s.first = 1u;
    s.sequence = 7u;
    s.start = 5u;
    return s;
}

TEST(JournalDamage, IsNamed) {
    const auto refused = [](const char* field, auto damage) {
        JournalSuper s = good_super();
        ASSERT_TRUE(parse_journal_super(s, 1024, 1024));
        damage(s);
        const auto result = parse_journal_super(s, 1024, 1024);
        ASSERT_FALSE(result) << field;
        EXPECT_TRUE(result.error().what.starts_with("journal superblock")) << result.error().what;
        EXPECT_NE(result.error().what.find(field), std::string::npos) << result.error().what;
    };
    refused("h_magic", [](JournalSuper& s) { s.header.magic = 0u; });
    refused("h_blocktype", [](JournalSuper& s) { s.header.blocktype = 5u; });
    refused("s_blocksize", [](JournalSuper& s) { s.blocksize = 4096u; });
    refused("s_maxlen", [](JournalSuper& s) { s.maxlen = 1025u; });
    refused("s_maxlen", [](JournalSuper& s) { s.maxlen = 0u; });
    refused("s_first", [](JournalSuper& s) { s.first = 0u; });
    refused("s_first", [](JournalSuper& s) { s.first = 1024u; });
    refused("s_start", [](JournalSuper& s) { s.start = 1024u; });
    refused("s_start", [](JournalSuper& s) { s.first = 6u; });
    refused("features", [](JournalSuper& s) { s.feature_incompat = 0x80u; });
    refused("features", [](JournalSuper& s) { s.feature_ro_compat = 1u; });
    refused("s_checksum_type", [](JournalSuper& s) { s.feature_incompat = journal::incompat_csum_v3; });
    refused("s_checksum", [](JournalSuper& s) {
        s.feature_incompat = journal::incompat_csum_v3;
        s.checksum_type = journal::checksum_crc32c;
        s.checksum = journal_super_checksum(s) + 1;
    });
    refused("s_feature_incompat",
            [](JournalSuper& s) { s.feature_incompat = journal::incompat_csum_v3 | journal::incompat_csum_v2; });
    refused("s_num_fc_blks", [](JournalSuper& s) {
        s.feature_incompat = journal::incompat_fast_commit;
        s.num_fc_blocks = 0xFFFFFFFFu;
    });
    refused("s_start", [](JournalSuper& s) {
        s.feature_incompat = journal::incompat_fast_commit;
        s.start = 1024u - journal::default_fast_commit_blocks;
    });
}

TEST(JournalDamage, RandomSuperblocksAreSurvived) {
    std::mt19937_64 random(8);
    for (int round = 0; round < 100000; ++round) {
        JournalSuper s = good_super();
        const auto fields = fields_of(Structure::journal_super);
        for (unsigned n = 1 + random() % 3; n-- > 0;) {
            const FieldDescription& f = fields[random() % fields.size()];
            if (f.kind == FieldKind::bytes) continue;
            const std::uint64_t value = random() >> random() % 64;
            std::memcpy(reinterpret_cast<std::byte*>(&s) + f.offset, &value, f.size);
        }
        const auto layout = parse_journal_super(s, 1024, random() % 2000);
        if (!layout) continue;
        EXPECT_LT(layout->first, layout->ring_end());
        EXPECT_LE(layout->ring_end(), layout->length);
        EXPECT_TRUE(layout->start == 0 || (layout->start >= layout->first && layout->start < layout->ring_end()));
    }
}

TEST(OrphanFile, BlocksOfTheJudge) {
    for (const char* options :
         {"-t ext4 -b 1024 -O orphan_file,metadata_csum", "-t ext4 -b 4096 -O orphan_file,^metadata_csum"}) {
        TestImage image(options);
        const Geometry& g = image.geometry();
        ASSERT_NE(g.orphan_file_inode, 0u);
        const InodeNr n(g.orphan_file_inode);
        const auto& disk = view_as<InodeDisk>(image.inode(n));
        const std::uint64_t blocks = inode_size_bytes(g, disk) / g.block_size;
        ASSERT_GT(blocks, 0u);
        for (std::uint64_t i = 0; i < std::min<std::uint64_t>(blocks, 8); ++i) {
            const BlockNr nr = image.block_of(fmt::format("<{}>", n), i);
            const Bytes block = image.block(nr);
            EXPECT_TRUE(orphan_block_ok(g, image.seed_of(n), nr, block)) << i;
            const std::vector<std::byte> before(block.begin(), block.end());
            set_orphan_checksum(g, image.seed_of(n), nr, block);
            EXPECT_TRUE(std::equal(block.begin(), block.end(), before.begin()));
            EXPECT_EQ(orphan_block_ok(g, image.seed_of(n), nr + 1, block), !g.metadata_csum());
            view_as<OrphanTail>(block, g.block_size - sizeof(OrphanTail)).magic = 0u;
            EXPECT_FALSE(orphan_block_ok(g, image.seed_of(n), nr, block));
        }
    }
}

TEST(MultipleMount, BlockOfTheJudge) {
    TestImage image("-t ext4 -b 1024 -O mmp,metadata_csum");
    const Geometry& g = image.geometry();
    auto& mmp = view_as<MmpBlock>(image.block(BlockNr(g.mmp_block)));
    EXPECT_EQ(mmp.magic, mmp_magic);
    EXPECT_EQ(mmp.sequence, mmp_clean);
    EXPECT_TRUE(mmp_checksum_ok(g, mmp));
    const std::uint32_t before = mmp.checksum;
    set_mmp_checksum(g, mmp);
    EXPECT_EQ(mmp.checksum, before);
    mmp.sequence = 5u;
    EXPECT_FALSE(mmp_checksum_ok(g, mmp));
}

}  // namespace
}  // namespace uext4::format
