#include "mmap/mapped_file.h"

#include <algorithm>

namespace uext4 {

namespace {
constexpr std::uint64_t page = 4096;
}

void MappedFile::add_range(const Range& range) {
    MutexLock guard(lock_);
    ranges_.push_back(range);
}

void MappedFile::remove_range(std::uintptr_t start) {
    MutexLock guard(lock_);
    std::erase_if(ranges_, [&](const Range& r) { return r.start == start; });
}

void MappedFile::protect(std::uint64_t offset, std::uint64_t length) {
    const std::uint64_t first = round_down(offset, page), end = round_up(offset + length, page);
    // Outside of the lock: the request may wait until events of the program's munmap are read. A range that goes
    // meanwhile has nothing to protect, one that comes shows no page yet.
    std::vector<Range> ranges;
    {
        MutexLock guard(lock_);
        ranges = ranges_;
    }
    for (const Range& r : ranges) {
        const std::uint64_t from = std::max(first, r.offset), to = std::min(end, r.offset + r.length);
        if (r.stores && from < to) userfault_.protect(r.start + (from - r.offset), to - from);
    }
}

Result<std::byte*> MappedFile::memory(std::uint64_t index) { return memory_->at(index * folio_size_, folio_size_); }

void MappedFile::release_memory(std::uint64_t index) { memory_->punch(index * folio_size_, folio_size_); }

}  // namespace uext4
