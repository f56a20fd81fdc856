// Hashes and checksums of directories, judged by debugfs and by the indexes that e2fsck builds.
#include "format/directory.h"

#include "format/dir_hash.h"
#include "tests/fixtures/format_image.h"

#include <random>

namespace uext4::format {
namespace {

TEST(DirectoryHash, IsTheJudges) {
    TestImage image("-t ext4");
    struct Seed {
        const char* text;
        std::array<std::uint32_t, 4> words;
    };
    const Seed seeds[] = {
        {"", {}}, {"-s 00112233-4455-6677-8899-aabbccddeeff ", {0x33221100, 0x77665544, 0xbbaa9988, 0xffeeddcc}}};
    std::vector<std::string> names = {"a",
                                      "hello",
                                      "h\xC3\xA4\xC3\xA9",
                                      "\xFF\xFE\x80",
                                      "0123456789abcdef",
                                      "0123456789abcdef0",
                                      "0123456789abcdef0123456789abcde",
                                      "0123456789abcdef0123456789abcdef",
                                      "0123456789abcdef0123456789abcdef!",
                                      std::string(255, 'z'),
                                      std::string(64, '\xE9')};
    std::mt19937 random(3);
    for (int n = 0; n < 30; ++n) {
        std::string name(1 + random() % 200, 0);
        for (char& c : name) {
            do c = static_cast<char>(33 + random() % 220);
            while (c == '\'' || c == '"' || c == '/' || c == '\\' || c == '-' || c == 127);
        }
        names.push_back(name);
    }
    for (unsigned version = 0; version <= 5; ++version) {
        for (const Seed& seed : seeds) {
            std::string requests;
            for (const std::string& name : names)
                requests += fmt::format("dx_hash -h {} {}{}\n", version, seed.text, name);
            std::ofstream(image.folder() + "/requests") << requests;
            std::istringstream told(output_of(
                fmt::format("debugfs -f {}/requests {} 2>&1 | grep -a '^Hash of'", image.folder(), image.path())));
            for (const std::string& name : names) {
                std::string line;
                ASSERT_TRUE(std::getline(told, line)) << name;
                const auto hash = dir_hash(name, static_cast<HashVersion>(version), seed.words);
                ASSERT_TRUE(hash);
                EXPECT_EQ(line, fmt::format("Hash of {} is {:#x} (minor {:#x})", name, hash->major, hash->minor))
                    << version;
            }
        }
    }
    EXPECT_FALSE(dir_hash("x", HashVersion::siphash, {}));
    EXPECT_EQ(signed_or_not(1, true), HashVersion::half_md4_unsigned);
    EXPECT_EQ(signed_or_not(2, false), HashVersion::tea);
    EXPECT_EQ(signed_or_not(6, true), HashVersion::siphash);
}

TEST(DirectoryRecords, LengthsOf64KiBBlocks) {
    for (std::uint32_t length = 12; length <= 65536; length += 4)
        EXPECT_EQ(decode_rec_len(encode_rec_len(length, 65536), 65536), length);
    EXPECT_EQ(decode_rec_len(0, 65536), 65536u);
    for (std::uint32_t length = 12; length <= 32768; length += 4)
        EXPECT_EQ(decode_rec_len(encode_rec_len(length, 32768), 32768), length);
}

// Sorts a directory of many names into an index by e2fsck, then looks at each of its blocks.
void look_at_index(const char* options, unsigned names, unsigned want_levels) {
    TestImage image(options, "128M");
    std::string requests = "mkdir d\ncd d\n";
    for (unsigned n = 0; n < names; ++n) requests += fmt::format("symlink name_{:0>{}} target\n", n, 40 + n % 150);
    image.change(requests);
    // 1 is e2fsck's word for "changed".
    image.run(fmt::format("sh -c 'e2fsck -fyD {} 2>&1; test $? -le 1'", image.path()));
    image.load();
    const Geometry& g = image.geometry();
    const InodeNr d = image.number_of("d");
    const std::uint32_t seed = image.seed_of(d);
    const auto& disk = view_as<InodeDisk>(image.inode(d));
    ASSERT_TRUE(disk.flags & inode_flag::index);
    const std::uint64_t blocks = inode_size_bytes(g, disk) / g.block_size;
    unsigned leaves = 0, nodes = 0;
    for (std::uint64_t n = 0; n < blocks; ++n) {
        const Bytes block = image.block(image.block_of("d", n));
        const std::vector<std::byte> before(block.begin(), block.end());
        const auto& entry = view_as<DirEntryDisk>(block);
        if (n == 0) {
            EXPECT_EQ(std::to_integer<unsigned>(block[30]), want_levels);
            EXPECT_TRUE(dir_index_checksum_ok(g, seed, block, 32));
            set_dir_index_checksum(g, seed, block, 32);
        } else if (entry.inode == 0 && decode_rec_len(entry.rec_len, g.block_size) == g.block_size &&
                   view_as<Le16>(block, 8) != 0) {
            ++nodes;
            EXPECT_TRUE(dir_index_checksum_ok(g, seed, block, 8)) << "block " << n;
            set_dir_index_checksum(g, seed, block, 8);
        } else {
            ++leaves;
            EXPECT_TRUE(dir_leaf_checksum_ok(g, seed, block)) << "block " << n;
            EXPECT_EQ(dir_tail_present(block), g.metadata_csum());
            set_dir_leaf_checksum(g, seed, block);
        }
        EXPECT_TRUE(std::equal(block.begin(), block.end(), before.begin()))
            << "what is right stays as it is, block " << n;
        if (!g.metadata_csum()) continue;
        block[n == 0 ? 28 : 9] ^= std::byte{1};
        EXPECT_FALSE(n == 0 ? dir_index_checksum_ok(g, seed, block, 32) : dir_leaf_checksum_ok(g, seed, block))
            << "block " << n;
    }
    EXPECT_GT(leaves, 2u);
    EXPECT_EQ(nodes > 0, want_levels > 0);
}

TEST(DirectoryChecksums, OfAnIndex) { look_at_index("-t ext4 -b 4096 -O metadata_csum", 600, 0); }
TEST(DirectoryChecksums, OfADeepIndex) { look_at_index("-t ext4 -b 1024 -O metadata_csum", 2500, 1); }
TEST(DirectoryChecksums, AreNotThereWithoutTheFeature) { look_at_index("-t ext4 -b 1024 -O ^metadata_csum", 200, 0); }

TEST(DirectoryDamage, IndexThatPointsOutOfItsBlockIsRefused) {
    Geometry g;
    g.block_size = 1024;
    g.ro_compat = ro_compat::metadata_csum;
    std::vector<std::byte> block(1024);
    for (const auto& [limit, count] :
         {std::pair{0xFFFF, 1}, std::pair{124, 1}, std::pair{5, 6}, std::pair{0xFFFF, 0xFFFF}}) {
        view_as<Le16>(Bytes(block), 32) = static_cast<std::uint16_t>(limit);
        view_as<Le16>(Bytes(block), 34) = static_cast<std::uint16_t>(count);
        EXPECT_FALSE(dir_index_checksum_ok(g, 1, block, 32));
        set_dir_index_checksum(g, 1, block, 32);
    }
    EXPECT_FALSE(dir_leaf_checksum_ok(g, 1, block)) << "a leaf without its tail";
}

}  // namespace
}  // namespace uext4::format
