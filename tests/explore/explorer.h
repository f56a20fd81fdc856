// Explores one design of one scenario: in a child process, which a failure ends.
#pragma once

#include "tests/explore/scenario.h"

#include <chrono>
#include <memory>
#include <string>

namespace uext4::explore {

enum class Algorithm : std::uint8_t { random, pct, dfs };

struct Request {
    const Scenario* scenario = nullptr;
    const Design* design = nullptr;
    Algorithm algorithm = Algorithm::random;
    std::uint64_t schedules = 1000, seed = 1;
};

struct Found {
    Failure failure = Failure::none;
    std::string text;
    Schedule schedule;
    std::uint64_t number = 0;  // which schedule it was, from 1
    Schedule skipped;          // of a schedule that was run again: choices that could not be made
    Counters counters;
};

class Explorer {
public:
    Explorer();
    ~Explorer();

    // Runs schedules until one fails or all have run.
    Found explore(const Request& request);
    // One schedule again; `record`: shared() then has its events. What of it could not be followed is left out.
    Found replay(const Scenario& scenario, const Design& design, const Schedule& schedule, bool record);
    // The same failure with as few choices as can be found.
    Schedule shrink(const Scenario& scenario, const Design& design, const Found& found);
    const Shared& shared() const { return *shared_; }

private:
    Found in_child(const Scenario& scenario, const Design& design, Picker& picker, std::uint64_t schedules,
                   bool record);
    const std::shared_ptr<MemoryDevice>& image_of(const Scenario& scenario);
    Shared* shared_;
    const Scenario* image_scenario_ = nullptr;
    std::shared_ptr<MemoryDevice> image_;
};

}  // namespace uext4::explore
