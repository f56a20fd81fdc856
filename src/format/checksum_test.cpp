// Check values of the CRC catalogue, and of the properties that callers rely on.
#include "format/checksum.h"

#include <gtest/gtest.h>

#include <vector>

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

// Short runs are worked out otherwise than long ones: of every length, at every place, both agree with one bit at a
// time.
TEST(Checksum, EveryLengthAndPlace) {
    const auto bit_by_bit = [](std::uint32_t crc, ConstBytes bytes) {
        for (const std::byte b : bytes) {
            crc ^= std::to_integer<std::uint32_t>(b);
            for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? (crc >> 1) ^ 0x82F63B78u : crc >> 1;
        }
        return crc;
    };
    std::vector<std::byte> bytes(1100);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * i % 251 + 3);
    for (std::size_t at = 0; at < 9; ++at)
        for (std::size_t length = 0; length + at < 600; ++length) {
            const ConstBytes run = ConstBytes(bytes).subspan(at, length);
            ASSERT_EQ(crc32c(0x1234567u, run), bit_by_bit(0x1234567u, run)) << length << " bytes at " << at;
        }
}

TEST(Checksum, IntegersCountAsLittleEndian) {
    const std::byte little[] = {std::byte{4}, std::byte{3}, std::byte{2}, std::byte{1}};
    EXPECT_EQ(crc32c_le<std::uint32_t>(7, 0x01020304), crc32c(7, little));
}

}  // namespace
}  // namespace uext4::format
