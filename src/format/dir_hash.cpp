#include "format/dir_hash.h"

#include <algorithm>
#include <bit>

namespace uext4::format {

namespace {

// The value of a name's byte, by the signedness of the machine that made the file system.
std::uint32_t character(char c, bool is_unsigned) {
    return is_unsigned ? static_cast<std::uint32_t>(static_cast<unsigned char>(c))
                       : static_cast<std::uint32_t>(static_cast<std::int32_t>(static_cast<signed char>(c)));
}

// `words` words of text; short text is padded with its length.
void pack(std::string_view text, std::uint32_t* out, unsigned words, bool is_unsigned) {
    std::uint32_t pad = static_cast<std::uint32_t>(text.size());
    pad |= pad << 8;
    pad |= pad << 16;
    const std::size_t used = std::min<std::size_t>(text.size(), words * 4);
    for (unsigned w = 0; w < words; ++w) {
        std::uint32_t value = pad;
        for (unsigned k = 0; k < 4 && w * 4 + k < used; ++k)
            value = (value << 8) + character(text[w * 4 + k], is_unsigned);
        out[w] = value;
    }
}

std::uint32_t legacy(std::string_view name, bool is_unsigned) {
    std::uint32_t newer = 0x12A3FE2D, older = 0x37ABE8F9;
    for (char c : name) {
        std::uint32_t hash = older + (newer ^ (character(c, is_unsigned) * 7152373u));
        if (hash & 0x80000000u) hash -= 0x7FFFFFFFu;
        older = newer;
        newer = hash;
    }
    return newer << 1;
}

// MD4's three round functions with half of its steps.
void half_md4(std::uint32_t state[4], const std::uint32_t in[8]) {
    std::uint32_t r[4] = {state[0], state[1], state[2], state[3]};
    constexpr unsigned order[3][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {1, 3, 5, 7, 0, 2, 4, 6}, {3, 7, 2, 6, 1, 5, 0, 4}};
    constexpr int shift[3][4] = {{3, 7, 11, 19}, {3, 5, 9, 13}, {3, 9, 11, 15}};
    constexpr std::uint32_t constant[3] = {0, 0x5A827999, 0x6ED9EBA1};
    for (unsigned round = 0; round < 3; ++round) {
        for (unsigned step = 0; step < 8; ++step) {
            // The target goes a, d, c, b; the other three follow it in order.
            std::uint32_t& a = r[(4 - step % 4) % 4];
            const std::uint32_t b = r[(5 - step % 4) % 4], c = r[(6 - step % 4) % 4], d = r[(7 - step % 4) % 4];
            std::uint32_t f;
            if (round == 0) f = d ^ (b & (c ^ d));
            else if (round == 1) f = (b & c) + ((b ^ c) & d);
            else f = b ^ c ^ d;
            a = std::rotl(a + f + in[order[round][step]] + constant[round], shift[round][step % 4]);
        }
    }
    for (unsigned i = 0; i < 4; ++i) state[i] += r[i];
}

void tea(std::uint32_t state[4], const std::uint32_t key[4]) {
    std::uint32_t sum = 0, y = state[0], z = state[1];
    for (int n = 0; n < 16; ++n) {
        sum += 0x9E3779B9;
        y += ((z << 4) + key[0]) ^ (z + sum) ^ ((z >> 5) + key[1]);
        z += ((y << 4) + key[2]) ^ (y + sum) ^ ((y >> 5) + key[3]);
    }
    state[0] += y;
    state[1] += z;
}

}  // namespace

std::optional<DirHash> dir_hash(std::string_view name, HashVersion version, const std::array<std::uint32_t, 4>& seed) {
    std::uint32_t state[4] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476};
    if (seed[0] | seed[1] | seed[2] | seed[3])
        for (unsigned i = 0; i < 4; ++i) state[i] = seed[i];
    const bool is_unsigned = version == HashVersion::legacy_unsigned || version == HashVersion::half_md4_unsigned ||
                             version == HashVersion::tea_unsigned;
    DirHash out;
    switch (version) {
        case HashVersion::legacy:
        case HashVersion::legacy_unsigned: out.major = legacy(name, is_unsigned); break;
        case HashVersion::half_md4:
        case HashVersion::half_md4_unsigned:
            for (std::size_t at = 0; at < name.size(); at += 32) {
                std::uint32_t in[8];
                pack(name.substr(at), in, 8, is_unsigned);
                half_md4(state, in);
            }
            out.major = state[1];
            out.minor = state[2];
            break;
        case HashVersion::tea:
        case HashVersion::tea_unsigned:
            for (std::size_t at = 0; at < name.size(); at += 16) {
                std::uint32_t in[4];
                pack(name.substr(at), in, 4, is_unsigned);
                tea(state, in);
            }
            out.major = state[0];
            out.minor = state[1];
            break;
        default: return std::nullopt;
    }
    out.major &= ~1u;
    // The largest value marks the end of a directory.
    if (out.major == 0xFFFFFFFEu) out.major = 0xFFFFFFFCu;
    return out;
}

}  // namespace uext4::format
