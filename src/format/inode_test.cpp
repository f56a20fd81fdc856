// Inodes of real images, judged by debugfs; times, sizes and device numbers at their limits.
#include "tests/fixtures/format_image.h"

#include "format/checksum.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cstring>
#include <random>

namespace uext4::format {
namespace {

class Inodes : public testing::TestWithParam<const char*> {};

TEST_P(Inodes, OfRealImages) {
    TestImage image(GetParam());
    std::ofstream(image.folder() + "/data") << std::string(5000, 'x');
    image.change("write " + image.folder() +
                 "/data file\nmkdir folder\nsymlink link target\nmknod pipe p\nmknod disk b 8 17");
    const Geometry& g = image.geometry();
    for (const char* name : {"/", "file", "folder", "link", "pipe", "disk", "<8>"}) {
        const InodeNr n = image.number_of(name);
        ASSERT_TRUE(n) << name;
        const Bytes raw = image.inode(n);
        EXPECT_TRUE(inode_checksum_ok(g, n, raw)) << name;
        const auto valid = validate_inode(g, n, raw);
        EXPECT_TRUE(valid) << valid.error().what;
        const std::vector<std::byte> before(raw.begin(), raw.end());
        set_inode_checksum(g, n, raw);
        EXPECT_TRUE(std::equal(raw.begin(), raw.end(), before.begin())) << "what is right stays as it is";
        if (!g.metadata_csum()) continue;
        EXPECT_FALSE(inode_checksum_ok(g, n + 1, raw)) << "the inode's number is part of the sum";
        for (std::size_t i = 0; i < raw.size(); ++i) {
            raw[i] ^= std::byte{0x40};
            EXPECT_FALSE(inode_checksum_ok(g, n, raw)) << name << ", byte " << i;
            raw[i] ^= std::byte{0x40};
        }
    }
    const InodeNr file = image.number_of("file");
    InodeDisk disk{};
    std::memcpy(&disk, image.inode(file).data(), std::min<std::size_t>(sizeof disk, g.inode_size));
    EXPECT_EQ(inode_size_bytes(g, disk), 5000u);
    EXPECT_EQ(file_type_of_mode(disk.mode), FileType::regular);
    std::memcpy(&disk, image.inode(image.number_of("disk")).data(), 128);
    EXPECT_EQ(decode_device(disk), makedev(8, 17));
}

INSTANTIATE_TEST_SUITE_P(Shapes, Inodes,
                         testing::Values("-t ext4 -O metadata_csum", "-t ext4 -I 128 -O metadata_csum",
                                         "-t ext4 -I 512 -O metadata_csum",
                                         "-t ext4 -b 1024 -I 1024 -O metadata_csum,inline_data", "-t ext2",
                                         "-t ext4 -O metadata_csum,metadata_csum_seed"));

TEST(InodeTimes, AreWhatTheJudgeReads) {
    TestImage image("-t ext4 -O metadata_csum");
    const Geometry& g = image.geometry();
    const InodeNr root(2);
    for (const std::int64_t sec :
         {std::int64_t{-0x80000000ll}, std::int64_t{-1}, std::int64_t{0}, std::int64_t{0x7fffffff},
          std::int64_t{0x80000000}, std::int64_t{0xffffffff}, std::int64_t{0x100000000}, std::int64_t{0x17fffffff},
          std::int64_t{0x180000000}, std::int64_t{0x37fffffff}}) {
        auto& disk = view_as<InodeDisk>(image.inode(root));
        encode_time({sec, 123456789}, disk.mtime, &disk.mtime_extra);
        set_inode_checksum(g, root, image.inode(root));
        // The first and the last second have no fractions, as in Linux.
        const bool ends = sec == -0x80000000ll || sec == 0x37fffffff;
        EXPECT_EQ(decode_time(disk.mtime, &disk.mtime_extra), (Timestamp{sec, ends ? 0u : 123456789u}));
        std::ofstream(image.path(), std::ios::binary | std::ios::in)
            .seekp(reinterpret_cast<const char*>(image.inode(root).data()) -
                   reinterpret_cast<const char*>(&image.super()) + 1024)
            .write(reinterpret_cast<const char*>(image.inode(root).data()), g.inode_size);
        const std::string told = image.ask("stat /");
        std::time_t t = sec;
        std::tm parts{};
        gmtime_r(&t, &parts);
        EXPECT_NE(
            told.find(fmt::format("mtime: {:#010x}:{:08x}", static_cast<std::uint32_t>(sec), disk.mtime_extra.get())),
            std::string::npos)
            << told;
        EXPECT_NE(told.find(fmt::format(" {}\n", parts.tm_year + 1900), told.find("mtime")), std::string::npos)
            << sec << told;
    }
}

TEST(InodeTimes, AreClamped) {
    Le32 seconds(0), extra(0);
    encode_time({std::int64_t{1} << 40, 5}, seconds, &extra);
    EXPECT_EQ(decode_time(seconds, &extra).sec, 0x37fffffff);
    encode_time({-(std::int64_t{1} << 40), 5}, seconds, &extra);
    EXPECT_EQ(decode_time(seconds, &extra).sec, -0x80000000ll);
    encode_time({0x80000000ll, 5}, seconds, nullptr);
    EXPECT_EQ(decode_time(seconds, nullptr), (Timestamp{0x7fffffff, 0}));
    extra = 0xFFFFFFFFu;  // nanoseconds beyond a second
    EXPECT_EQ(decode_time(0, &extra).nsec, 999999999u);
}

TEST(InodeFields, SectorsSizesAndDevices) {
    Geometry g;
    g.block_size = 4096;
    g.block_bits = 12;
    g.ro_compat = ro_compat::huge_file;
    InodeDisk inode{};
    for (const std::uint64_t sectors :
         {0ull, 8ull, 0xFFFFFFFFull, 0x100000000ull, 0xFFFFFFFFFFFFull, 0x1000000000000ull}) {
        set_inode_sectors(g, inode, sectors);
        EXPECT_EQ(inode_sectors(g, inode), sectors);
        EXPECT_EQ((inode.flags & inode_flag::huge_file) != 0, sectors >> 48 != 0);
    }
    inode.mode = S_IFREG | 0600;
    for (const std::uint64_t size : {0ull, 0xFFFFFFFFull, 0x100000000ull, 0xFFFFFFFF000ull}) {
        set_inode_size_bytes(inode, size);
        EXPECT_EQ(inode_size_bytes(g, inode), size);
    }
    for (const dev_t dev : {makedev(0, 1), makedev(8, 255), makedev(8, 256), makedev(256, 0), makedev(4095, 0xFFFFF)}) {
        encode_device(inode, dev);
        EXPECT_EQ(decode_device(inode), dev);
    }
}

TEST(InodeDamage, IsNamed) {
    TestImage image("-t ext4");
    const Geometry& g = image.geometry();
    const InodeNr n(12);
    const auto refused = [&](const char* field, auto damage) {
        std::vector<std::byte> raw(g.inode_size);
        view_as<InodeDisk>(Bytes(raw)).mode = S_IFREG | 0644;
        view_as<InodeDisk>(Bytes(raw)).extra_isize = 32;
        EXPECT_TRUE(validate_inode(g, n, raw));
        damage(view_as<InodeDisk>(Bytes(raw)));
        const auto result = validate_inode(g, n, raw);
        ASSERT_FALSE(result) << field;
        EXPECT_EQ(result.error().code, EUCLEAN);
        EXPECT_NE(result.error().what.find("inode 12"), std::string::npos);
        EXPECT_NE(result.error().what.find(field), std::string::npos) << result.error().what;
    };
    refused("i_extra_isize", [](InodeDisk& i) { i.extra_isize = 132; });
    refused("i_extra_isize", [](InodeDisk& i) { i.extra_isize = 30; });
    refused("i_mode", [](InodeDisk& i) { i.mode = 0x3000; });
    refused("i_size", [](InodeDisk& i) { i.size_hi = 0x80000000; });
    refused("i_file_acl", [](InodeDisk& i) { i.file_acl_hi = 1; });
    refused("i_file_acl", [&](InodeDisk& i) { i.file_acl_lo = static_cast<std::uint32_t>(g.blocks_count); });
}

TEST(InodeDamage, RandomBytesAreSurvived) {
    TestImage image("-t ext4 -b 1024 -O metadata_csum,inline_data,64bit");
    std::mt19937 random(2);
    for (int round = 0; round < 20000; ++round) {
        std::vector<std::byte> raw(round % 2 ? 256 : 128);
        for (auto& b : raw) b = static_cast<std::byte>(random());
        (void)validate_inode(image.geometry(), InodeNr(20), raw);
        set_inode_checksum(image.geometry(), InodeNr(20), raw);
        EXPECT_TRUE(inode_checksum_ok(image.geometry(), InodeNr(20), raw));
    }
}

}  // namespace
}  // namespace uext4::format
