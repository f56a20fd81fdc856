#include "format/checksum.h"

#include <isa-l/crc.h>

#include <array>

namespace uext4::format {

std::uint32_t crc32c(std::uint32_t seed, ConstBytes bytes) {
    // The library takes a mutable pointer and an int length; it only reads.
    auto* at = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(bytes.data()));
    std::size_t left = bytes.size();
    while (left > 0) {
        const int n = static_cast<int>(left < (1u << 30) ? left : (1u << 30));
        seed = crc32_iscsi(at, n, seed);
        at += n;
        left -= static_cast<std::size_t>(n);
    }
    return seed;
}

namespace {

constexpr std::array<std::uint16_t, 256> make_crc16() {
    std::array<std::uint16_t, 256> table{};
    for (unsigned i = 0; i < 256; ++i) {
        unsigned crc = i;
        for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? (crc >> 1) ^ 0xA001u : crc >> 1;
        table[i] = static_cast<std::uint16_t>(crc);
    }
    return table;
}
constexpr auto crc16_table = make_crc16();

constexpr std::array<std::uint32_t, 256> make_crc32_be() {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < 256; ++i) {
        std::uint32_t crc = i << 24;
        for (int bit = 0; bit < 8; ++bit) crc = crc & 0x80000000u ? (crc << 1) ^ 0x04C11DB7u : crc << 1;
        table[i] = crc;
    }
    return table;
}
constexpr auto crc32_be_table = make_crc32_be();

}  // namespace

std::uint16_t crc16(std::uint16_t seed, ConstBytes bytes) {
    for (std::byte b : bytes)
        seed = static_cast<std::uint16_t>((seed >> 8) ^ crc16_table[(seed ^ std::to_integer<unsigned>(b)) & 0xFF]);
    return seed;
}

std::uint32_t crc32_be(std::uint32_t seed, ConstBytes bytes) {
    for (std::byte b : bytes) seed = (seed << 8) ^ crc32_be_table[(seed >> 24) ^ std::to_integer<unsigned>(b)];
    return seed;
}

}  // namespace uext4::format
