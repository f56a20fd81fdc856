#include "cli/text.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

namespace uext4::cli {

namespace {

// The length of the character that `text` begins with, which is not empty; 0 when those bytes are no UTF-8.
std::size_t character(std::string_view text) {
    const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    if (at(0) < 0x80) return 1;
    const std::size_t length = at(0) >= 0xF0 ? 4 : at(0) >= 0xE0 ? 3 : 2;
    if (at(0) < 0xC2 || at(0) > 0xF4 || text.size() < length) return 0;
    std::uint32_t code = at(0) & (0xFFu >> (length + 1));
    for (std::size_t i = 1; i < length; ++i) {
        if ((at(i) & 0xC0) != 0x80) return 0;
        code = code << 6 | (at(i) & 0x3Fu);
    }
    // No longer form than needed, no half of a UTF-16 pair, nothing beyond the last character.
    if ((length == 3 && code < 0x800) || (length == 4 && code < 0x10000)) return 0;
    return (code >= 0xD800 && code <= 0xDFFF) || code > 0x10FFFF ? 0 : length;
}

// C0, DEL, and C1, which terminals obey in UTF-8 as well.
bool is_control(std::string_view one) {
    const auto first = static_cast<unsigned char>(one[0]);
    return first < 32 || first == 127 || (first == 0xC2 && static_cast<unsigned char>(one[1]) < 0xA0);
}

bool is_terminal(int fd) { return ::isatty(fd) == 1; }

}  // namespace

std::string below(const std::string& directory, const std::string& name) {
    return directory + (directory.ends_with('/') ? "" : "/") + name;
}

bool is_utf8(std::string_view text) {
    while (!text.empty()) {
        const std::size_t length = character(text);
        if (length == 0) return false;
        text.remove_prefix(length);
    }
    return true;
}

std::string escaped(std::string_view text) {
    std::string out;
    while (!text.empty()) {
        const std::size_t length = character(text);
        const std::string_view one = text.substr(0, std::max<std::size_t>(length, 1));
        text.remove_prefix(one.size());
        if (one == "\\") out += "\\\\";
        else if (length != 0 && !is_control(one)) out += one;
        else
            for (const char c : one) out += fmt::format("\\{:03o}", static_cast<unsigned char>(c));
    }
    return out;
}

std::string printable(std::string_view text) { return is_terminal(STDOUT_FILENO) ? escaped(text) : std::string(text); }

std::string quote(std::string_view text) { return is_terminal(STDERR_FILENO) ? escaped(text) : std::string(text); }

std::string human_size(std::uint64_t bytes) {
    if (bytes < 1024) return std::to_string(bytes);
    constexpr std::string_view letters = "KMGTPE";
    // Exact, and rounded up: 2^64 times ten does not fit into 64 bits.
    using Wide = unsigned __int128;
    for (std::size_t i = 0;; ++i) {
        const Wide unit = Wide{1} << (10 * (i + 1));
        const auto tenths = static_cast<std::uint64_t>((Wide{bytes} * 10 + unit - 1) / unit);
        if (tenths < 100) return fmt::format("{}.{}{}", tenths / 10, tenths % 10, letters[i]);
        const auto whole = static_cast<std::uint64_t>((Wide{bytes} + unit - 1) / unit);
        if (whole < 1024 || i + 1 == letters.size()) return fmt::format("{}{}", whole, letters[i]);
    }
}

void set_text(Json& object, const std::string& key, std::string_view text) {
    object[key] = text;
    if (is_utf8(text)) return;
    std::string bytes;
    for (const char c : text) bytes += fmt::format("{:02x}", static_cast<unsigned char>(c));
    object[key + "_bytes"] = std::move(bytes);
}

void print(const Json& json) {
    fmt::print("{}\n", json.dump(2, ' ', is_terminal(STDOUT_FILENO), Json::error_handler_t::replace));
}

std::string line_of(const Json& json) {
    return json.dump(-1, ' ', is_terminal(STDOUT_FILENO), Json::error_handler_t::replace);
}

void print_members(const Json& object, int width) {
    for (const auto& [key, value] : object.items())
        if (!key.ends_with("_bytes"))
            fmt::print("{:>{}}: {}\n", key, width,
                       value.is_string() ? printable(value.get_ref<const std::string&>()) : value.dump());
}

}  // namespace uext4::cli
