// Permissions as chmod(1) takes them: octal, or like u+rwX,g-w,o=g.
#pragma once

#include <cstdint>
#include <string>

namespace uext4::cli {

// The permission bits that `text` makes of `old`, without a umask. Ends the verb when it is no mode.
std::uint16_t new_mode(std::uint16_t old, const std::string& text, bool directory);

}  // namespace uext4::cli
