// Paths, and bytes that anybody may have put into an image (names, targets of links, labels, attributes), as they are
// shown.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace uext4::cli {

using Json = nlohmann::ordered_json;

// "DIRECTORY/NAME", whether the directory ends with a slash or not.
std::string below(const std::string& directory, const std::string& name);

bool is_utf8(std::string_view text);

// What a terminal would take for a command, and bytes that are no UTF-8, as \ooo, and a backslash as \\, like `ls -b`.
std::string escaped(std::string_view text);
// For stdout and stderr: escaped when that is a terminal; otherwise, for programs, the bytes as they are.
std::string printable(std::string_view text);
std::string quote(std::string_view text);

// Bytes as `ls -h` prints them: 1023, 1.5K, 23M; rounded up.
std::string human_size(std::uint64_t bytes);

// Sets `key`. JSON has no bytes: for text that is no UTF-8 the member has U+FFFD where it is not, and `key`_bytes all
// of it in hexadecimal.
void set_text(Json& object, const std::string& key, std::string_view text);

void print(const Json& json);
std::string line_of(const Json& json);
// One line for each member, for people; the keys in a column.
void print_members(const Json& object, int width);

}  // namespace uext4::cli
