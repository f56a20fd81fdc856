// Superblocks, group descriptors and bitmaps of real images, judged by dumpe2fs; absurd superblocks are refused.
#include "format/describe.h"
#include "tests/fixtures/format_image.h"

#include <cstring>
#include <map>
#include <random>

namespace uext4::format {
namespace {

struct Shape {
    const char* options;
    const char* size;
};

class Superblocks : public testing::TestWithParam<Shape> {};

// What dumpe2fs says about where a group's own structures lie.
struct ToldGroup {
    std::uint64_t block_bitmap = 0, inode_bitmap = 0, inode_table = 0, free_clusters = 0, free_inodes = 0,
                  used_dirs = 0;
    std::uint64_t super = ~0ull, descriptors_from = 0, descriptors_to = 0, reserved_from = 0, reserved_to = 0;
};

std::map<std::uint64_t, ToldGroup> told_groups(const TestImage& image) {
    std::map<std::uint64_t, ToldGroup> out;
    std::istringstream lines(output_of("dumpe2fs " + image.path() + " 2>/dev/null"));
    std::string line;
    ToldGroup* group = nullptr;
    auto after = [&](const char* text) -> const char* {
        const auto at = line.find(text);
        return at == std::string::npos ? nullptr : line.c_str() + at + std::strlen(text);
    };
    while (std::getline(lines, line)) {
        if (line.starts_with("Group ")) group = &out[std::strtoull(line.c_str() + 6, nullptr, 10)];
        if (!group) continue;
        if (const char* p = after("uperblock at ")) group->super = std::strtoull(p, nullptr, 10);
        if (const char* p = after("roup descriptors at "))
            std::sscanf(p, "%lu-%lu", &group->descriptors_from, &group->descriptors_to);
        else if (const char* q = after("roup descriptor at "))
            std::sscanf(q, "%lu", &group->descriptors_from), group->descriptors_to = group->descriptors_from;
        if (const char* p = after("Reserved GDT blocks at "))
            std::sscanf(p, "%lu-%lu", &group->reserved_from, &group->reserved_to);
        if (const char* p = after("Block bitmap at ")) group->block_bitmap = std::strtoull(p, nullptr, 10);
        if (const char* p = after("Inode bitmap at ")) group->inode_bitmap = std::strtoull(p, nullptr, 10);
        if (const char* p = after("Inode table at ")) group->inode_table = std::strtoull(p, nullptr, 10);
        if (line.find(" free inodes, ") != std::string::npos) {
            char unit[16];
            std::sscanf(line.c_str(), " %lu free %15s %lu free inodes, %lu", &group->free_clusters, unit,
                        &group->free_inodes, &group->used_dirs);
        }
    }
    return out;
}

TEST_P(Superblocks, GroupsLieWhereTheJudgeSays) {
    TestImage image(GetParam().options, GetParam().size);
    const Geometry& g = image.geometry();
    EXPECT_TRUE(super_checksum_ok(image.super()));
    const auto told = told_groups(image);
    ASSERT_EQ(told.size(), g.group_count);
    for (const auto& [n, t] : told) {
        const GroupNr group(n);
        const auto d = image.group(group);
        EXPECT_TRUE(d.checksum_ok(g, group)) << "group " << n;
        EXPECT_EQ(d.block_bitmap().value, t.block_bitmap);
        EXPECT_EQ(d.inode_bitmap().value, t.inode_bitmap);
        EXPECT_EQ(d.inode_table().value, t.inode_table);
        EXPECT_EQ(d.free_clusters(), t.free_clusters) << "group " << n;
        EXPECT_EQ(d.free_inodes(), t.free_inodes) << "group " << n;
        EXPECT_EQ(d.used_dirs(), t.used_dirs) << "group " << n;
        EXPECT_TRUE(d.flags() & group_flag::block_uninit || d.block_bitmap_ok(g, image.block(d.block_bitmap())));
        EXPECT_TRUE(d.flags() & group_flag::inode_uninit || d.inode_bitmap_ok(g, image.block(d.inode_bitmap())));
        EXPECT_EQ(g.has_super_backup(group), t.super != ~0ull) << "group " << n;
        std::uint64_t base = t.super != ~0ull ? 1 : 0;
        if (t.descriptors_from) base += t.descriptors_to - t.descriptors_from + 1;
        if (t.reserved_from) base += t.reserved_to - t.reserved_from + 1;
        EXPECT_EQ(g.base_meta_blocks(group), base) << "group " << n;
    }
}

TEST_P(Superblocks, ChecksumsNoticeEveryByte) {
    TestImage image(GetParam().options, GetParam().size);
    const Geometry& g = image.geometry();
    if (g.metadata_csum()) {
        for (std::size_t i = 0; i < sizeof(SuperBlock); ++i) {
            SuperBlock damaged = image.super();
            reinterpret_cast<std::byte*>(&damaged)[i] ^= std::byte{1};
            EXPECT_FALSE(damaged.has_ro_compat(ro_compat::metadata_csum) && super_checksum_ok(damaged)) << "byte " << i;
        }
    }
    if (g.descriptor_checksum == DescriptorChecksum::none) return;
    auto d = image.group(GroupNr(0));
    const Bytes raw = image.block(g.descriptor_place(GroupNr(0)).block).first(g.desc_size);
    for (std::size_t i = 0; i < raw.size(); ++i) {
        raw[i] ^= std::byte{1};
        EXPECT_FALSE(d.checksum_ok(g, GroupNr(0))) << "byte " << i;
        raw[i] ^= std::byte{1};
    }
    EXPECT_FALSE(d.checksum_ok(g, GroupNr(1))) << "the group's number is part of the sum";
    const std::vector<std::byte> before(raw.begin(), raw.end());
    d.set_checksum(g, GroupNr(0));
    d.sum_inode_bitmap(g, image.block(d.inode_bitmap()));
    d.sum_block_bitmap(g, image.block(d.block_bitmap()));
    EXPECT_TRUE(std::equal(raw.begin(), raw.end(), before.begin())) << "what is right stays as it is";
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Superblocks,
    testing::Values(Shape{"-t ext4 -b 4096 -O metadata_csum,64bit", "600M"},
                    Shape{"-t ext4 -b 1024 -O metadata_csum,^64bit", "64M"},
                    Shape{"-t ext4 -b 2048 -O ^metadata_csum,uninit_bg,^64bit", "80M"},
                    Shape{"-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,64bit", "64M"},
                    Shape{"-t ext4 -O metadata_csum,metadata_csum_seed -U random", "64M"},
                    Shape{"-t ext2 -b 1024", "64M"}, Shape{"-t ext2 -b 1024 -r 0 -O none", "32M"},
                    Shape{"-t ext3 -b 4096", "64M"}, Shape{"-t ext2 -b 1024 -O ^sparse_super,^resize_inode", "64M"},
                    Shape{"-t ext4 -b 1024 -O sparse_super2,^sparse_super,^resize_inode", "64M"},
                    Shape{"-t ext4 -b 1024 -O meta_bg,^resize_inode,metadata_csum,64bit", "256M"},
                    Shape{"-t ext4 -b 1024 -O meta_bg,^resize_inode,^flex_bg,^metadata_csum", "300M"},
                    Shape{"-t ext4 -b 1024 -O bigalloc -C 4096", "64M"},
                    Shape{"-t ext4 -b 4096 -O bigalloc,metadata_csum -C 65536", "600M"},
                    Shape{"-t ext4 -b 65536 -F", "512M"}, Shape{"-t ext4 -I 128 -O ^metadata_csum", "64M"},
                    Shape{"-t ext4 -b 1024 -g 512 -O metadata_csum", "32M"}));

TEST(SuperblockFields, MeanWhatTheJudgeSays) {
    TestImage image(
        "-t ext4 -b 1024 -m 7 -E hash_seed=00112233-4455-6677-8899-aabbccddeeff,stride=4 -O metadata_csum,quota,mmp");
    const Geometry& g = image.geometry();
    EXPECT_EQ(g.block_size, 1024u);
    EXPECT_EQ(g.first_data_block, 1u);
    EXPECT_EQ(g.hash_seed[0], 0x33221100u);
    EXPECT_EQ(g.reserved_blocks, g.blocks_count * 7 / 100);
    EXPECT_EQ(g.user_quota_inode, 3u);
    EXPECT_EQ(g.group_quota_inode, 4u);
    EXPECT_EQ(g.journal_inode, 8u);
    EXPECT_NE(g.mmp_block, 0u);
    EXPECT_EQ(g.default_hash, 1u);
    const Support support = support_for(g.compat, g.incompat, g.ro_compat);
    EXPECT_TRUE(support.readable);
    EXPECT_FALSE(support.writable);
    EXPECT_EQ(support.why, "quota");
}

TEST(SuperblockFields, LimitFileSizes) {
    TestImage image("-t ext4 -b 4096");
    EXPECT_EQ(image.geometry().max_extent_file_size, std::uint64_t{0xFFFFFFFF} * 4096);
    const std::uint64_t pointers = 1024;
    EXPECT_EQ(image.geometry().max_indirect_file_size,
              (12 + pointers + pointers * pointers + pointers * pointers * pointers) * 4096);
    TestImage counted_in_sectors("-t ext4 -b 4096 -O ^huge_file");
    for (const std::uint64_t size :
         {counted_in_sectors.geometry().max_extent_file_size, counted_in_sectors.geometry().max_indirect_file_size}) {
        EXPECT_LE(size, std::uint64_t{0xFFFFFFFF} * 512) << "i_blocks has 32 bits for sectors";
        EXPECT_GT(size, std::uint64_t{0xF0000000} * 512);
        EXPECT_EQ(size % 4096, 0u);
    }
}

TEST(SuperblockFields, NamesAreHashedUnsignedUnlessItSaysSigned) {
    TestImage image("-t ext4 -b 4096");
    SuperBlock super = image.super();
    const std::uint32_t others = super.flags & ~(super_flag::signed_hash | super_flag::unsigned_hash);
    for (const std::uint32_t said : {0u, super_flag::signed_hash, super_flag::unsigned_hash}) {
        super.flags = others | said;
        EXPECT_EQ(Geometry::parse(super, 0)->hash_unsigned, said != super_flag::signed_hash) << said;
        record_hash_sign(super);
        EXPECT_EQ(super.flags, others | (said ? said : super_flag::unsigned_hash));
        EXPECT_EQ(Geometry::parse(super, 0)->hash_unsigned, said != super_flag::signed_hash) << said;
    }
}

// What the kernel's mount says of the largest file, by asking it; it has no blocks above 4 KiB here, whose files end
// where i_blocks does.
TEST(SuperblockFields, LimitIndirectFilesAsTheKernelDoes) {
    struct {
        const char* options;
        std::uint64_t most;
    } constexpr told[] = {{"-t ext2 -b 1024", 17247252480},         {"-t ext2 -b 2048", 275415851008},
                          {"-t ext2 -b 4096", 2196873666560},       {"-t ext3 -b 4096 -O huge_file", 4402345721856},
                          {"-t ext2 -b 1024 -r 0", 17247252480},    {"-t ext2 -b 4096 -r 0", 2196873666560},
                          {"-t ext2 -b 2048 -O none", 275415851008}};
    for (const auto& [options, most] : told)
        EXPECT_EQ(TestImage(options).geometry().max_indirect_file_size, most) << options;
    for (const char* options : {"-t ext2 -b 8192", "-t ext2 -b 16384", "-t ext2 -b 32768", "-t ext2 -b 65536"}) {
        const Geometry g = TestImage(std::string(options) + " -F", "400M").geometry();
        const std::uint64_t blocks = g.max_indirect_file_size / g.block_size, per = g.block_size / 4;
        EXPECT_GT(g.max_indirect_file_size, std::uint64_t{2196873666560}) << options;
        EXPECT_GT(g.nameable_bytes(false), g.max_indirect_file_size) << options;
        EXPECT_LE((blocks + blocks / per) * (g.block_size / 512), 0xFFFFFFFFu) << options;
    }
}

TEST(SuperblockSupport, NamesWhatLimits) {
    EXPECT_TRUE(support_for(~0u, incompat::extents, ro_compat::metadata_csum).writable);
    for (const std::uint32_t refused :
         {incompat::compression, incompat::journal_dev, incompat::dirdata, 0x80000000u, 0x20u}) {
        const Support s = support_for(0, refused | incompat::extents, 0);
        EXPECT_FALSE(s.readable) << refused;
        EXPECT_EQ(s.why, feature_names(FeatureSet::incompat, refused));
    }
    EXPECT_EQ(feature_names(FeatureSet::incompat, 0x80000000u | incompat::extents), "extent FEATURE_I31");
    for (const std::uint32_t limited :
         {ro_compat::quota, ro_compat::project, ro_compat::shared_blocks, ro_compat::readonly, 0x40000000u}) {
        const Support s = support_for(0, 0, limited);
        EXPECT_TRUE(s.readable && !s.writable) << limited;
        EXPECT_EQ(s.why, feature_names(FeatureSet::ro_compat, limited));
    }
    EXPECT_TRUE(support_for(0, incompat::casefold | incompat::encrypt, ro_compat::verity).writable);
}

struct Absurd {
    const char* field;
    std::uint64_t value;
};

void put(Bytes structure, const FieldDescription& field, std::uint64_t value) {
    for (std::uint32_t i = 0; i < field.size; ++i) structure[field.offset + i] = static_cast<std::byte>(value >> 8 * i);
}

TEST(SuperblockDamage, AbsurdFieldsAreNamed) {
    TestImage image("-t ext4 -b 4096 -O metadata_csum,64bit,flex_bg");
    constexpr Absurd cases[] = {{"s_magic", 0xEF54},
                                {"s_rev_level", 2},
                                {"s_log_block_size", 7},
                                {"s_log_block_size", 0xFFFFFFFF},
                                {"s_log_cluster_size", 0},
                                {"s_log_cluster_size", 3},
                                {"s_blocks_count_lo", 0},
                                {"s_blocks_count_lo", 0xFFFFFFFF},
                                {"s_blocks_count_hi", 0x10000},
                                {"s_r_blocks_count_hi", 1},
                                {"s_first_data_block", 1},
                                {"s_first_data_block", 0xFFFFFFFF},
                                {"s_blocks_per_group", 0},
                                {"s_blocks_per_group", 32769},
                                {"s_blocks_per_group", 65536},
                                {"s_clusters_per_group", 0},
                                {"s_clusters_per_group", 1},
                                {"s_clusters_per_group", 24576},
                                {"s_clusters_per_group", 0xFFFFFFFF},
                                {"s_inode_size", 0},
                                {"s_inode_size", 64},
                                {"s_inode_size", 257},
                                {"s_inode_size", 8192},
                                {"s_inodes_per_group", 0},
                                {"s_inodes_per_group", 8},
                                {"s_inodes_per_group", 65536},
                                {"s_inodes_count", 1},
                                {"s_desc_size", 0},
                                {"s_desc_size", 32},
                                {"s_desc_size", 96},
                                {"s_desc_size", 8192},
                                {"s_first_ino", 0},
                                {"s_first_ino", 10},
                                {"s_want_extra_isize", 129},
                                {"s_want_extra_isize", 0xFFFF},
                                {"s_min_extra_isize", 129},
                                {"s_min_extra_isize", 9999},
                                {"s_checksum_type", 2},
                                {"s_log_groups_per_flex", 32},
                                {"s_reserved_gdt_blocks", 1025}};
    for (const Absurd& c : cases) {
        SuperBlock super = image.super();
        const FieldDescription* field = find_field(Structure::superblock, c.field);
        ASSERT_NE(field, nullptr) << c.field;
        put(std::as_writable_bytes(std::span(&super, 1)), *field, c.value);
        const auto parsed = Geometry::parse(super, 64u << 20);
        ASSERT_FALSE(parsed) << c.field << " = " << c.value;
        std::string stem = c.field;
        if (stem.ends_with("_lo") || stem.ends_with("_hi")) stem.resize(stem.size() - 3);
        if (stem != "s_magic" && stem != "s_blocks_per_group") {
            EXPECT_NE(parsed.error().what.find(stem), std::string::npos)
                << c.field << " = " << c.value << ": " << parsed.error().what;
        }
        EXPECT_NE(parsed.error().what.find("expected "), std::string::npos) << parsed.error().what;
        EXPECT_EQ(parsed.error().code, stem == "s_magic" ? EINVAL : EUCLEAN) << c.field;
    }
    EXPECT_TRUE(Geometry::parse(image.super(), 0));
    SuperBlock wide = image.super();
    wide.want_extra_isize = wide.min_extra_isize = std::uint16_t{128};
    EXPECT_TRUE(Geometry::parse(wide, 0));
    wide.want_extra_isize = wide.min_extra_isize = std::uint16_t{9999};
    wide.feature_ro_compat = wide.feature_ro_compat & ~ro_compat::extra_isize;
    EXPECT_TRUE(Geometry::parse(wide, 0)) << "without the feature nobody looks at them";
    EXPECT_FALSE(Geometry::parse(image.super(), (64u << 20) - 1)) << "the device is too small";
}

// Whatever is accepted keeps its promises: no division by zero, descriptors inside, groups that cover the blocks.
TEST(SuperblockDamage, RandomFieldsAreSurvived) {
    TestImage image("-t ext4 -b 1024 -O metadata_csum,meta_bg,^resize_inode,sparse_super2");
    std::mt19937_64 random(1);
    unsigned accepted = 0;
    for (int round = 0; round < 40000; ++round) {
        SuperBlock super = image.super();
        for (unsigned n = random() % 4; n-- > 0;) {
            const auto fields = fields_of(Structure::superblock);
            const FieldDescription& f = fields[random() % fields.size()];
            if (f.kind == FieldKind::bytes) continue;
            const std::uint64_t value = random() % 3 ? random() >> random() % 64 : std::uint64_t{1} << random() % 64;
            put(std::as_writable_bytes(std::span(&super, 1)), f, value);
        }
        const auto g = Geometry::parse(super, random() % 2 ? 0 : 64u << 20);
        if (!g) continue;
        ++accepted;
        const GroupNr last(g->group_count - 1);
        EXPECT_GT(g->blocks_in_group(last), 0u);
        EXPECT_EQ(g->first_block(last).value + g->blocks_in_group(last), g->blocks_count);
        EXPECT_EQ(g->group_of(BlockNr(g->blocks_count - 1)), last);
        EXPECT_EQ(g->group_of(InodeNr(g->inodes_count)), last);
        for (const GroupNr group : {GroupNr(0), GroupNr(g->group_count / 2), last}) {
            const auto place = g->descriptor_place(group);
            EXPECT_LT(place.block.value, g->blocks_count);
            EXPECT_LE(place.offset + g->desc_size, g->block_size);
            (void)g->base_meta_blocks(group);
        }
    }
    EXPECT_GT(accepted, 100u);
}

}  // namespace
}  // namespace uext4::format
