// Extended attributes: areas written by debugfs, areas laid out here, and areas that lie.
#include "format/xattr.h"

#include "tests/fixtures/format_image.h"

#include <cstring>
#include <map>
#include <random>

namespace uext4::format {
namespace {

std::vector<std::byte> bytes_of_text(std::string_view text) {
    const ConstBytes bytes = bytes_of_string(text.data(), text.size());
    return {bytes.begin(), bytes.end()};
}

std::string text_of(ConstBytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

TEST(XattrNames, SplitAndJoin) {
    for (const char* name : {"user.a", "trusted.b", "security.selinux", "system.data", "system.posix_acl_access",
                             "system.posix_acl_default"}) {
        const auto parts = split_xattr_name(name);
        ASSERT_TRUE(parts) << name;
        EXPECT_EQ(full_xattr_name(parts->first, parts->second), name);
    }
    EXPECT_EQ(split_xattr_name("system.posix_acl_access")->first, XattrIndex::posix_acl_access);
    EXPECT_EQ(split_xattr_name("system.posix_acl_access")->second, "");
    EXPECT_EQ(split_xattr_name("system.data")->first, static_cast<XattrIndex>(7));
    EXPECT_FALSE(split_xattr_name("nothing.a"));
    EXPECT_FALSE(split_xattr_name("user"));
}

class XattrImages : public testing::TestWithParam<const char*> {};

TEST_P(XattrImages, AreReadAndSummed) {
    TestImage image(GetParam());
    std::ofstream(image.folder() + "/data").flush();
    const std::map<std::string, std::string> want = {{"user.small", "1"},
                                                     {"user.word", "four"},
                                                     {"trusted.t", std::string(30, 't')},
                                                     {"security.s", std::string(150, 's')},
                                                     {"user.big", std::string(400, 'b')}};
    std::string requests = "write " + image.folder() + "/data f\n";
    for (const auto& [name, value] : want) requests += fmt::format("ea_set f {} {}\n", name, value);
    image.change(requests);
    const Geometry& g = image.geometry();
    const InodeNr f = image.number_of("f");
    std::map<std::string, std::string> got;
    const Bytes raw = image.inode(f);
    if (g.inode_size > classic_inode_size) {
        const std::size_t at = classic_inode_size + view_as<InodeDisk>(raw).extra_isize;
        if (view_as<XattrInodeHeader>(raw, at).magic == xattr_magic) {
            const auto items = parse_xattrs(raw.subspan(at + 4), 0, "inode");
            ASSERT_TRUE(items) << items.error().what;
            for (const XattrItem& i : *items) {
                got[full_xattr_name(i.index, i.name)] = text_of(i.value);
                EXPECT_TRUE(i.hash == 0 || i.hash == xattr_entry_hash(i.name, i.value)) << i.name;
            }
        }
    }
    InodeDisk disk{};
    std::memcpy(&disk, raw.data(), classic_inode_size);
    const BlockNr n = inode_attribute_block(g, disk);
    ASSERT_TRUE(n);
    const Bytes block = image.block(n);
    const auto& header = view_as<XattrBlockHeader>(block);
    EXPECT_EQ(header.magic, xattr_magic);
    EXPECT_TRUE(xattr_block_checksum_ok(g, n, block));
    EXPECT_EQ(xattr_block_checksum_ok(g, n + 1, block), !g.metadata_csum()) << "the block's number is part of the sum";
    const auto items = parse_xattrs(block, sizeof(XattrBlockHeader), "block");
    ASSERT_TRUE(items) << items.error().what;
    std::vector<std::uint32_t> hashes;
    for (const XattrItem& i : *items) {
        got[full_xattr_name(i.index, i.name)] = text_of(i.value);
        EXPECT_EQ(i.hash, xattr_entry_hash(i.name, i.value)) << i.name;
        hashes.push_back(i.hash);
    }
    // debugfs leaves the block's hash out, which means that the block is not shared.
    EXPECT_TRUE(header.hash == 0 || header.hash == xattr_block_hash(hashes));
    EXPECT_EQ(got, want);
    const std::vector<std::byte> before(block.begin(), block.end());
    set_xattr_block_checksum(g, n, block);
    EXPECT_TRUE(std::equal(block.begin(), block.end(), before.begin())) << "what is right stays as it is";
}

INSTANTIATE_TEST_SUITE_P(Shapes, XattrImages,
                         testing::Values("-t ext4 -b 1024 -O metadata_csum",
                                         "-t ext4 -b 4096 -I 128 -O metadata_csum,64bit",
                                         "-t ext4 -b 4096 -O ^metadata_csum", "-t ext2 -b 1024 -I 128"));

TEST(XattrValues, InAnInodeCarryItsHash) {
    TestImage image("-t ext4 -b 1024 -O ea_inode,metadata_csum");
    std::ofstream(image.folder() + "/data").flush();
    const std::string value(3000, 'v');
    std::ofstream(image.folder() + "/value") << value;
    image.change(fmt::format("write {0}/data f\nea_set -f {0}/value f user.large", image.folder()));
    const Geometry& g = image.geometry();
    InodeDisk disk{};
    const Bytes raw = image.inode(image.number_of("f"));
    std::memcpy(&disk, raw.data(), classic_inode_size);
    std::vector<XattrItem> items;
    if (const BlockNr n = inode_attribute_block(g, disk)) {
        items = parse_xattrs(image.block(n), sizeof(XattrBlockHeader), "block").value_or(items);
    } else {
        const std::size_t at = classic_inode_size + view_as<InodeDisk>(raw).extra_isize;
        items = parse_xattrs(raw.subspan(at + 4), 0, "inode").value_or(items);
    }
    ASSERT_EQ(items.size(), 1u);
    EXPECT_GT(items[0].value_size, 800u) << "debugfs stores no more than a part";
    ASSERT_NE(items[0].value_inode, 0u);
    const auto& holder = view_as<InodeDisk>(image.inode(InodeNr(items[0].value_inode)));
    EXPECT_TRUE(holder.flags & inode_flag::ea_inode);
    const std::uint32_t hash = xattr_value_hash(g, bytes_of_text(value.substr(0, items[0].value_size)));
    EXPECT_EQ(holder.atime, hash);
    EXPECT_EQ(items[0].hash, xattr_entry_hash_inode("large", hash));
}

// The first 80 bytes of a block that Linux wrote for user.a=hello and user.bb=hellohello.
TEST(XattrLayout, IsTheKernels) {
    constexpr unsigned char entries[] = {
        0x01, 0x01, 0xf8, 0x03, 0, 0, 0,    0, 0x05, 0, 0,    0,    0x62, 0x6c, 0x68, 0x65, 0x61, 0, 0, 0, 0x02, 0x01,
        0xec, 0x03, 0,    0,    0, 0, 0x0a, 0, 0,    0, 0x61, 0x66, 0x21, 0x08, 0x62, 0x62, 0,    0, 0, 0, 0,    0};
    std::vector<std::byte> area(1024);
    std::vector<XattrToStore> items(2);
    items[0].index = items[1].index = XattrIndex::user;
    items[0].name = "a";
    items[0].value = bytes_of_text("hello");
    items[1].name = "bb";
    items[1].value = bytes_of_text("hellohello");
    ASSERT_TRUE(layout_xattrs(area, sizeof(XattrBlockHeader), items, true));
    EXPECT_EQ(std::memcmp(area.data() + sizeof(XattrBlockHeader), entries, sizeof entries), 0);
    EXPECT_EQ(text_of(ConstBytes(area).subspan(0x3f8, 8)), std::string("hello\0\0\0", 8));
    EXPECT_EQ(xattr_block_hash({items[0].stored_hash, items[1].stored_hash}), 0x64430309u);
    EXPECT_EQ(xattr_block_hash({items[0].stored_hash, 0}), 0u);
}

TEST(XattrLayout, ComesBack) {
    std::mt19937 random(6);
    for (int round = 0; round < 2000; ++round) {
        const std::uint32_t first = random() % 2 ? 32 : 0;
        std::vector<std::byte> area(round % 3 ? 1024 : 92, std::byte{0xAA});
        std::vector<XattrToStore> items;
        std::size_t needed = first + 4;
        for (unsigned n = random() % 6; n-- > 0;) {
            XattrToStore item;
            item.index = XattrIndex::user;
            item.name = std::string(1 + random() % 40, static_cast<char>('a' + n));
            if (random() % 4 == 0) {
                item.value_inode = 77;
                item.value_size = 9000;
                item.value_hash = static_cast<std::uint32_t>(random());
            } else {
                item.value = bytes_of_text(std::string(random() % 100, 'v'));
            }
            needed += xattr_space(item);
            items.push_back(item);
        }
        ASSERT_EQ(layout_xattrs(area, first, items, true), needed <= area.size());
        if (needed > area.size()) continue;
        const auto parsed = parse_xattrs(area, first, "area");
        ASSERT_TRUE(parsed) << parsed.error().what;
        ASSERT_EQ(parsed->size(), items.size());
        for (std::size_t i = 0; i < items.size(); ++i) {
            EXPECT_EQ((*parsed)[i].name, items[i].name);
            EXPECT_EQ(text_of((*parsed)[i].value), text_of(items[i].value));
            EXPECT_EQ((*parsed)[i].value_inode, items[i].value_inode);
            EXPECT_EQ((*parsed)[i].hash, items[i].stored_hash);
        }
    }
}

TEST(XattrDamage, IsNamed) {
    const auto refused = [](const char* field, auto damage) {
        std::vector<std::byte> area(256);
        std::vector<XattrToStore> items(2);
        for (unsigned i = 0; i < 2; ++i) {
            items[i].index = XattrIndex::user;
            items[i].name = i ? "second" : "first";
            items[i].value = bytes_of_text("value");
        }
        ASSERT_TRUE(layout_xattrs(area, 0, items, true));
        ASSERT_TRUE(parse_xattrs(area, 0, "inode 12"));
        damage(area, view_as<XattrEntry>(Bytes(area)));
        const auto result = parse_xattrs(area, 0, "inode 12");
        ASSERT_FALSE(result) << field;
        EXPECT_EQ(result.error().code, EUCLEAN);
        EXPECT_TRUE(result.error().what.starts_with("inode 12")) << result.error().what;
        EXPECT_NE(result.error().what.find(field), std::string::npos) << result.error().what;
    };
    refused("e_name_len", [](auto&, XattrEntry& e) { e.name_len = 255; });
    refused("zero byte", [](auto& area, XattrEntry&) { area[17] = std::byte{0}; });
    refused("e_value_size", [](auto&, XattrEntry& e) { e.value_size = 0xFFFFFFFFu; });
    refused("e_value_offs", [](auto&, XattrEntry& e) { e.value_size = 100u; });
    refused("e_value_offs", [](auto&, XattrEntry& e) { e.value_offset = std::uint16_t{0xFFFF}; });
    refused("expected behind the list of names", [](auto&, XattrEntry& e) { e.value_offset = std::uint16_t{16}; });
    refused("does not end within its 52 bytes", [](auto& area, XattrEntry& e) {
        e.value_size = 0u;
        view_as<XattrEntry>(Bytes(area), 24).value_size = 0u;
        area.resize(24 + 16 + 8 + 4);
        area[48] = std::byte{1};
    });
}

TEST(XattrDamage, RandomAreasAreSurvived) {
    std::mt19937 random(7);
    for (int round = 0; round < 50000; ++round) {
        std::vector<std::byte> area(random() % 200);
        for (auto& b : area) b = random() % 3 ? std::byte{4} : static_cast<std::byte>(random());
        (void)parse_xattrs(area, random() % 40, "area");
    }
}

}  // namespace
}  // namespace uext4::format
