#include "cli/damage_notes.h"

#include "cli/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <mutex>
#include <string_view>
#include <vector>

namespace uext4::cli {

namespace {

constexpr std::string_view damage_prefix = "damage: ";

struct Damage {
    std::string image, what;
    bool writable;
};

std::mutex lock;  // any thread of the file system writes to the log
std::vector<Damage> found;
std::vector<std::string> failures;

bool is_named(const Damage& damage) {
    return std::ranges::any_of(
        failures, [&](const std::string& failure) { return failure.find(damage.what) != std::string::npos; });
}

}  // namespace

void note_log_line(const std::string& image, bool writable, const std::string& line) {
    const std::lock_guard locked(lock);
    if (!line.starts_with(damage_prefix)) {
        fmt::print(stderr, "uext4: {}\n", quote(line));
        return;
    }
    Damage damage{image, line.substr(damage_prefix.size()), writable};
    const auto is_same = [&](const Damage& d) { return d.image == damage.image && d.what == damage.what; };
    if (std::ranges::none_of(found, is_same)) found.push_back(std::move(damage));
}

void note_failure(const std::string& what) {
    const std::lock_guard locked(lock);
    if (!found.empty()) failures.push_back(what);
}

bool print_damage(const std::string& verb) {
    const std::lock_guard locked(lock);
    std::string written_to;
    for (const Damage& damage : found) {
        if (is_named(damage)) continue;
        fmt::print(stderr, "uext4 {}: {}: {}\n", verb, quote(damage.image), quote(damage.what));
        if (damage.writable) written_to = damage.image;
    }
    found.clear();
    failures.clear();
    if (written_to.empty()) return false;
    fmt::print(stderr, "uext4 {}: {}: the image is damaged: uext4 check lists the damage, e2fsck -f repairs it\n", verb,
               quote(written_to));
    return true;
}

}  // namespace uext4::cli
