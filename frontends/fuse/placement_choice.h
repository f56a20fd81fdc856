// Whether the thread that reads requests does better beside its caller or where the kernel puts it: found by trying.
//
// What a wake-up across CPUs costs, and what a CPU that is kept awake takes from the other one, differs by an order of
// magnitude between machines, and the kernel tells neither. So while requests come one after another, both ways get a
// few milliseconds by turns. The one that answered more requests is kept for a while, and for longer each time when
// another trial finds the same, but not when requests come at another pace than they did: then something else is done.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>

namespace uext4::fuse {

class PlacementChoice {
public:
    using Time = std::chrono::microseconds;

    // That many requests came in the time since the last call.
    void saw(std::uint32_t requests, Time time);
    // Where the thread is to be from now on.
    bool is_beside() const { return beside_; }
    bool is_trying() const { return step_ >= 0; }

private:
    static constexpr Time first_trial{30'000}, hold{500'000}, longest_hold{8'000'000};

    struct Count {
        std::uint64_t requests = 0;
        Time time{};
        void add(std::uint32_t more, Time in);
        std::uint64_t a_second() const;
    };

    void begin_trial();
    void begin_step();
    void decide();
    bool has_other_pace(std::uint32_t requests, Time time);

    bool beside_ = true;  // now
    bool chosen_ = true;  // outside of a trial
    int step_ = -1;       // of the trial that there is
    Time in_step_{};      // since it began
    Time busy_{};         // since the last trial
    Time until_trial_ = first_trial;
    std::array<Count, 2> counts_{};  // apart, beside
    std::uint64_t pace_ = 0;         // a second, where it stayed after the last trial
    Count lately_;
};

}  // namespace uext4::fuse
