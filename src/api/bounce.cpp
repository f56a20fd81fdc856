#include "api/bounce.h"

#include "mmap/refusal.h"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

namespace uext4 {

namespace {

constexpr std::size_t chunk = std::size_t{1} << 20;
constexpr std::size_t alignment = 4096;  // of direct requests

// A buffer as aligned as any direct request wants it.
class Buffer {
public:
    explicit Buffer(std::size_t size) : memory_(size + alignment) {
        const auto start = reinterpret_cast<std::uintptr_t>(memory_.data());
        bytes_ = Bytes(memory_).subspan(round_up(start, alignment) - start, size);
    }
    Bytes first(std::size_t n) { return bytes_.first(n); }

private:
    std::vector<std::byte> memory_;
    Bytes bytes_;
};

// What was refused may have been refused to somebody else a moment ago; it is asked for a second time.
bool was_forbidden(const std::byte* memory, std::size_t length) {
    const auto start = reinterpret_cast<std::uintptr_t>(memory);
    return ForbiddenPages::instance().wait(start, start + length);
}

// By a system call, in which a refused access is an error and not a signal. Where the privilege does not reach so far,
// the access is the program's own.
std::size_t copy_by_kernel(bool to_program, std::byte* program, std::byte* own, std::size_t n) {
    std::size_t done = 0;
    bool again = true;
    while (done < n) {
        iovec ours{own + done, n - done}, theirs{program + done, n - done};
        const ssize_t moved = to_program ? ::process_vm_writev(::getpid(), &ours, 1, &theirs, 1, 0)
                                         : ::process_vm_readv(::getpid(), &ours, 1, &theirs, 1, 0);
        if (moved < 0 && errno == EINTR) continue;
        if (moved < 0 && (errno == ENOSYS || errno == EPERM)) {
            if (to_program) std::memcpy(program + done, own + done, n - done);
            else std::memcpy(own + done, program + done, n - done);
            return n;
        }
        if (moved <= 0 && std::exchange(again, false) && was_forbidden(program + done, n - done)) continue;
        if (moved <= 0) break;
        done += static_cast<std::size_t>(moved);
    }
    return done;
}

}  // namespace

Result<std::size_t> read_bounced(Bytes out, const std::function<Result<std::size_t>(std::size_t, Bytes)>& read) {
    Buffer buffer(std::min(chunk, out.size()));
    std::size_t done = 0;
    while (done < out.size()) {
        const std::size_t wanted = std::min(chunk, out.size() - done);
        Result<std::size_t> n = read(done, buffer.first(wanted));
        if (!n) return done ? Result<std::size_t>(done) : fail(n.error());
        const std::size_t copied = copy_by_kernel(true, out.data() + done, buffer.first(*n).data(), *n);
        done += copied;
        if (copied < *n) {
            if (done == 0) return fail(EFAULT, "the buffer is a memory map that cannot be stored to");
            return done;
        }
        if (*n < wanted) return done;
    }
    return done;
}

Result<std::size_t> write_bounced(ConstBytes in,
                                  const std::function<Result<std::size_t>(std::size_t, ConstBytes)>& write) {
    Buffer buffer(std::min(chunk, in.size()));
    std::size_t done = 0;
    while (done < in.size()) {
        const std::size_t wanted = std::min(chunk, in.size() - done);
        const Bytes part = buffer.first(wanted);
        auto* program = const_cast<std::byte*>(in.data()) + done;  // only read
        const std::size_t copied = copy_by_kernel(false, program, part.data(), wanted);
        if (copied == 0) {
            if (done == 0) return fail(EFAULT, "the buffer is a memory map that cannot be read");
            return done;
        }
        Result<std::size_t> n = write(done, part.first(copied));
        if (!n) return done ? Result<std::size_t>(done) : fail(n.error());
        done += *n;
        if (*n < wanted) return done;
    }
    return done;
}

}  // namespace uext4
