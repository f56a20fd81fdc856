#include "mmap/folio_memory_file.h"

#include "base/bytes.h"
#include "base/page.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

namespace uext4 {

namespace {

// 0, or the error. The limit on file sizes is that of the program's files: its signal, whose default ends the process,
// is not for this one.
int lengthen(int file, std::uint64_t size) {
    sigset_t one, before, pending;
    sigemptyset(&one);
    sigaddset(&one, SIGXFSZ);
    sigemptyset(&pending);
    ::pthread_sigmask(SIG_BLOCK, &one, &before);
    ::sigpending(&pending);
    const bool was_pending = sigismember(&pending, SIGXFSZ) == 1;
    const int error = ::ftruncate(file, static_cast<off_t>(size)) == 0 ? 0 : errno;
    if (const timespec at_once{}; error == EFBIG && !was_pending) ::sigtimedwait(&one, nullptr, &at_once);
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return error;
}

// Of a file of `size` bytes; none takes much of the address space that the process may have.
std::uint64_t window_for(std::uint64_t size) {
    constexpr std::uint64_t least = std::uint64_t{64} << 20, largest = std::uint64_t{16} << 30;
    constexpr std::uint64_t many = 1024, part = 64;
    std::uint64_t window = std::clamp(std::bit_ceil(size / many), least, largest);
    rlimit limit{};
    ::getrlimit(RLIMIT_AS, &limit);
    while (window > least && window > limit.rlim_cur / part) window /= 2;
    return window;
}

}  // namespace

FolioMemoryFile::FolioMemoryFile(int fd, std::uint64_t size, std::uint32_t unit)
    : fd_(fd), unit_(unit), window_(window_for(size)) {
    struct stat status{};
    if (::fstat(fd, &status) == 0) identity_ = {status.st_dev, status.st_ino};
}

Result<std::unique_ptr<FolioMemoryFile>> FolioMemoryFile::create(std::uint64_t size, std::uint32_t unit) {
    const int fd = ::memfd_create(name, MFD_CLOEXEC);
    if (fd < 0) return fail(errno, "memory map: no memory file: {}", std::strerror(errno));
    std::unique_ptr<FolioMemoryFile> made(new FolioMemoryFile(fd, size, unit));
    made->extend(size);
    return made;
}

FolioMemoryFile::~FolioMemoryFile() {
    for (const auto& [number, memory] : windows_) ::munmap(memory, window_);
    ::close(fd_);
}

void FolioMemoryFile::extend_file_locked(std::uint64_t size) {
    const std::uint64_t wanted = round_up(size, unit_);
    if (wanted <= size_) return;
    int error = lengthen(fd_, wanted);
    if (error == 0) size_ = wanted;
    if (error != EFBIG) return;
    // As far as it goes; accesses beyond are refused.
    rlimit limit{};
    ::getrlimit(RLIMIT_FSIZE, &limit);
    const std::uint64_t possible = std::min(wanted, round_down(std::uint64_t{limit.rlim_cur}, unit_));
    if (possible > size_ && lengthen(fd_, possible) == 0) size_ = possible;
}

Result<void> FolioMemoryFile::ensure_size_locked(std::uint64_t size) {
    extend_file_locked(size);
    if (size_ >= size) return {};
    rlimit limit{};
    ::getrlimit(RLIMIT_FSIZE, &limit);
    if (size > limit.rlim_cur)
        return fail(EFBIG,
                    "memory map: its memory cannot reach {} bytes, since the limit on file sizes (RLIMIT_FSIZE) is {}",
                    size, limit.rlim_cur);
    return fail(ENOMEM, "memory map: its memory cannot reach {} bytes", size);
}

Result<void> FolioMemoryFile::ensure_size(std::uint64_t size) {
    MutexLock guard(lock_);
    return ensure_size_locked(size);
}

void FolioMemoryFile::extend(std::uint64_t size) {
    MutexLock guard(lock_);
    extend_file_locked(size);
}

void FolioMemoryFile::truncate(std::uint64_t size) {
    MutexLock guard(lock_);
    const std::uint64_t wanted = round_up(size, unit_), shown = round_up(size, page_size);
    if (wanted < size_ && ::ftruncate(fd_, static_cast<off_t>(wanted)) == 0) size_ = wanted;
    if (shown >= wanted || shown >= size_) return;
    // The copies of private maps go when the memory file ends before them, and stay when a hole is made. Of what is
    // beyond in the folio nobody makes use meanwhile: it is locked, or not in the cache.
    rlimit limit{};
    ::getrlimit(RLIMIT_FSIZE, &limit);
    if (size_ > limit.rlim_cur || ::ftruncate(fd_, static_cast<off_t>(shown)) != 0) return punch(shown, wanted - shown);
    if (lengthen(fd_, size_) != 0) size_ = shown;
}

// Where a table of the kernel's begins, so that a section has one.
Result<std::byte*> FolioMemoryFile::map_window(std::uint64_t number) {
    const std::uint64_t length = window_ + section;
    void* memory = ::mmap(nullptr, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return fail(ENOMEM, "memory map: no address space for {} bytes", length);
    auto* whole = static_cast<std::byte*>(memory);
    const std::uint64_t before = (section - reinterpret_cast<std::uintptr_t>(memory) % section) % section;
    if (!map_at(whole + before, number * window_, window_)) {
        ::munmap(whole, length);
        return fail(ENOMEM, "memory map: no address space for {} bytes", window_);
    }
    if (before != 0) ::munmap(whole, before);
    ::munmap(whole + before + window_, section - before);
    return whole + before;
}

bool FolioMemoryFile::map_at(std::byte* place, std::uint64_t offset, std::uint64_t length) const {
    const int flags = MAP_SHARED | MAP_NORESERVE | MAP_FIXED;
    // Where the program has called mlockall(MCL_FUTURE), the kernel would fill what it maps.
    if (::mmap(place, length, PROT_NONE, flags, fd_, static_cast<off_t>(offset)) == MAP_FAILED) return false;
    ::munlock(place, length);
    ::madvise(place, length, MADV_DONTFORK);
    return ::mprotect(place, length, PROT_READ | PROT_WRITE) == 0;
}

Result<std::byte*> FolioMemoryFile::map_folio(std::uint64_t offset) {
    MutexLock guard(lock_);
    TRY(ensure_size_locked(offset + unit_));
    auto window = windows_.find(offset / window_);
    if (window == windows_.end()) window = windows_.emplace(offset / window_, TRY(map_window(offset / window_))).first;
    ++folios_[offset / section];
    return window->second + offset % window_;
}

void FolioMemoryFile::unmap_folio(std::uint64_t offset) {
    punch(offset, unit_);
    MutexLock guard(lock_);
    const auto count = folios_.find(offset / section);
    if (--count->second != 0) return;
    folios_.erase(count);
    const std::uint64_t oldest = std::exchange(idle_[idled_ % idle_.size()], offset / section);
    if (++idled_ > idle_.size() && !folios_.contains(oldest)) drop_table(oldest);
}

// Mapped anew in its place. Where that fails it is as it was: the kernel counts maps before it changes them.
void FolioMemoryFile::drop_table(std::uint64_t number) {
    const std::uint64_t offset = number * section;
    const auto window = windows_.find(offset / window_);
    if (window != windows_.end()) (void)map_at(window->second + offset % window_, offset, section);
}

std::uintptr_t FolioMemoryFile::first_own_window(std::uintptr_t start, std::uintptr_t end) {
    MutexLock guard(lock_);
    for (const auto& [number, first_own_window] : windows_) {
        const auto own = reinterpret_cast<std::uintptr_t>(first_own_window);
        if (own < end && own + window_ > start) end = std::max(own, start);
    }
    return end;
}

bool FolioMemoryFile::is_resident(std::uint64_t offset, std::uint64_t length) {
    std::array<unsigned char, 64> resident{};
    const std::uint64_t pages = length / page_size;
    MutexLock guard(lock_);
    const auto shown = windows_.find(offset / window_);
    if (shown == windows_.end() || pages > resident.size()) return false;
    if (::mincore(shown->second + offset % window_, length, resident.data()) != 0) return false;
    return std::ranges::all_of(std::span(resident).first(pages), [](unsigned char c) { return (c & 1) != 0; });
}

std::uint64_t FolioMemoryFile::lost_pages(std::uint64_t offset, std::uint64_t length) {
    // Most often. The kernel finds a hole by walking all the data before it.
    if (is_resident(offset, length)) return 0;
    std::uint64_t out = 0;
    // Pages that are swapped out count as data.
    for (std::uint64_t at = offset; at < offset + length; at += page_size) {
        const off_t hole = ::lseek(fd_, static_cast<off_t>(at), SEEK_HOLE);
        if (hole < 0 || static_cast<std::uint64_t>(hole) >= offset + length) break;
        at = round_down(static_cast<std::uint64_t>(hole), page_size);
        out |= std::uint64_t{1} << (at - offset) / page_size;
    }
    return out;
}

void FolioMemoryFile::punch(std::uint64_t offset, std::uint64_t length) {
    // Cannot fail on a memory file for any reason but a bad range.
    ::fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                static_cast<off_t>(length));
}

}  // namespace uext4
