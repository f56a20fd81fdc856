// Words of a command line that are numbers. Each ends the verb, naming the word, when it is none or too large; verbs
// look at their words before they open an image, so that a wrong one changes nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace uext4::cli {

struct Owner {
    std::optional<std::uint32_t> uid, gid;
};

Owner owner_of(const std::string& text);                              // UID, UID:GID or :GID
std::pair<std::uint32_t, std::uint32_t> pair_of(const std::string&);  // of ids: A:B
std::uint16_t mode_of(const std::string& text);                       // octal, at most 7777
std::uint64_t size_of(const std::string& text);                       // bytes, or with k, M, G, T
bool is_numeric(const std::string& text);                             // digits alone

}  // namespace uext4::cli
