// The known wrong designs: each is the shipped code with calls left out, moved or weakened by a seam (src/base/seam.h).
// One file of this folder each, compiled into the explorer; README.md lists them.
#pragma once

#include "tests/explore/outcome.h"

#include <cstdint>
#include <string>
#include <vector>

namespace uext4::designs {

struct Found {
    std::string scenario;
    std::uint64_t within;  // schedules, by random choice and by PCT, whatever the seed
};

struct WrongDesign {
    std::string name;
    std::string problem;             // A to K, or - beyond them
    std::vector<std::string> seams;  // that are turned off
    std::string change;              // what is removed, reordered or weakened: half a sentence
    std::string seen;                // what must be seen
    // How it is found. That a lock is taken against the order is only counted: it has to break something.
    std::vector<explore::Failure> ends_as;
    std::vector<Found> found;
};

const std::vector<WrongDesign>& all();  // by name

// By a static object in each design's file.
struct Register {
    explicit Register(WrongDesign design);
};

}  // namespace uext4::designs
