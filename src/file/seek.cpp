#include "file/file_io.h"

#include <algorithm>

namespace uext4 {

namespace {

// Does a block that reads as zeros by its place have newer contents in the cache?
bool cached_data_at(Inode& inode, std::uint64_t offset, std::uint64_t end, std::uint64_t& where) {
    const std::uint64_t fs = inode.pages().folio_size();
    const auto busy = inode.pages().next_dirty_or_writeback(offset / fs);
    if (!busy || *busy * fs >= end) return false;
    where = std::max(offset, *busy * fs);
    return true;
}

}  // namespace

Result<std::uint64_t> seek_file(Inode& inode, std::uint64_t offset, bool data) {
    ReadLock guard(inode.rw);
    const std::uint64_t size = inode.size_hint();
    if (offset >= size) return fail(ENXIO, "inode {}: offset {} is past the end", inode.number(), offset);
    for (RangeIterator range(inode, offset, size); TRY(range.load());) {
        const std::uint64_t at = range.at();
        const BlockState place = range.mapping().state;
        // What is dirty without a promise lies over a hole.
        if (place == BlockState::unwritten || place == BlockState::hole) {
            std::uint64_t where = 0;
            if (cached_data_at(inode, at, range.run_end(), where)) {
                if (data) return where;
                if (where > at) return at;
                const std::uint64_t folio = inode.pages().folio_size();
                range.advance_to(std::min(range.run_end(), round_down(at, folio) + folio));
                continue;
            }
        }
        if ((place != BlockState::hole && place != BlockState::unwritten) == data) return at;
        range.next();
    }
    if (data) return fail(ENXIO, "inode {}: no data at or after {}", inode.number(), offset);
    return size;
}

Result<void> for_each_extent(Inode& inode, std::uint64_t offset, std::uint64_t length,
                             const std::function<bool(const Mapping&)>& visit) {
    constexpr std::size_t at_a_time = 256;
    std::vector<Mapping> found;
    RangeIterator range(inode, offset, 0);
    do {
        found.clear();
        {
            ReadLock guard(inode.rw);
            const std::uint64_t size = inode.size_hint();
            std::uint64_t limit = size;
            {
                MutexLock map(inode.map_lock);
                limit = std::max(limit, inode.map().max_block().value * inode.fs().block_size());
            }
            const std::uint64_t end = length > limit || offset > limit - length ? limit : offset + length;
            range.set_end(end);
            for (; found.size() < at_a_time && TRY(range.load()); range.next()) {
                Mapping m = range.mapping();
                // An inode has room for more than the bytes of its file.
                if (m.state == BlockState::inline_data) m.length = std::min(m.length, size - std::min(size, m.offset));
                if (m.state != BlockState::hole && m.length > 0) found.push_back(m);
            }
        }
        for (const Mapping& m : found)
            if (!visit(m)) return {};
    } while (!range.done());
    return {};
}

}  // namespace uext4
