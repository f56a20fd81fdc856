#include "cli/arguments.h"

#include "cli/session.h"
#include "volume/options.h"

#include <charconv>

namespace uext4::cli {

namespace {

// All of the word, and no sign.
std::optional<std::uint64_t> number(std::string_view text, int base, std::uint64_t most) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (text.empty() || error != std::errc() || end != text.data() + text.size() || value > most) return {};
    return value;
}

// The largest number means "nobody" to system calls, and is no owner.
constexpr std::uint64_t largest_id = 0xFFFFFFFE;

std::uint32_t id_of(std::string_view text, const std::string& whole, const char* form) {
    const std::optional<std::uint64_t> id = number(text, 10, largest_id);
    if (!id) fail_with(exit_failure, fmt::format("'{}' is not {} with numbers up to {}", whole, form, largest_id));
    return static_cast<std::uint32_t>(*id);
}

}  // namespace

Owner owner_of(const std::string& text) {
    constexpr const char* form = "UID, UID:GID or :GID";
    Owner owner;
    const std::string_view all = text;
    const std::size_t colon = all.find(':');
    if (colon != 0) owner.uid = id_of(all.substr(0, colon), text, form);
    if (colon != std::string_view::npos) owner.gid = id_of(all.substr(colon + 1), text, form);
    return owner;
}

std::pair<std::uint32_t, std::uint32_t> pair_of(const std::string& text) {
    const std::string_view all = text;
    const std::size_t colon = std::min(all.find(':'), all.size());
    const std::string_view second = all.substr(std::min(colon + 1, all.size()));
    return {id_of(all.substr(0, colon), text, "A:B"), id_of(second, text, "A:B")};
}

bool is_numeric(const std::string& text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

std::uint16_t mode_of(const std::string& text) {
    const std::optional<std::uint64_t> mode = number(text, 8, 07777);
    if (!mode) fail_with(exit_failure, fmt::format("mode '{}' is not octal, up to 7777", text));
    return static_cast<std::uint16_t>(*mode);
}

std::uint64_t size_of(const std::string& text) {
    const Result<std::uint64_t> size = parse_size(text);
    if (!size)
        fail_with(exit_failure, fmt::format("size '{}' is not a number of bytes, or one with k, M, G or T", text));
    return *size;
}

}  // namespace uext4::cli
