// The descriptors that a process has of whoever started it and does not need.
#pragma once

#include <string>
#include <vector>

namespace uext4 {

// All from `first` on that are none of these.
void close_all_except(std::vector<int> kept, int first);

// Those beyond the three standard ones that no word of the command line names (/dev/fd/N and its other spellings): a
// process that has been taken over could use them, and locks would be held as long as it lives.
void close_unnamed(const std::vector<std::string>& words);

}  // namespace uext4
