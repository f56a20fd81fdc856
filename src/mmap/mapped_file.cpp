#include "mmap/mapped_file.h"

#include "base/page.h"
#include "mmap/map_registry.h"

#include <sched.h>

#include <algorithm>

namespace uext4 {

void MappedFile::add_range(const Range& range) {
    MutexLock guard(lock_);
    ranges_.push_back(range);
}

void MappedFile::remove_range(const Range& range) {
    MutexLock guard(lock_);
    const auto it = std::ranges::find(ranges_, range);
    if (it != ranges_.end()) ranges_.erase(it);
}

bool MappedFile::is_mapped() const {
    MutexLock guard(lock_);
    return !ranges_.empty();
}

void MappedFile::write_protect(std::uint64_t offset, std::uint64_t length) {
    const std::uint64_t first = round_down(offset, page_size), end = round_up(offset + length, page_size);
    // A map that the program moves or takes away is in its old place here until its event is read, which is under the
    // registry's lock: until then nothing can be asked for.
    const auto all_protected = [&] {
        MutexLock events(MapRegistry::instance().lock());
        if (!settled_()) return false;
        MutexLock guard(lock_);
        for (const Range& r : ranges_) {
            const std::uint64_t from = std::max(first, r.offset), to = std::min(end, r.offset + r.length);
            if (r.stores && from < to && !userfault_.try_protect(r.start + (from - r.offset), to - from, true))
                return false;
        }
        return true;
    };
    while (!all_protected()) ::sched_yield();
}

Result<std::byte*> MappedFile::folio_memory(std::uint64_t index) { return memory_->map_folio(index * folio_size_); }

void MappedFile::release_folio_memory(std::uint64_t index) { memory_->unmap_folio(index * folio_size_); }

}  // namespace uext4
