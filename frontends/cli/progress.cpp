#include "cli/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

namespace uext4::cli {

namespace {

constexpr std::uint64_t entry_weight = 4096;
constexpr std::size_t bar_width = 30, name_width = 36;
constexpr std::chrono::milliseconds between_drawings{100};

}  // namespace

std::uint64_t Progress::weight(const struct stat& st) {
    if (!S_ISREG(st.st_mode)) return entry_weight;
    return entry_weight +
           std::min(static_cast<std::uint64_t>(st.st_size), static_cast<std::uint64_t>(st.st_blocks) * 512);
}

void Progress::begin(std::string_view name) {
    if (!shown_) return;
    name_ = name.substr(0, name_width);
    // What a terminal would take for a command.
    std::ranges::replace_if(name_, [](char c) { return static_cast<unsigned char>(c) < 32 || c == 127; }, '?');
    draw(!drawn_);
}

void Progress::advance(std::uint64_t bytes) {
    inside_ += bytes;
    draw(false);
}

void Progress::finish(const struct stat& st) {
    finished_ += weight(st);
    inside_ = 0;
    draw(finished_ >= expected_);
}

void Progress::clear() {
    if (drawn_) fmt::print(stderr, "\r\033[K");
    drawn_ = false;
}

void Progress::draw(bool now) {
    const auto time = std::chrono::steady_clock::now();
    if (!shown_ || (!now && time - last_ < between_drawings)) return;
    last_ = time;
    drawn_ = true;
    // Files may have grown since they were counted.
    const std::uint64_t whole = std::max<std::uint64_t>(expected_, 1), done = std::min(whole, finished_ + inside_);
    const auto part = static_cast<double>(done) / static_cast<double>(whole);
    const auto full = static_cast<std::size_t>(part * bar_width);
    fmt::print(stderr, "\r\033[K[{}{}] {:3}% of {} MiB  {}", std::string(full, '#'), std::string(bar_width - full, '.'),
               static_cast<int>(part * 100), (whole + (1 << 20) - 1) >> 20, name_);
}

}  // namespace uext4::cli
