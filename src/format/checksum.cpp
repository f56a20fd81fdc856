#include "format/checksum.h"

#include <isa-l/crc.h>

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace uext4::format {

#if defined(__x86_64__)
namespace {

// The pieces of an inode or a descriptor: for so few bytes the library's way in costs more than the bytes.
constexpr std::size_t few = 192;

bool has_instruction() {
    static const bool has = __builtin_cpu_supports("sse4.2");
    return has;
}

__attribute__((target("sse4.2"))) std::uint32_t crc32c_of_few(std::uint32_t seed, ConstBytes bytes) {
    const std::byte* at = bytes.data();
    std::size_t left = bytes.size();
    std::uint64_t crc = seed;
    for (; left >= sizeof crc; left -= sizeof crc, at += sizeof crc) {
        std::uint64_t word;
        std::memcpy(&word, at, sizeof word);
        crc = _mm_crc32_u64(crc, word);
    }
    auto rest = static_cast<std::uint32_t>(crc);
    for (; left > 0; --left, ++at) rest = _mm_crc32_u8(rest, std::to_integer<std::uint8_t>(*at));
    return rest;
}

}  // namespace
#endif

std::uint32_t crc32c(std::uint32_t seed, ConstBytes bytes) {
#if defined(__x86_64__)
    if (bytes.size() <= few && has_instruction()) return crc32c_of_few(seed, bytes);
#endif
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
