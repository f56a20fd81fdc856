// Numbers with their noun, for messages.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace uext4 {

// "1 cluster", "2 clusters". `plural`: where it is not the noun with an s.
inline std::string counted(std::uint64_t number, std::string_view noun, std::string_view plural = {}) {
    if (number == 1) return fmt::format("1 {}", noun);
    return plural.empty() ? fmt::format("{} {}s", number, noun) : fmt::format("{} {}", number, plural);
}

}  // namespace uext4
