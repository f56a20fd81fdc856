#include "file/file_io.h"

#include <algorithm>

namespace uext4 {

namespace {

// Does a block that reads as zeros by its place have newer contents in the cache?
bool cached_data_at(Inode& inode, std::uint64_t offset, std::uint64_t end, std::uint64_t& where) {
    const std::uint64_t fs = inode.pages().folio_size();
    const auto busy = inode.pages().next_busy(offset / fs);
    if (!busy || *busy * fs >= end) return false;
    where = std::max(offset, *busy * fs);
    return true;
}

}  // namespace

Result<std::uint64_t> seek_file(Inode& inode, std::uint64_t offset, bool data) {
    ReadLock guard(inode.rw);
    const std::uint64_t size = inode.size_hint();
    if (offset >= size) return fail(ENXIO, "inode {}: offset {} is past the end", inode.number(), offset);
    for (std::uint64_t at = offset; at < size;) {
        Mapping m;
        {
            MutexLock map(inode.map_lock);
            m = TRY(inode.places().lookup(at, size - at));
        }
        std::uint64_t end = std::min(m.end(), size);
        if (m.place == Place::inline_data) end = size;
        const bool here = m.place != Place::hole && m.place != Place::unwritten;
        if (m.place == Place::unwritten) {
            std::uint64_t where = 0;
            if (cached_data_at(inode, at, end, where)) {
                if (data) return where;
                if (where > at) return at;
                at = std::min(end, round_down(at, inode.pages().folio_size()) + inode.pages().folio_size());
                continue;
            }
        }
        if (here == data) return at;
        at = end;
    }
    if (data) return fail(ENXIO, "inode {}: no data at or after {}", inode.number(), offset);
    return size;
}

Result<void> list_extents(Inode& inode, std::uint64_t offset, std::uint64_t length,
                          const std::function<bool(const Mapping&)>& visit) {
    constexpr std::size_t at_a_time = 256;
    std::vector<Mapping> found;
    for (std::uint64_t at = offset, end = 0;;) {
        found.clear();
        {
            ReadLock guard(inode.rw);
            const std::uint64_t size = inode.size_hint();
            std::uint64_t limit = size;
            {
                MutexLock map(inode.map_lock);
                limit = std::max(limit, inode.map().limit().value * inode.fs().block_size());
            }
            end = length > limit || offset > limit - length ? limit : offset + length;
            while (at < end && found.size() < at_a_time) {
                Mapping m;
                {
                    MutexLock map(inode.map_lock);
                    m = TRY(inode.places().lookup(at, end - at));
                }
                at = m.length == 0 ? end : m.end();
                // An inode has room for more than the bytes of its file.
                if (m.place == Place::inline_data) m.length = std::min(m.length, size - std::min(size, m.offset));
                if (m.place != Place::hole && m.length > 0) found.push_back(m);
            }
        }
        for (const Mapping& m : found)
            if (!visit(m)) return {};
        if (at >= end) return {};
    }
}

}  // namespace uext4
