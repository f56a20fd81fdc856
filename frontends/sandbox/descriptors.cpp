#include "sandbox/descriptors.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <climits>
#include <filesystem>
#include <string_view>

namespace uext4 {

namespace {

// [first, last]; nothing to do where that is empty.
void close_from_to(int first, int last) {
    if (first > last) return;
    if (::close_range(static_cast<unsigned>(first), static_cast<unsigned>(last), 0) == 0) return;
    // Before Linux 5.9, or in somebody's filter that does not know it.
    std::vector<int> found;
    std::error_code error;
    const std::filesystem::directory_iterator all("/proc/self/fd", error), end;
    if (error) {
        rlimit limit{};
        const bool known = ::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 1 << 20;
        const int most = known ? static_cast<int>(limit.rlim_cur) : 1 << 20;
        for (int fd = first; fd <= last && fd < most; ++fd) ::close(fd);
        return;
    }
    for (std::filesystem::directory_iterator at = all; !error && at != end; at.increment(error))
        found.push_back(std::stoi(at->path().filename().string()));
    for (const int fd : found)
        if (fd >= first && fd <= last) ::close(fd);
}

}  // namespace

void close_all_except(std::vector<int> kept, int first) {
    std::ranges::sort(kept);
    for (const int fd : kept) {
        if (fd < first) continue;
        close_from_to(first, fd - 1);
        if (fd == INT_MAX) return;
        first = fd + 1;
    }
    close_from_to(first, INT_MAX);
}

void close_unnamed(const std::vector<std::string>& words) {
    constexpr std::string_view folder = "fd/";
    std::vector<int> kept;
    for (const std::string& word : words)
        for (std::size_t at = 0; (at = word.find(folder, at)) != std::string::npos; at += folder.size()) {
            const std::size_t number = std::min(word.find_first_not_of('/', at + folder.size()), word.size());
            int fd = 0;
            if (std::from_chars(word.data() + number, word.data() + word.size(), fd).ec == std::errc())
                kept.push_back(fd);
        }
    close_all_except(std::move(kept), STDERR_FILENO + 1);
}

}  // namespace uext4
