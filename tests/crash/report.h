// What was tried, and what came of it: for people, for programs and for the documentation.
#pragma once

#include "tests/crash/states.h"

#include <array>
#include <string>
#include <vector>

namespace uext4::crash {

struct Tally {
    std::string workload, format, mode;
    std::size_t sequences = 0, recordings = 0;    // that there are, that were run
    std::array<std::size_t, cut_kinds> states{};  // distinct images
    std::size_t cut_recoveries = 0, by_e2fsck = 0, by_kernel = 0, failures = 0;
    std::uint64_t trace = 0;  // of all images, in their order
    bool repeated = true;     // the same each time
    // On a device whose flush lies nothing is promised; what held all the same.
    std::size_t lying_opened = 0, lying_sound = 0, lying_kept = 0;

    std::size_t all_states() const {
        std::size_t n = 0;
        for (const std::size_t count : states) n += count;
        return n;
    }
    void add(const Tally& other);
};

struct Failure {
    std::string format, mode, between, kind, cut, problem, image, again;
    std::vector<std::string> steps;  // with their places in the log
};

std::string text_of(const Failure& failure);
// The tables of the documentation; `distinct` images were judged.
std::string markdown(const std::vector<Tally>& tallies, std::size_t distinct, double seconds, bool kernel);
// A file with the marks <!-- NAME: begin --> and <!-- NAME: end --> keeps what is outside of them.
Result<void> write_between_marks(const std::string& path, const std::string& name, const std::string& text);
Result<void> write_text(const std::string& path, const std::string& text);
// Nothing of it changes; it is made when it is not there.
Result<void> can_be_written(const std::string& path);
// Files can be made in the folder, or in one of its name that is not there yet.
Result<void> can_be_filled(const std::string& folder);
std::string html(const std::vector<Tally>& tallies, const std::vector<Failure>& failures);
std::string json(const std::vector<Tally>& tallies, const std::vector<Failure>& failures);

}  // namespace uext4::crash
