#include "api/bounce.h"

#include "mmap/client_maps.h"
#include "mmap/rejected_pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace uext4 {

namespace {

constexpr std::size_t alignment = 4096;  // of direct requests

}  // namespace

// Bytes that lie in a file of memory: system calls copy between it and the program's memory.
class PageBuffer {
public:
    static Result<PageBuffer> make(std::size_t size) {
        PageBuffer made;
        made.file_ = ::memfd_create("uext4-buffer", MFD_CLOEXEC);
        if (made.file_ < 0 || ::ftruncate(made.file_, static_cast<off_t>(size)) != 0)
            return fail(errno, "a buffer of {} bytes: {}", size, std::strerror(errno));
        void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, made.file_, 0);
        if (memory == MAP_FAILED) return fail(errno, "a buffer of {} bytes: {}", size, std::strerror(errno));
        made.bytes_ = Bytes(static_cast<std::byte*>(memory), size);
        return made;
    }
    PageBuffer(PageBuffer&& other) noexcept
        : file_(std::exchange(other.file_, -1)), bytes_(std::exchange(other.bytes_, Bytes())) {}
    PageBuffer& operator=(PageBuffer&&) = delete;
    ~PageBuffer() {
        if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
        if (file_ >= 0) ::close(file_);
    }
    Bytes first(std::size_t n) const { return bytes_.first(n); }

    // Each page of the program's is accessed as by its own loads and stores: it faults, and may fault again. A system
    // call that pins pages first and copies afterwards (process_vm_writev) stores past the protection of a writeback.
    // A refused access is an error and not a signal. Returns the bytes that went.
    std::size_t copy_to(std::byte* program, std::size_t n) const {
        return copy(program, n, true, [&](std::size_t at) { return ::pread(file_, program + at, n - at, off_t(at)); });
    }
    // To the bytes from `start` on.
    std::size_t copy_from(const std::byte* program, std::size_t n, std::size_t start) const {
        return copy(program, n, false,
                    [&](std::size_t at) { return ::pwrite(file_, program + at, n - at, off_t(start + at)); });
    }

private:
    PageBuffer() = default;
    template <typename Call>
    static std::size_t copy(const std::byte* program, std::size_t n, bool stores, const Call& call);

    int file_ = -1;
    Bytes bytes_;
};

namespace {

// What was refused may have been refused to somebody else a moment ago; it is asked for a second time.
bool was_forbidden(const std::byte* memory, std::size_t length) {
    const auto start = reinterpret_cast<std::uintptr_t>(memory);
    return RejectedPages::instance().wait(start, start + length);
}

}  // namespace

template <typename Call>
std::size_t PageBuffer::copy(const std::byte* program, std::size_t n, bool stores, const Call& call) {
    // The faults that this waits for take all but Call.
    const RankGuard touches(Rank::UserMemory);
    // Between what is admitted and the access a writeback may take it back.
    constexpr int patience = 100;
    std::size_t done = 0;
    int refusals = 0;
    while (done < n) {
        const ssize_t moved = call(done);
        if (moved < 0 && errno == EINTR) continue;
        if (moved > 0) {
            done += static_cast<std::size_t>(moved);
            refusals = 0;
            continue;
        }
        if (++refusals > patience) break;
        if (refusals == 1 && was_forbidden(program + done, n - done)) continue;
        if (!ClientMaps::make_accessible(program + done, stores)) break;
    }
    // What the program does next to the page that was refused is answered by itself.
    if (done < n) (void)was_forbidden(program + done, 1);
    return done;
}

Result<std::size_t> read_through_bounce_buffer(Bytes out,
                                               const std::function<Result<std::size_t>(std::size_t, Bytes)>& read) {
    if (out.empty()) return read(0, out);
    const TransferBuffer room(out.size());
    const PageBuffer buffer = TRY(PageBuffer::make(room.size()));
    std::size_t done = 0;
    while (done < out.size()) {
        const std::size_t wanted = std::min(room.size(), out.size() - done);
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

BounceGather::BounceGather(std::span<const ConstBytes> parts)
    : parts_(parts), with_maps_(std::ranges::any_of(parts, [](const ConstBytes& part) {
          return touches_client_maps(part.data(), part.size());
      })) {}
BounceGather::~BounceGather() = default;

Result<void> BounceGather::allocate_buffer() {
    std::size_t left = 0;
    for (const ConstBytes& part : parts_) left += part.size();
    const std::size_t size = taken_.emplace(left - inside_).size();
    if (with_maps_) {
        pages_ = std::make_unique<PageBuffer>(TRY(PageBuffer::make(size)));
        room_ = pages_->first(size);
        return {};
    }
    memory_ = std::make_unique_for_overwrite<std::byte[]>(size + alignment);
    const auto start = reinterpret_cast<std::uintptr_t>(memory_.get());
    room_ = Bytes(memory_.get() + (round_up(start, alignment) - start), size);
    return {};
}

Result<ConstBytes> BounceGather::next_part() {
    std::size_t joined = 0;
    while (!parts_.empty()) {
        const ConstBytes rest = parts_.front().subspan(inside_);
        const bool is_map = with_maps_ && touches_client_maps(rest.data(), rest.size());
        const bool as_it_is = !is_map && joined == 0 && (rest.size() >= TransferBuffer::max_size || parts_.size() == 1);
        if (as_it_is || rest.empty()) {
            parts_ = parts_.subspan(1);
            inside_ = 0;
            if (rest.empty()) continue;
            return rest;
        }
        if (room_.empty()) TRY(allocate_buffer());
        const std::size_t n = std::min(rest.size(), room_.size() - joined);
        std::size_t copied = n;
        if (is_map) copied = pages_->copy_from(rest.data(), n, joined);
        else std::memcpy(room_.data() + joined, rest.data(), n);
        joined += copied;
        inside_ += copied;
        if (copied < n && joined == 0) return fail(EFAULT, "the buffer is a memory map that cannot be read");
        if (copied < n || joined == room_.size()) break;
    }
    return room_.first(joined);
}

}  // namespace uext4
