// What a run tells: kept in memory that the process which explores shares with the one that started it, so that a
// deadlock, an abort or a crash in the middle of a schedule loses nothing.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace uext4::explore {

enum class Failure : std::uint8_t {
    none,
    deadlock,     // nobody can run, and some wait in a circle for what the next one holds
    lost_wakeup,  // nobody can run, and there is no such circle: a signal is missing
    livelock,     // the bound on the steps of one schedule
    lock_order,   // or another assertion: the process aborted
    crash,        // a signal
    wrong,        // contents, an invariant or an error that must not be
};
const char* failure_name(Failure failure);

enum class Chosen : char {
    thread = '.',  // who runs next
    woken = 'w',   // which of several that wait for a condition a notify_one wakes
    error = 'e',   // whether a request of the device fails: 0 no, 1 this one, 2 from now on
};

// Where a choice is made: a step, and how many atomics and choices of other kinds came since.
struct Moment {
    std::uint32_t step = 0, sub = 0;
    friend auto operator<=>(const Moment&, const Moment&) = default;
};

// A choice that differs from the default one.
struct Deviation {
    Moment at;
    Chosen kind = Chosen::thread;
    std::int32_t value = 0;  // the number of the thread, or how the request fails
    friend bool operator==(const Deviation&, const Deviation&) = default;
};
using Schedule = std::vector<Deviation>;

// "12.3,40+1.1,41w2,50+1e1", or "-" for none: with the scenario and the design in front it is a replay string.
std::string schedule_text(const Schedule& schedule);
bool parse_schedule(std::string_view text, Schedule& out);

// One line of the trace of a recorded run.
struct Event {
    Moment at;
    std::int16_t thread;
    std::uint8_t kind;     // a Point, or one of those below
    std::uint8_t held;     // locks held afterwards
    std::uint16_t source;  // index into Shared::names: file:line
    std::uint16_t name;    // of the lock, condition or request
    std::uint16_t locks[8];
};
inline constexpr std::uint8_t event_block = 200, event_exit = 201, event_timer = 202, event_error = 203;

struct Counters {
    std::uint64_t schedules = 0, steps = 0, distinct = 0;
    std::uint64_t contended_schedules = 0;  // in which at least one thread had to wait for what another one held
    std::uint64_t waits = 0;                // such waits
    std::uint64_t against_order = 0;  // acquisitions that the lock order forbids: they end only the shipped design
    std::uint64_t timers = 0;         // waits with a limit that were ended although somebody could run
    std::uint64_t errors = 0;         // requests that were made to fail
    std::uint64_t trace_hash = 0;     // of everything that was chosen, all schedules
};

// Into `out`, as far as it has room; the rest of it is returned. For signal handlers: nothing is allocated.
std::span<char> put(std::span<char> out, std::string_view text);
std::span<char> put(std::span<char> out, unsigned number);

struct Shared {
    static constexpr std::size_t max_deviations = 1 << 17, max_events = 1 << 17, max_names = 1 << 12;
    Counters counters;
    std::atomic<Failure> failure;
    std::array<char, 1 << 15> text;
    std::uint64_t failing_schedule;
    std::uint32_t deviation_count;
    std::array<Deviation, max_deviations> deviations;
    std::array<char, max_deviations> followed;  // of a schedule that was run again, whether each choice could be made
    // of a recorded run
    std::uint32_t event_count, name_count, thread_count;
    std::array<Event, max_events> events;
    std::array<std::array<char, 80>, max_names> names;
    std::array<std::array<char, 24>, 64> threads;

    // Bytes of a file that a message quotes and that are no text are written as \xNN.
    void set_text(std::string_view message);
    Schedule schedule() const { return {deviations.begin(), deviations.begin() + deviation_count}; }
};

}  // namespace uext4::explore
