// What the library asks the host for is the same in every run: its clock and its random numbers are ours in a program
// that has this linked in. (The clocks that only measure go on as they are.)
#pragma once

#include <cstdint>

namespace uext4::crash {

inline constexpr std::int64_t fixed_time = 1750000000;  // where it begins; also what mke2fs is told

// From here on everything is as after any other call of this with the same number, and so many steps of the clock.
void restart_host(unsigned steps = 0);
// The clock stands still until it is told to go on.
void advance_clock();

}  // namespace uext4::crash
