#include "sandbox/partition_apart.h"

#include "sandbox/sandbox.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace uext4 {

namespace {

// What goes through the pipe.
struct Answer {
    std::int32_t code = 0;  // of the error, 0 without
    std::uint64_t offset = 0, size = 0;
    char what[3584] = {};  // all of it goes through a pipe at once
};

Answer answer(int fd, std::uint32_t number, const std::string& name) {
    const Result<void> apart = enter_sandbox(SandboxProfile::table);
    const Result<Partition> found = apart ? find_partition(fd, number, name) : fail(apart.error());
    Answer out;
    if (found) {
        out.offset = found->offset;
        out.size = found->size;
        return out;
    }
    out.code = found.error().code;
    const std::string& what = found.error().what;
    std::memcpy(out.what, what.data(), std::min(what.size(), sizeof out.what - 1));
    return out;
}

bool read_all(int fd, Answer& out) {
    std::size_t have = 0;
    while (have < sizeof out) {
        const ssize_t n = ::read(fd, reinterpret_cast<char*>(&out) + have, sizeof out - have);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        have += static_cast<std::size_t>(n);
    }
    return true;
}

}  // namespace

Result<Partition> find_partition_in_child(int fd, std::uint32_t number, const std::string& name) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return fail(errno, "{}: no pipe: {}", name, std::strerror(errno));
    const pid_t child = ::fork();
    if (child == 0) {
        const Answer out = answer(fd, number, name);
        ::_exit(::write(ends[1], &out, sizeof out) == sizeof out ? 0 : 1);
    }
    const int error = errno;
    ::close(ends[1]);
    Answer out;
    const bool answered = child > 0 && read_all(ends[0], out);
    ::close(ends[0]);
    if (child < 0) return fail(error, "{}: no process to read the partition table: {}", name, std::strerror(error));
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (!answered) return fail(EIO, "{}: whoever reads the partition table has ended with status {:#x}", name, status);
    out.what[sizeof out.what - 1] = '\0';
    if (out.code != 0) return fail(out.code, "{}", out.what);
    constexpr std::uint64_t most = std::uint64_t{1} << 62;
    if (out.offset > most || out.size > most)
        return fail(EINVAL, "{}: partition {}: {} bytes at {}", name, number, out.size, out.offset);
    return Partition{number, out.offset, out.size};
}

}  // namespace uext4
