#include "pagecache/memory_info.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <string_view>
#include <utility>

namespace uext4 {

namespace {

std::optional<std::uint64_t> number_at(std::string_view text) {
    const std::size_t first = text.find_first_not_of(" \t");
    if (first == std::string_view::npos) return std::nullopt;
    std::uint64_t n = 0;
    const auto [end, error] = std::from_chars(text.data() + first, text.data() + text.size(), n);
    return error == std::errc() ? std::optional(n) : std::nullopt;
}

// The number behind `key`, which begins a line.
std::optional<std::uint64_t> field(std::string_view text, std::string_view key) {
    while (!text.empty()) {
        const std::string_view line = text.substr(0, text.find('\n'));
        if (line.starts_with(key)) return number_at(line.substr(key.size()));
        text.remove_prefix(std::min(text.size(), line.size() + 1));
    }
    return std::nullopt;
}

// Whether `list`, of words with commas between them, has `word`.
bool has_word(std::string_view list, std::string_view word) {
    while (!list.empty()) {
        const std::string_view one = list.substr(0, list.find(','));
        if (one == word) return true;
        list.remove_prefix(std::min(list.size(), one.size() + 1));
    }
    return false;
}

}  // namespace

std::string SystemMemoryInfo::File::text() const {
    const int fd = kept >= 0 ? kept : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return {};
    std::string all;
    char part[4096];
    for (;;) {
        const ssize_t n = ::pread(fd, part, sizeof part, static_cast<off_t>(all.size()));
        if (n <= 0) break;
        all.append(part, static_cast<std::size_t>(n));
    }
    if (fd != kept) ::close(fd);
    return all;
}

void SystemMemoryInfo::File::keep_open() {
    if (kept < 0) kept = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
}

// Nothing where it has no limit.
std::optional<std::uint64_t> SystemMemoryInfo::ControlGroup::available() const {
    std::optional<std::uint64_t> limit;
    for (const File& file : limits)
        if (const auto one = number_at(file.text())) limit = std::min(*one, limit.value_or(*one));
    // Version 1 says "no limit" by a number near the largest.
    constexpr std::uint64_t no_limit = std::uint64_t{1} << 60;
    if (!limit || *limit >= no_limit) return std::nullopt;
    const auto used = number_at(usage.text());
    if (!used) return std::nullopt;
    const std::uint64_t given_up = field(statistics.text(), reclaimable).value_or(0);
    const std::uint64_t taken = *used - std::min(*used, given_up);
    return *limit - std::min(*limit, taken);
}

SystemMemoryInfo::SystemMemoryInfo(std::string proc, std::string cgroup) : machine_{proc + "/meminfo"} {
    find_groups(proc, cgroup);
}

SystemMemoryInfo::~SystemMemoryInfo() {
    const auto end = [](const File& file) {
        if (file.kept >= 0) ::close(file.kept);
    };
    end(machine_);
    for (const ControlGroup& group : groups_) {
        for (const File& file : group.limits) end(file);
        end(group.usage);
        end(group.statistics);
    }
}

// /proc/self/cgroup has a line for each hierarchy: its number, its controllers, and the path of the process in it. In a
// container that path may be the host's, which is not there: what is there of it counts, up to the root.
void SystemMemoryInfo::find_groups(const std::string& proc, const std::string& cgroup) {
    const std::string all = File{proc + "/self/cgroup"}.text();
    for (std::string_view text = all; !text.empty();) {
        const std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(text.size(), line.size() + 1));
        const std::size_t first = line.find(':'), second = line.find(':', first + 1);
        if (first == std::string_view::npos || second == std::string_view::npos) continue;
        const std::string_view controllers = line.substr(first + 1, second - first - 1);
        const bool old = has_word(controllers, "memory");
        if (!old && !controllers.empty()) continue;
        const std::string root = old ? cgroup + "/memory" : cgroup;
        std::string path(line.substr(second + 1));
        while (!path.empty() && path.back() == '/') path.pop_back();
        for (;;) {
            const std::string folder = root + path + "/";
            ControlGroup group = old ? ControlGroup{{{folder + "memory.limit_in_bytes"}},
                                                    {folder + "memory.usage_in_bytes"},
                                                    {folder + "memory.stat"},
                                                    "total_inactive_file"}
                                     : ControlGroup{{{folder + "memory.max"}, {folder + "memory.high"}},
                                                    {folder + "memory.current"},
                                                    {folder + "memory.stat"},
                                                    "inactive_file"};
            if (::access(group.usage.path.c_str(), R_OK) == 0) groups_.push_back(std::move(group));
            if (path.empty()) break;
            path.erase(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
        }
    }
}

std::optional<std::uint64_t> SystemMemoryInfo::available() {
    std::optional<std::uint64_t> least;
    if (const auto kilobytes = field(machine_.text(), "MemAvailable:")) least = *kilobytes << 10;
    for (const ControlGroup& group : groups_)
        if (const auto left = group.available()) least = std::min(*left, least.value_or(*left));
    return least;
}

void SystemMemoryInfo::keep_files_open() {
    machine_.keep_open();
    for (ControlGroup& group : groups_) {
        for (File& file : group.limits) file.keep_open();
        group.usage.keep_open();
        group.statistics.keep_open();
    }
}

}  // namespace uext4
