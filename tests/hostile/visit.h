// Does with an image what a user could: mounts, walks, reads, changes, removes, checks, unmounts.
#pragma once

#include "tests/hostile/seed_image.h"

#include <string>
#include <vector>

namespace uext4::hostile {

struct Visit {
    bool mounted = false;
    // Errors that speak of damage (EUCLEAN, EIO, EFSCORRUPTED and what mounting refused), lines of the log, and what
    // the check found as "where: what".
    std::vector<std::string> said;
    std::uint64_t steps = 0;  // operations made
};

// Nothing is walked beyond this, so that a directory that contains itself ends.
inline constexpr std::uint64_t most_entries = 1500;
inline constexpr unsigned deepest = 12;

bool names_one_of(const std::string& text, const std::vector<std::string>& words);
// What every message has to do: name a structure, and a number where there is more than one of them.
bool names_a_structure(const std::string& text);

Visit look_at(const std::shared_ptr<BlockDevice>& device);  // read-only, with check
Visit change(const std::shared_ptr<BlockDevice>& device);   // writes, removes, unmounts; the image is changed

// Operations that bytes choose, on names that the image has or not; with memory maps, and mounts in between.
Visit operate(const std::shared_ptr<MemoryDevice>& device, ConstBytes program);

}  // namespace uext4::hostile
