#include "device/partition.h"
#include "device/open_device.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace uext4 {
namespace {

constexpr std::uint64_t sector = 512;
constexpr std::uint64_t disk_sectors = 8192;

struct MbrEntry {
    std::byte boot[4];
    std::byte type;
    std::byte end[3];
    Le32 start;
    Le32 count;
};
static_assert(sizeof(MbrEntry) == 16);

struct GptHeader {
    char signature[8];
    Le32 revision, header_size, header_crc, reserved;
    Le64 here, other, first_usable, last_usable;
    std::byte disk_id[16];
    Le64 entries;
    Le32 entry_count, entry_size, entries_crc;
};
static_assert(sizeof(GptHeader) == 92);

struct GptEntry {
    std::byte type[16], id[16];
    Le64 first, last, attributes;
    std::byte name[72];
};
static_assert(sizeof(GptEntry) == 128);

std::uint32_t crc32(ConstBytes data) {
    std::uint32_t crc = ~0u;
    for (std::byte b : data) {
        crc ^= static_cast<std::uint32_t>(b);
        for (int i = 0; i < 8; ++i) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

class PartitionTest : public testing::Test {
protected:
    std::string path = testing::TempDir() + "partition_" + std::to_string(getpid()) + ".img";
    std::vector<std::byte> disk = std::vector<std::byte>(disk_sectors * sector);

    void TearDown() override { unlink(path.c_str()); }

    void mbr_entry(std::uint64_t table_sector, int slot, unsigned type, std::uint32_t start, std::uint32_t count) {
        auto& entry = view_as<MbrEntry>(Bytes(disk), table_sector * sector + 446 + 16 * static_cast<unsigned>(slot));
        entry.type = static_cast<std::byte>(type);
        entry.start = start;
        entry.count = count;
        disk[table_sector * sector + 510] = std::byte{0x55};
        disk[table_sector * sector + 511] = std::byte{0xaa};
    }
    // Partitions and their lengths in sectors of `size` bytes.
    void gpt(const std::vector<std::pair<std::uint64_t, std::uint64_t>>& partitions, std::uint64_t size = sector) {
        const std::uint64_t last = disk.size() / size - 1;
        mbr_entry(0, 0, 0xee, 1, static_cast<std::uint32_t>(last));
        std::vector<std::byte> entries(128 * sizeof(GptEntry));
        const std::uint64_t table_sectors = entries.size() / size;
        for (std::size_t i = 0; i < partitions.size(); ++i) {
            auto& entry = view_as<GptEntry>(Bytes(entries), i * sizeof(GptEntry));
            std::memset(entry.type, 0x11, 16);
            std::memset(entry.id, static_cast<int>(0x20 + i), 16);
            entry.first = partitions[i].first;
            entry.last = partitions[i].first + partitions[i].second - 1;
        }
        auto place = [&](std::uint64_t here, std::uint64_t other, std::uint64_t table) {
            std::copy(entries.begin(), entries.end(), disk.begin() + static_cast<std::ptrdiff_t>(table * size));
            auto& header = view_as<GptHeader>(Bytes(disk), here * size);
            std::memcpy(header.signature, "EFI PART", 8);
            header.revision = 0x10000;
            header.header_size = sizeof(GptHeader);
            header.here = here;
            header.other = other;
            header.first_usable = 2 + table_sectors;
            header.last_usable = last - 1 - table_sectors;
            std::memset(header.disk_id, 0x77, 16);
            header.entries = table;
            header.entry_count = 128;
            header.entry_size = sizeof(GptEntry);
            header.entries_crc = crc32(entries);
            header.header_crc = 0;
            header.header_crc = crc32(bytes_of(header));
        };
        place(1, last, 2);
        place(last, 1, last - table_sectors);
    }
    void save() {
        const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        ASSERT_GE(fd, 0);
        ASSERT_EQ(write(fd, disk.data(), disk.size()), static_cast<ssize_t>(disk.size()));
        close(fd);
    }
    Result<Partition> find(std::uint32_t number) {
        const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
        auto found = find_partition(fd, number, path);
        close(fd);
        return found;
    }
};

TEST_F(PartitionTest, Mbr) {
    mbr_entry(0, 0, 0x83, 100, 1000);
    mbr_entry(0, 1, 0x05, 2000, 3000);
    mbr_entry(2000, 0, 0x83, 10, 500);  // logical, counted from its own table
    save();
    auto first = find(1);
    ASSERT_TRUE(first) << first.error().what;
    EXPECT_EQ(first->offset, 100 * sector);
    EXPECT_EQ(first->size, 1000 * sector);
    auto logical = find(5);
    ASSERT_TRUE(logical) << logical.error().what;
    EXPECT_EQ(logical->offset, 2010 * sector);
    EXPECT_EQ(logical->size, 500 * sector);
    EXPECT_EQ(find(2).error().code, EINVAL);
    EXPECT_EQ(find(3).error().code, ENOENT);
    EXPECT_EQ(find(0).error().code, ENOENT);
    EXPECT_EQ(find(4000000000u).error().code, ENOENT);
}

// A copy of a disk does not say how large the sectors were that its MBR counts in.
TEST_F(PartitionTest, MbrOfLargeSectors) {
    mbr_entry(0, 0, 0x83, 32, 64);
    mbr_entry(0, 1, 0x83, 100, 200);
    mbr_entry(0, 2, 0x05, 400, 300);
    mbr_entry(400 * 8, 0, 0x83, 16, 100);  // its signature stands at the end of 512 bytes all the same
    const auto ext4 = [&](std::uint64_t at) {
        disk[at + 1024 + 56] = std::byte{0x53};
        disk[at + 1024 + 57] = std::byte{0xef};
    };
    for (const std::uint64_t at : {100, 416}) ext4(at * 4096);
    save();
    auto second = find(2);
    ASSERT_TRUE(second) << second.error().what;
    EXPECT_EQ(second->offset, 100u * 4096);
    EXPECT_EQ(second->size, 200u * 4096);
    auto logical = find(5);
    ASSERT_TRUE(logical) << logical.error().what;
    EXPECT_EQ(logical->offset, 416u * 4096);
    EXPECT_EQ(logical->size, 100u * 4096);
    // Without a file system in it there is nothing to go by but the usual size.
    auto first = find(1);
    ASSERT_TRUE(first) << first.error().what;
    EXPECT_EQ(first->offset, 32 * sector);
    // And the usual size goes first.
    ext4(100 * sector);
    save();
    second = find(2);
    ASSERT_TRUE(second) << second.error().what;
    EXPECT_EQ(second->offset, 100 * sector);
    EXPECT_EQ(second->size, 200 * sector);
}

TEST_F(PartitionTest, MbrEntryOutsideOfTheDisk) {
    mbr_entry(0, 0, 0x83, 100, disk_sectors);
    save();
    auto first = find(1);
    ASSERT_FALSE(first);
    EXPECT_EQ(first.error().code, EINVAL);
}

TEST_F(PartitionTest, Gpt) {
    gpt({{40, 1000}, {2048, 4096}});
    save();
    auto second = find(2);
    ASSERT_TRUE(second) << second.error().what;
    EXPECT_EQ(second->offset, 2048 * sector);
    EXPECT_EQ(second->size, 4096 * sector);
    EXPECT_EQ(find(3).error().code, ENOENT);
}

TEST_F(PartitionTest, GptOfLargeSectors) {
    gpt({{6, 100}, {256, 512}}, 4096);
    save();
    auto second = find(2);
    ASSERT_TRUE(second) << second.error().what;
    EXPECT_EQ(second->offset, 256u * 4096);
    EXPECT_EQ(second->size, 512u * 4096);
    EXPECT_EQ(find(3).error().code, ENOENT);
    // What is left of such a table below a newer one of small sectors means nothing.
    gpt({{40, 1000}});
    save();
    auto newer = find(1);
    ASSERT_TRUE(newer) << newer.error().what;
    EXPECT_EQ(newer->offset, 40 * sector);
    EXPECT_EQ(find(2).error().code, ENOENT);
    // Nor when the first copy of the newer one is damaged.
    disk[sector] = std::byte{0};
    save();
    newer = find(1);
    ASSERT_TRUE(newer) << newer.error().what;
    EXPECT_EQ(newer->offset, 40 * sector);
}

TEST_F(PartitionTest, NoTable) {
    save();
    EXPECT_EQ(find(1).error().code, EINVAL);
}

TEST_F(PartitionTest, NamesWithANumber) {
    save();
    EXPECT_EQ(parse_image_name("disk.img@2").path, "disk.img");
    EXPECT_EQ(parse_image_name("disk.img@2").partition, 2u);
    EXPECT_FALSE(parse_image_name("disk.img").partition);
    EXPECT_FALSE(parse_image_name("me@home").partition);
    EXPECT_FALSE(parse_image_name("@2").partition);
    EXPECT_FALSE(parse_image_name("disk@").partition);
    EXPECT_FALSE(parse_image_name("disk@99999999999").partition);
    EXPECT_EQ(parse_image_name("a@b@7").path, "a@b");
    const std::string odd = path + "@3";
    ASSERT_EQ(rename(path.c_str(), odd.c_str()), 0);
    EXPECT_EQ(parse_image_name(odd).path, odd);
    ASSERT_EQ(rename(odd.c_str(), path.c_str()), 0);
}

TEST_F(PartitionTest, OpenDeviceGivesThePartition) {
    gpt({{40, 1000}, {2048, 4096}});
    std::memcpy(disk.data() + 2048 * sector, "hello", 5);
    save();
    auto device = open_device(path + "@2");
    ASSERT_TRUE(device) << device.error().what;
    EXPECT_EQ((*device)->size(), 4096 * sector);
    std::array<std::byte, 5> out;
    ASSERT_TRUE((*device)->read(0, out));
    EXPECT_EQ(std::memcmp(out.data(), "hello", 5), 0);
    EXPECT_TRUE(open_device(path + "@1")) << "another partition is not locked";
    EXPECT_EQ(open_device(path + "@2").error().code, EBUSY);
    EXPECT_EQ(open_device(path).error().code, EBUSY);
    EXPECT_EQ(open_device(path + "@9").error().code, ENOENT);
    FileDeviceOptions view;
    view.offset = 100;
    view.length = 1000 * sector;
    EXPECT_EQ(open_device(path + "@1", view).error().code, EINVAL);
}

}  // namespace
}  // namespace uext4
