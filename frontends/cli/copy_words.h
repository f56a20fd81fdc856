// The words of one copy, and what they say.
#pragma once

#include "cli/copy.h"
#include "cli/place_words.h"

#include <string>
#include <vector>

namespace uext4::cli {

class CopyWords {
public:
    void add_to(CLI::App& verb);
    // Each ends the verb for words that do not go together.
    CopyOptions options() const;
    std::vector<Place> places() const;

    CommonOptions common;

private:
    FollowLinks follow(bool recursive) const;
    void expect_contents_alone(const char* stream, bool output) const;

    const CLI::App* verb_ = nullptr;
    std::vector<std::string> places_, maps_;
    std::optional<std::string> owner_, mode_;
    bool archive_ = false, recursive_ = false, preserve_ = false, no_dereference_ = false;
    bool force_ = false, no_clobber_ = false, update_ = false, verbose_ = false;
};

// What a copy between these works with; the last one is the destination.
CopyNeeds needs_of(const std::vector<Place>& places, const CopyOptions& o);

}  // namespace uext4::cli
