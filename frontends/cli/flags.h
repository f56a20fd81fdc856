// Flags of inodes, by the letters of chattr(1).
#pragma once

#include <cstdint>
#include <string>

namespace uext4::cli {

// The end of the verb for a letter that is none.
std::uint32_t flag_of(char letter);
// As by lsattr(1): one letter or '-' for each flag.
std::string flags_text(std::uint32_t bits);
// Without the dashes.
std::string letters_of(std::uint32_t bits);

}  // namespace uext4::cli
