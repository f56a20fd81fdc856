#include "tests/crash/fixed_host.h"

#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <ctime>

namespace uext4::crash {

namespace {

constexpr std::int64_t milliseconds_a_step = 1004;  // the ticks of the clock are 4 ms

std::atomic<std::int64_t> milliseconds{0};
std::atomic<std::uint64_t> numbers_drawn{0};

timespec time_now() {
    const std::int64_t now = milliseconds.load();
    return {fixed_time + now / 1000, now % 1000 * 1000000};
}

std::uint64_t draw() {
    std::uint64_t z = (numbers_drawn.fetch_add(1) + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

}  // namespace

void restart_host(unsigned steps) {
    milliseconds.store(steps * milliseconds_a_step);
    numbers_drawn.store(steps * std::uint64_t{1000});
}

void advance_clock() { milliseconds.fetch_add(milliseconds_a_step); }

}  // namespace uext4::crash

// Those of the program go before those of the C library.
extern "C" {

int clock_gettime(clockid_t clock, timespec* out) noexcept {
    if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)
        return static_cast<int>(::syscall(SYS_clock_gettime, clock, out));
    *out = uext4::crash::time_now();
    return 0;
}

time_t time(time_t* out) noexcept {
    const time_t now = uext4::crash::time_now().tv_sec;
    if (out) *out = now;
    return now;
}

ssize_t getrandom(void* out, size_t length, unsigned) {
    for (size_t at = 0; at < length; at += sizeof(std::uint64_t)) {
        const std::uint64_t number = uext4::crash::draw();
        std::memcpy(static_cast<char*>(out) + at, &number, std::min(sizeof number, length - at));
    }
    return static_cast<ssize_t>(length);
}
}
