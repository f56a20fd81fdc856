// What was tried, and what came of it: for people, for programs and for the documentation.
#pragma once

#include "tests/crash/states.h"

#include <array>
#include <string>
#include <vector>

namespace uext4::crash {

enum class Kernel : std::uint8_t { not_asked, cannot_mount, judges };

struct Tally {
    std::string workload, format, mode;
    std::size_t sequences = 0, recordings = 0;    // that there are, that were run
    std::array<std::size_t, cut_kinds> states{};  // distinct images
    std::size_t cut_recoveries = 0, second_lives = 0, by_e2fsck = 0, ours_by_e2fsck = 0, by_kernel = 0, failures = 0;
    std::uint64_t trace = 0;        // of all images, in their order
    bool repeated = true;           // the same each time
    unsigned prefix_percent = 100;  // of the prefixes of a sequence that was run, those that were tried
    std::size_t at_limit = 0;       // sequences that ended where the number of states did
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
    std::string format, mode, between, kind, cut, problem, image, not_kept, again;  // `not_kept`: why there is no image
    std::vector<std::string> steps;                                                 // with their places in the log
};

std::string text_of(const Failure& failure);
// One sentence each, for all reports: which prefixes were tried; who else judged how many images; what still held on a
// device whose flush lies.
std::string prefixes_of(const std::vector<Tally>& tallies);
std::string judges_of(const std::vector<Tally>& tallies, Kernel kernel);
std::string lying_of(const std::vector<Tally>& tallies);
// The tables of the documentation; `distinct` images were judged.
std::string markdown(const std::vector<Tally>& tallies, std::size_t distinct, double seconds, Kernel kernel);
// A file with the marks <!-- NAME: begin --> and <!-- NAME: end --> keeps what is outside of them.
Result<void> write_between_marks(const std::string& path, const std::string& name, const std::string& text);
Result<void> write_text(const std::string& path, const std::string& text);
// Nothing of it changes; it is made when it is not there.
Result<void> can_be_written(const std::string& path);
// Files can be made in the folder, or in one of its name that is not there yet.
Result<void> can_be_filled(const std::string& folder);
std::string html(const std::vector<Tally>& tallies, const std::vector<Failure>& failures, Kernel kernel);
std::string json(const std::vector<Tally>& tallies, const std::vector<Failure>& failures, Kernel kernel);

}  // namespace uext4::crash
