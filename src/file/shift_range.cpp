#include "base/seam.h"
#include "file/file_io.h"

#include <algorithm>

namespace uext4 {

namespace {

// Everything from `offset` on is on disk and out of the cache. Invalidate exclusive held.
Result<void> settle(Inode& inode, std::uint64_t offset) {
    const std::uint64_t fs = inode.pages().folio_size();
    TRY(write_back(inode));
    if (inode.journals_data()) {
        TRY(inode.fs().journal.commit_all());
        TRY(inode.fs().journal.checkpoint_all());
    } else {
        TRY(commit_unmaps(inode));
    }
    inode.pages().remove(offset / fs, ~std::uint64_t{0});
    return {};
}

Result<void> shift_all(Inode& inode, Handle& handle, std::uint64_t from_block, std::int64_t delta, unsigned credits) {
    std::uint64_t progress = 0;
    for (;;) {
        {
            MutexLock guard(inode.map_lock);
            const Result<bool> done = inode.map().shift(handle, LogicalBlock(from_block), delta, progress);
            inode.extent_status().invalidate();
            inode.note_uncommitted_shift(handle.tid());  // also of a part
            TRY(inode.store(handle));
            if (TRY(done)) return {};
        }
        TRY(handle.restart(credits));
    }
}

// What of it cannot be read is met before anything has moved, as far as it stays in memory.
Result<void> read_map(Inode& inode, LogicalBlock first) {
    MutexLock guard(inode.map_lock);
    return inode.map().for_each(first, [](const MappedRun&) { return true; });
}

unsigned shift_credits(Inode& inode) {
    MutexLock guard(inode.map_lock);
    return 2 * inode.extent_mapper().credits() + Inode::store_credits() + OrphanList::credits();
}

std::uint64_t unit(const Inode& inode) {
    return std::uint64_t{inode.fs().block_size()} * inode.fs().geometry.cluster_ratio;
}

}  // namespace

Result<void> collapse_range(Inode& inode, std::uint64_t offset, std::uint64_t length) {
    const std::uint64_t bs = inode.fs().block_size(), size = inode.size_hint();
    if (offset % unit(inode) != 0 || length % unit(inode) != 0)
        return fail(EINVAL, "collapse of {} bytes at {}: not in units of {}", length, offset, unit(inode));
    if (offset + length >= size) return fail(EINVAL, "collapse reaches the end of the file: use truncate");
    UniqueWriteLock invalidate;
    if (UEXT4_SEAM(shift_invalidates)) invalidate = UniqueWriteLock(inode.pages().invalidate);
    TRY(settle(inode, offset));
    // A pass of writeback that has nothing left to write has its size to settle, and may not do so behind this.
    UniqueLock flush;
    if (UEXT4_SEAM(shifts_await_passes)) flush = UniqueLock(inode.flush_lock);
    const std::vector<BufferRef> held =
        TRY(pin_for_free(inode, LogicalBlock(offset / bs), LogicalBlock((offset + length) / bs)));
    TRY(read_map(inode, LogicalBlock(offset / bs)));
    const unsigned credits = shift_credits(inode);
    Handle handle = TRY(inode.fs().journal.start(credits));
    TRY(remove_blocks(inode, handle, LogicalBlock(offset / bs), LogicalBlock((offset + length) / bs)));
    TRY(shift_all(inode, handle, (offset + length) / bs, -static_cast<std::int64_t>(length / bs), credits));
    if (ClientMapsHook* maps = inode.pages().client_maps()) maps->truncate(size - length);
    MutexLock guard(inode.map_lock);
    inode.set_size(size - length);
    inode.set_disk_size(size - length);
    return inode.store(handle);
}

Result<void> insert_range(Inode& inode, std::uint64_t offset, std::uint64_t length) {
    const std::uint64_t bs = inode.fs().block_size(), size = inode.size_hint();
    if (offset % unit(inode) != 0 || length % unit(inode) != 0)
        return fail(EINVAL, "insert of {} bytes at {}: not in units of {}", length, offset, unit(inode));
    if (offset >= size) return fail(EINVAL, "insert at or past the end of the file: use truncate");
    if (length > max_file_size(inode) - size)
        return fail(EFBIG, "inode {}: would have {} bytes", inode.number(), size + length);
    UniqueWriteLock invalidate;
    if (UEXT4_SEAM(shift_invalidates)) invalidate = UniqueWriteLock(inode.pages().invalidate);
    TRY(settle(inode, offset));
    UniqueLock flush;
    if (UEXT4_SEAM(shifts_await_passes)) flush = UniqueLock(inode.flush_lock);  // as above
    const BufferRef table = TRY(pin_inode_table_block(inode));
    TRY(read_map(inode, LogicalBlock(offset / bs)));
    const unsigned credits = shift_credits(inode);
    const auto delta = static_cast<std::int64_t>(length / bs);
    Handle handle = TRY(inode.fs().journal.start(credits));
    for (bool prepared = false; !prepared;) {
        {
            MutexLock guard(inode.map_lock);
            prepared = TRY(inode.map().split_for_shift(handle, LogicalBlock(offset / bs), delta));
            inode.extent_status().invalidate();
            // The size before the blocks: what is moved up is never past it. Whoever finds no space tries all of this
            // again, so it grows once nothing can fail for want of it.
            if (prepared) {
                inode.set_size(size + length);
                inode.set_disk_size(size + length);
            }
            TRY(inode.store(handle));
        }
        if (!prepared) TRY(handle.restart(credits));
    }
    return shift_all(inode, handle, offset / bs, delta, credits);
}

}  // namespace uext4
