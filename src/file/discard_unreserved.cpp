// Dirty data that a write took without a reservation (WriteRequest::may_exceed_space), and for which no space came.
#include "file/file_io.h"

#include <algorithm>

namespace uext4 {

namespace {

// Of the folio's dirty blocks those that live nowhere: also where a promise was not kept. map_lock held.
Result<BlockMask> homeless(Inode& inode, const Folio& folio) {
    const std::uint64_t bs = inode.fs().block_size(), fs = inode.pages().folio_size(), start = folio.index * fs;
    BlockMask found = 0;
    for (std::uint64_t slot = 0; slot < fs / bs; ++slot) {
        if (!(folio.dirty >> slot & 1)) continue;
        RangeIterator range(inode, start + slot * bs, start + (slot + 1) * bs);
        (void)TRY(range.load_locked());
        if (range.mapping().state == BlockState::delayed)
            inode.delalloc().release(LogicalBlock(start / bs + slot), LogicalBlock(start / bs + slot + 1));
        else if (range.mapping().state != BlockState::hole) continue;
        found |= BlockMask{1} << slot;
    }
    return found;
}

}  // namespace

Result<std::uint64_t> discard_unreserved_data(Inode& inode) {
    FileCache& pages = inode.pages();
    const std::uint64_t bs = pages.block_size(), fs = pages.folio_size();
    std::uint64_t lost = 0, kept_end = 0;
    WriteLock guard(inode.rw);
    MutexLock flush(inode.flush_lock);
    const std::uint64_t size = inode.size_hint();
    for (auto index = pages.next_dirty(0); index; index = pages.next_dirty(*index + 1)) {
        LockedFolio folio = TRY(pages.lock_for_change(*index, false));
        if (!folio || !folio->dirty) continue;
        BlockMask gone = 0;
        {
            MutexLock map(inode.map_lock);
            gone = TRY(homeless(inode, *folio));
        }
        const BlockMask kept = folio->dirty & ~gone;
        for (std::uint64_t slot = 0; slot < fs / bs; ++slot) {
            const std::uint64_t from = *index * fs + slot * bs, to = std::min(from + bs, size);
            if (to <= from) continue;
            if (gone >> slot & 1) lost += to - from;
            if (kept >> slot & 1) kept_end = to;
        }
        pages.clear_dirty(folio, gone);
        folio->uptodate &= ~gone;
    }
    MutexLock map(inode.map_lock);
    const std::uint64_t end = std::max(inode.disk_size(), kept_end);
    if (lost != 0 && end < inode.size()) inode.set_size(end);
    return lost;
}

}  // namespace uext4
