#include "tests/explore/outcome.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace uext4::explore {

const char* failure_name(Failure failure) {
    switch (failure) {
        case Failure::none: return "nothing";
        case Failure::deadlock: return "deadlock";
        case Failure::lost_wakeup: return "lost wake-up";
        case Failure::livelock: return "livelock";
        case Failure::lock_order: return "abort";
        case Failure::crash: return "crash";
        case Failure::wrong: return "wrong result";
    }
    return "?";
}

std::string schedule_text(const Schedule& schedule) {
    std::string text;
    for (const Deviation& d : schedule) text += fmt::format("{}{}.{}", text.empty() ? "" : ",", d.step, d.thread);
    return text.empty() ? "-" : text;
}

bool parse_schedule(std::string_view text, Schedule& out) {
    out.clear();
    if (text == "-") return true;
    const char* at = text.data();
    const char* const end = at + text.size();
    while (at < end) {
        Deviation d;
        auto step = std::from_chars(at, end, d.step);
        if (step.ec != std::errc() || step.ptr == end || *step.ptr != '.') return false;
        auto thread = std::from_chars(step.ptr + 1, end, d.thread);
        if (thread.ec != std::errc()) return false;
        out.push_back(d);
        at = thread.ptr;
        if (at < end && *at++ != ',') return false;
    }
    return !out.empty();
}

void Shared::set_text(std::string_view message) {
    const std::size_t n = std::min(message.size(), text.size() - 1);
    std::memcpy(text.data(), message.data(), n);
    text[n] = 0;
}

}  // namespace uext4::explore
