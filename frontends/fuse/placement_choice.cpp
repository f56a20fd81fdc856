#include "fuse/placement_choice.h"

#include <algorithm>

namespace uext4::fuse {

namespace {

using Time = PlacementChoice::Time;

constexpr int steps = 8;             // other, chosen, chosen, other, and again: what drifts is shared evenly
constexpr Time settling{4'000};      // of each step: until the thread is where it is to be
constexpr Time step_length{12'000};  // with that
constexpr Time least_pace{500};      // for a request: rarer ones say nothing about wake-ups
constexpr unsigned clearly = 108;    // percent that another place has to be better
constexpr Time long_enough{24'000};  // to know a pace
constexpr Time between_trials{200'000};

bool tries_other(int step) { return step % 4 == 0 || step % 4 == 3; }

}  // namespace

void PlacementChoice::Count::add(std::uint32_t more, Time in) {
    requests += more;
    time += in;
}

std::uint64_t PlacementChoice::Count::a_second() const {
    return time.count() == 0 ? 0 : requests * 1'000'000 / static_cast<std::uint64_t>(time.count());
}

void PlacementChoice::begin_trial() {
    busy_ = Time{};
    counts_ = {};
    step_ = 0;
    begin_step();
}

void PlacementChoice::begin_step() {
    in_step_ = Time{};
    beside_ = tries_other(step_) ? !chosen_ : chosen_;
}

void PlacementChoice::decide() {
    const std::uint64_t other = counts_[chosen_ ? 0 : 1].a_second(), same = counts_[chosen_ ? 1 : 0].a_second();
    const bool moves = other * 100 > same * clearly;
    until_trial_ = moves ? hold : std::clamp(2 * until_trial_, hold, longest_hold);
    if (moves) chosen_ = !chosen_;
    pace_ = moves ? other : same;
    lately_ = {};
}

// By more than a quarter.
bool PlacementChoice::has_other_pace(std::uint32_t requests, Time time) {
    lately_.add(requests, time);
    if (lately_.time < long_enough) return false;
    const std::uint64_t now = lately_.a_second();
    lately_ = {};
    return now * 4 < pace_ * 3 || now * 4 > pace_ * 5;
}

void PlacementChoice::saw(std::uint32_t requests, Time time) {
    if (requests == 0 || time / requests > least_pace) {
        // A pause: what was counted before it says nothing about what comes behind it.
        step_ = -1;
        beside_ = chosen_;
        lately_ = {};
        return;
    }
    if (step_ < 0) {
        busy_ += time;
        const bool changes = has_other_pace(requests, time);
        if (busy_ >= until_trial_ || (changes && busy_ >= between_trials)) begin_trial();
        return;
    }
    in_step_ += time;
    if (in_step_ > settling) counts_[beside_ ? 1 : 0].add(requests, time);
    if (in_step_ < step_length) return;
    if (++step_ < steps) return begin_step();
    step_ = -1;
    decide();
    beside_ = chosen_;
}

}  // namespace uext4::fuse
