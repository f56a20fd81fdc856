#include "tests/explore/outcome.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <iterator>
#include <limits>

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
    for (const Deviation& d : schedule) {
        text += fmt::format("{}{}", text.empty() ? "" : ",", d.at.step);
        if (d.at.sub) text += fmt::format("+{}", d.at.sub);
        text += fmt::format("{}{}", static_cast<char>(d.kind), d.value);
    }
    return text.empty() ? "-" : text;
}

bool parse_schedule(std::string_view text, Schedule& out) {
    out.clear();
    if (text == "-") return true;
    const char* at = text.data();
    const char* const end = at + text.size();
    while (at < end) {
        Deviation d;
        auto read = std::from_chars(at, end, d.at.step);
        if (read.ec != std::errc() || read.ptr == end) return false;
        if (*read.ptr == '+') read = std::from_chars(read.ptr + 1, end, d.at.sub);
        if (read.ec != std::errc() || read.ptr == end || !std::string_view(".we").contains(*read.ptr)) return false;
        d.kind = static_cast<Chosen>(*read.ptr);
        read = std::from_chars(read.ptr + 1, end, d.value);
        if (read.ec != std::errc()) return false;
        out.push_back(d);
        at = read.ptr;
        if (at == end) break;
        if (*at != ',') return false;
        ++at;
        if (at == end) return false;
    }
    return !out.empty();
}

std::span<char> put(std::span<char> out, std::string_view text) {
    const std::size_t n = std::min(out.size(), text.size());
    std::memcpy(out.data(), text.data(), n);
    return out.subspan(n);
}

std::span<char> put(std::span<char> out, unsigned number) {
    char digits[std::numeric_limits<unsigned>::digits10 + 1];
    const auto end = std::to_chars(std::begin(digits), std::end(digits), number).ptr;
    return put(out, std::string_view(digits, end));
}

void Shared::set_text(std::string_view message) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::span<char> left = std::span(text).first(text.size() - 1);
    for (const char c : message) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '\n' || (byte >= ' ' && byte < 0x7f)) {
            left = put(left, std::string_view(&c, 1));
            continue;
        }
        const char code[] = {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
        left = put(left, std::string_view(code, sizeof code));
    }
    text[text.size() - 1 - left.size()] = 0;
}

}  // namespace uext4::explore
