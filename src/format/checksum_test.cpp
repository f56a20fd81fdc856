// Check values of the CRC catalogue, and of the properties that callers rely on.
#include "format/checksum.h"

#include <gtest/gtest.h>

namespace uext4::format {
namespace {

const ConstBytes digits = bytes_of_string("123456789", 9);

TEST(Checksum, CheckValues) {
    EXPECT_EQ(crc32c(~0u, digits), ~0xE3069283u);
    EXPECT_EQ(crc16(0, digits), 0xBB3D);
    EXPECT_EQ(crc16(0xFFFF, digits), 0x4B37);
    EXPECT_EQ(crc32_be(~0u, digits), 0x0376E6E7u);
}

TEST(Checksum, Chains) {
    for (std::size_t cut = 0; cut <= digits.size(); ++cut) {
        EXPECT_EQ(crc32c(crc32c(~0u, digits.first(cut)), digits.subspan(cut)), crc32c(~0u, digits));
        EXPECT_EQ(crc16(crc16(0xFFFF, digits.first(cut)), digits.subspan(cut)), crc16(0xFFFF, digits));
        EXPECT_EQ(crc32_be(crc32_be(~0u, digits.first(cut)), digits.subspan(cut)), crc32_be(~0u, digits));
    }
}

TEST(Checksum, IntegersCountAsLittleEndian) {
    const std::byte little[] = {std::byte{4}, std::byte{3}, std::byte{2}, std::byte{1}};
    EXPECT_EQ(crc32c_le<std::uint32_t>(7, 0x01020304), crc32c(7, little));
}

}  // namespace
}  // namespace uext4::format
