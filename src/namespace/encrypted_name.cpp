#include "namespace/encrypted_name.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

namespace uext4 {

namespace {

constexpr std::size_t longest = 191;  // 255 characters
constexpr std::size_t beginning = 177;

std::string base64url(std::string_view bytes) {
    static constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    std::string out;
    for (std::size_t at = 0; at < bytes.size(); at += 3) {
        const std::size_t n = std::min<std::size_t>(3, bytes.size() - at);
        std::uint32_t three = 0;
        for (std::size_t i = 0; i < 3; ++i)
            three = three << 8 | (i < n ? static_cast<unsigned char>(bytes[at + i]) : 0);
        for (std::size_t digit = 0; digit <= n; ++digit) out += digits[three >> (18 - 6 * digit) & 63];
    }
    return out;
}

}  // namespace

std::string encoded_encrypted_name(std::string_view cipher, InodeNr inode) {
    if (cipher.size() <= longest) return base64url(cipher);
    return fmt::format("{}~{}", base64url(cipher.substr(0, beginning)), inode);
}

}  // namespace uext4
