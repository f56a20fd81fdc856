// What is said of images that hold no file system of ours.
#include "device/contents.h"

#include "device/signatures.h"
#include "tests/doubles/memory_device.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace uext4 {
namespace {

std::string described(std::size_t size, std::uint64_t offset, std::string_view bytes) {
    MemoryDevice device(size);
    EXPECT_TRUE(device.write(offset, std::as_bytes(std::span(bytes))));
    return describe_contents(device);
}

TEST(Contents, AreNamedAndSayHowToGetAtThem) {
    using namespace std::string_view_literals;
    struct Case {
        std::uint64_t offset;
        std::string_view bytes, what, advice;
    };
    for (const Case& c : {Case{0, "QFI\xfb"sv, "a qcow2 image", "qemu-img convert"},
                          {0, "\x3a\xff\x26\xed"sv, "an Android sparse image", "simg2img"},
                          {0, "LUKS\xba\xbe"sv, "encrypted volume (LUKS)", "cryptsetup open"},
                          {0x218, "LVM2 001"sv, "a physical volume of LVM", "vgchange"},
                          {0, "\x1f\x8b\x08"sv, "compressed by gzip", "gzip -dc"},
                          {0, "hsqs"sv, "a squashfs file system", "unsquashfs"},
                          {0x10040, "_BHRfS_M"sv, "a btrfs file system", "mount -t btrfs"},
                          {0x8001, "CD001"sv, "an ISO 9660 file system", "mount -t iso9660"},
                          {(1 << 20) - 512, "conectix"sv, "a VHD image", "qemu-img convert -f vpc"},
                          {0, ""sv, "begins with zeros", "mkfs.ext4"}}) {
        const std::string said = described(1 << 20, c.offset, c.bytes);
        EXPECT_NE(said.find(c.what), std::string::npos) << said;
        EXPECT_NE(said.find(c.advice), std::string::npos) << said;
    }
    EXPECT_EQ(described(1 << 20, 0, "nothing that anybody knows"), "");
}

// Of bytes that end anywhere nothing is taken for more than there is.
TEST(Contents, MayEndAnywhere) {
    for (const std::size_t size : {0, 1, 2, 3, 7, 100, 511, 512, 1023, 1024, 4095, 4096, 65535, 65536, 65600}) {
        MemoryDevice zeros(size);
        EXPECT_NO_FATAL_FAILURE((void)describe_contents(zeros)) << size;
        if (size > 3) EXPECT_NE(described(size, 0, "\x28\xb5\x2f\xfd").find("zstd"), std::string::npos) << size;
    }
}

TEST(Contents, OfAnyBytesAreNoCrash) {
    std::mt19937 random(1);
    for (int i = 0; i < 200; ++i) {
        std::vector<std::byte> bytes(70000);
        for (std::byte& b : bytes) b = static_cast<std::byte>(random());
        MemoryDevice device(bytes.size());
        ASSERT_TRUE(device.write(0, bytes));
        (void)describe_contents(device);
    }
}

}  // namespace
}  // namespace uext4
