#include "api/bounce.h"

#include "mmap/refusal.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace uext4 {

namespace {

constexpr std::size_t chunk = std::size_t{1} << 20;

// Bytes that lie in a file of memory: system calls copy between it and the program's memory.
class Buffer {
public:
    static Result<Buffer> make(std::size_t size) {
        Buffer made;
        made.file_ = ::memfd_create("uext4-buffer", MFD_CLOEXEC);
        if (made.file_ < 0 || ::ftruncate(made.file_, static_cast<off_t>(size)) != 0)
            return fail(errno, "a buffer of {} bytes: {}", size, std::strerror(errno));
        void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, made.file_, 0);
        if (memory == MAP_FAILED) return fail(errno, "a buffer of {} bytes: {}", size, std::strerror(errno));
        made.bytes_ = Bytes(static_cast<std::byte*>(memory), size);
        return made;
    }
    Buffer(Buffer&& other) noexcept
        : file_(std::exchange(other.file_, -1)), bytes_(std::exchange(other.bytes_, Bytes())) {}
    Buffer& operator=(Buffer&&) = delete;
    ~Buffer() {
        if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
        if (file_ >= 0) ::close(file_);
    }
    Bytes first(std::size_t n) const { return bytes_.first(n); }

    // Each page of the program's is accessed as by its own loads and stores: it faults, and may fault again. A system
    // call that pins pages first and copies afterwards (process_vm_writev) stores past the protection of a writeback.
    // A refused access is an error and not a signal. Returns the bytes that went.
    std::size_t copy_to(std::byte* program, std::size_t n) const {
        return copy(program, n, [&](std::size_t at) { return ::pread(file_, program + at, n - at, off_t(at)); });
    }
    std::size_t copy_from(const std::byte* program, std::size_t n) const {
        return copy(program, n, [&](std::size_t at) { return ::pwrite(file_, program + at, n - at, off_t(at)); });
    }

private:
    Buffer() = default;
    template <typename Call>
    static std::size_t copy(const std::byte* program, std::size_t n, const Call& call);

    int file_ = -1;
    Bytes bytes_;
};

// What was refused may have been refused to somebody else a moment ago; it is asked for a second time.
bool was_forbidden(const std::byte* memory, std::size_t length) {
    const auto start = reinterpret_cast<std::uintptr_t>(memory);
    return ForbiddenPages::instance().wait(start, start + length);
}

template <typename Call>
std::size_t Buffer::copy(const std::byte* program, std::size_t n, const Call& call) {
    std::size_t done = 0;
    bool again = true;
    while (done < n) {
        const ssize_t moved = call(done);
        if (moved < 0 && errno == EINTR) continue;
        if (moved <= 0 && std::exchange(again, false) && was_forbidden(program + done, n - done)) continue;
        if (moved <= 0) break;
        done += static_cast<std::size_t>(moved);
    }
    return done;
}

}  // namespace

Result<std::size_t> read_bounced(Bytes out, const std::function<Result<std::size_t>(std::size_t, Bytes)>& read) {
    if (out.empty()) return read(0, out);
    const Buffer buffer = TRY(Buffer::make(std::min(chunk, out.size())));
    std::size_t done = 0;
    while (done < out.size()) {
        const std::size_t wanted = std::min(chunk, out.size() - done);
        Result<std::size_t> n = read(done, buffer.first(wanted));
        if (!n) return done ? Result<std::size_t>(done) : fail(n.error());
        const std::size_t copied = buffer.copy_to(out.data() + done, *n);
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
    if (in.empty()) return write(0, in);
    const Buffer buffer = TRY(Buffer::make(std::min(chunk, in.size())));
    std::size_t done = 0;
    while (done < in.size()) {
        const std::size_t wanted = std::min(chunk, in.size() - done);
        const Bytes part = buffer.first(wanted);
        const std::size_t copied = buffer.copy_from(in.data() + done, wanted);
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
