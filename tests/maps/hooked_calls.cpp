#include "hooked_calls.h"

#include <fmt/format.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <string_view>

namespace uext4 {
namespace {

constexpr unsigned long placement_query = 0xc0686611;  // PROCMAP_QUERY of Linux 6.11

bool cannot_look() {
    if (has_room.load()) return false;
    if (looks_without.load() > 0 && looks_without.fetch_sub(1) == 1) has_room.store(true);
    return true;
}

bool tells_placements(int fd) {
    char path[64] = {};
    const ssize_t n = ::readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), path, sizeof path);
    return n > 0 && std::string_view(path, static_cast<std::size_t>(n)).ends_with("/maps");
}

}  // namespace
}  // namespace uext4

extern "C" __attribute__((visibility("default"))) ssize_t pread(int fd, void* memory, std::size_t size, off_t offset) {
    using namespace uext4;
    if (!has_room.load() && tells_placements(fd) && cannot_look()) {
        errno = ENOMEM;
        return -1;
    }
    const ssize_t n = ::syscall(SYS_pread64, fd, memory, size, offset);
    if (n > 0 && at_marker.is_set()) {
        char line[32];
        std::snprintf(line, sizeof line, "%lx-", static_cast<unsigned long>(marker.load()));
        const bool is_told =
            std::string_view(static_cast<const char*>(memory), static_cast<std::size_t>(n)).contains(line);
        if (is_told) at_marker.call();
    }
    return n;
}

extern "C" __attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...) noexcept {
    using namespace uext4;
    std::va_list arguments;
    va_start(arguments, request);
    void* argument = va_arg(arguments, void*);
    va_end(arguments);
    if (request == UFFDIO_REGISTER) {
        const uffdio_range range = static_cast<const uffdio_register*>(argument)->range;
        bool succeeds = true;
        at_watch.call(range.start, range.start + range.len, succeeds);
        if (!succeeds) {
            errno = ENOMEM;
            return -1;
        }
    }
    if (request == UFFDIO_UNREGISTER) at_unwatch.call();
    const bool asks = request == placement_query;
    if (asks && cannot_look()) {
        errno = ENOMEM;
        return -1;
    }
    if (asks && !answers_queries.load()) {
        errno = ENOTTY;
        return -1;
    }
    const auto result = static_cast<int>(::syscall(SYS_ioctl, fd, request, argument));
    constexpr std::size_t start_word = 3;
    if (asks && result == 0 && static_cast<const std::uint64_t*>(argument)[start_word] == marker.load())
        at_marker.call();
    return result;
}

extern "C" __attribute__((visibility("default"))) int mprotect(void* memory, std::size_t length,
                                                               int protection) noexcept {
    using namespace uext4;
    if (protection == PROT_NONE) at_keep_out.call();
    return static_cast<int>(::syscall(SYS_mprotect, memory, length, protection));
}

extern "C" __attribute__((visibility("default"))) int munmap(void* memory, std::size_t length) noexcept {
    const auto result = static_cast<int>(::syscall(SYS_munmap, memory, length));
    uext4::at_munmap.call();
    return result;
}

extern "C" __attribute__((visibility("default"))) int poll(pollfd* all, nfds_t count, int milliseconds) {
    using namespace uext4;
    const int n = static_cast<int>(::syscall(SYS_poll, all, count, milliseconds));
    const int of = event_of.load();
    if (n > 0 && (of == -1 || all[0].fd == of)) at_event.call();
    return n;
}
