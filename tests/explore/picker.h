// Who runs next, who is woken, what fails: the algorithms behind one small interface.
#pragma once

#include "tests/explore/outcome.h"

#include <cstdint>
#include <memory>
#include <span>

namespace uext4::explore {

struct Candidate {
    int value;   // a thread; of an error, how the request fails
    bool timer;  // waits with a limit: chosen, its time has passed
};

struct Choice {
    Moment at;
    Chosen kind;
    int current;                            // the thread that is here
    bool can_stay;                          // it may go on
    bool yields;                            // and asks for others to go first
    int standard;                           // what is chosen without a reason to do otherwise
    std::span<const Candidate> candidates;  // ascending; of threads includes `current` when it may go on
};

class Picker {
public:
    virtual ~Picker() = default;
    // Called before each schedule. False: there is no other schedule.
    virtual bool begin(std::uint64_t schedule) = 0;
    virtual int pick(const Choice& choice) = 0;
    // Called after each schedule that ended well.
    virtual void end(std::uint32_t /*steps*/) {}
};

// At each step, with a probability drawn for each schedule, some other thread.
std::unique_ptr<Picker> make_random(std::uint64_t seed);
// Probabilistic concurrency testing: random priorities, and a few steps at which the running thread drops to the
// lowest.
std::unique_ptr<Picker> make_pct(std::uint64_t seed);
// All schedules with no deviation from the default, then all with one, with two, ...
std::unique_ptr<Picker> make_dfs();
// One schedule, again. `followed`, if given, has a byte for each of its choices, set when it could be made.
std::unique_ptr<Picker> make_replay(Schedule schedule, std::span<char> followed = {});

// How the random algorithms treat errors: with a probability drawn for each schedule; one in eight lasts.
int pick_error(class Random& random, std::uint64_t one_in, const Choice& choice);
inline constexpr std::uint64_t error_rates[] = {2, 4, 8, 16, 32, 64};

// A small generator with a stable sequence on every host.
class Random {
public:
    explicit Random(std::uint64_t seed) : state_(seed) {}
    std::uint64_t next() {
        std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
    }
    std::uint64_t below(std::uint64_t n) { return n ? next() % n : 0; }

private:
    std::uint64_t state_;
};

}  // namespace uext4::explore
