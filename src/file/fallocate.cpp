#include "base/seam.h"
#include "file/file_io.h"
#include "inode/attributes.h"

#include <linux/falloc.h>

#include <algorithm>
#include <cstring>

namespace uext4 {

namespace {

unsigned change_credits(Inode& inode) {
    MutexLock guard(inode.map_lock);
    return inode.extent_mapper().credits() + Inode::store_credits();
}

// Contents of inline files go to a block first: ranges are about blocks.
Result<void> need_blocks(Inode& inode, bool may_use_reserve) {
    TRY(convert_inline_to_blocks(inode, may_use_reserve));
    const Result<void> written = write_back(inode);
    if (written || written.error().code != ENOSPC) return written;
    // What has no space keeps nobody from giving some back.
    MutexLock guard(inode.map_lock);
    return inode.is_inline() ? written : Result<void>();
}

void touch_later(Inode& inode) {
    MutexLock guard(inode.map_lock);
    update_mtime_ctime(inode);
}

Result<void> allocate_range(Inode& inode, std::uint64_t offset, std::uint64_t length, bool keep_size, bool reserve) {
    const std::uint64_t bs = inode.fs().block_size(), end = offset + length;
    if (!keep_size && end > inode.size_hint()) TRY(zero_eof_block(inode));
    // Blocks promised to dirty data are chosen by its writeback.
    TRY(write_back(inode, offset, end));
    std::uint64_t at = offset / bs;
    const std::uint64_t last = divide_up(end, bs);
    Result<void> result;
    while (at < last && result) {
        LockedFolio straddle;
        if (!keep_size && end > inode.size_hint()) straddle = TRY(zero_eof_folio(inode));
        Handle handle = TRY(inode.fs().journal.start(change_credits(inode)));  // the tree grows on the way
        MutexLock guard(inode.map_lock);
        TRY(inode.get_write_access(handle));  // what cannot be stored is met before the file grows
        const std::uint64_t n = std::min<std::uint64_t>(last - at, 1u << 16);
        Result<LogicalBlock> reached = inode.extent_mapper().allocate_unwritten(handle, LogicalBlock(at), n, reserve);
        if (!reached) result = fail(reached.error());
        else at = reached->value;
        // Not before all of it is there: where a later step finds no space, the file has not grown.
        if (result && !keep_size && at >= last && end > inode.size()) {
            inode.set_size(end);
            inode.set_disk_size(stable_size(inode));
        }
        TRY(inode.store(handle));
    }
    return result;
}

// Of a block that lives nowhere: what the cache has of it, if it is dirty all the same, stays so.
Result<void> zero_homeless(Inode& inode, std::uint64_t offset, std::uint64_t end) {
    FileCache& pages = inode.pages();
    const std::uint64_t fs = pages.folio_size(), inside = offset % fs;
    LockedFolio folio = TRY(pages.lock_for_change(offset / fs, false));
    if (folio && (folio->dirty >> (inside / pages.block_size()) & 1))
        std::memset(folio->data + inside, 0, end - offset);
    return {};
}

// Zeroes bytes of blocks that are only partly in the range, through the cache.
Result<void> zero_part(Inode& inode, std::uint64_t offset, std::uint64_t end) {
    if (offset >= end) return {};
    BlockState place = BlockState::hole;
    {
        MutexLock guard(inode.map_lock);
        const Mapping found = TRY(inode.extent_status().lookup(offset, 1));
        place = found.state;
    }
    if (place == BlockState::hole) return zero_homeless(inode, offset, end);
    const bool unwritten = place == BlockState::unwritten;
    // Unwritten blocks read as zeros but for what the cache has of them.
    const std::uint64_t index = offset / inode.pages().folio_size();
    if (unwritten && inode.pages().next_cached(index) != index) return {};
    const std::uint64_t size = inode.size_hint();
    if (offset >= size) return {};
    end = std::min(end, size);
    const std::vector<std::byte> zeros(end - offset);
    WriteRequest request;
    request.may_use_reserve = true;
    request.keep_times = true;
    const std::size_t n = TRY(write_cached(inode, offset, zeros, request));
    if (n != zeros.size()) return fail(EIO, "inode {}: zeroing stopped at {}", inode.number(), offset + n);
    return {};
}

// Zeros in the blocks of [offset, end) that have contents, where the tree finds no block for what would make them none.
Result<void> zero_contents(Inode& inode, std::uint64_t offset, std::uint64_t end) {
    constexpr std::uint64_t piece = 1 << 20;
    for (RangeIterator range(inode, offset, end); TRY(range.load(piece)); range.next())
        if (range.mapping().state == BlockState::mapped) TRY(zero_part(inode, range.at(), range.run_end()));
    return {};
}

// The cache forgets whole blocks of the range: they read as zeros from now on. Invalidate and flush_lock held.
Result<void> forget_blocks(Inode& inode, std::uint64_t first, std::uint64_t end) {
    FileCache& pages = inode.pages();
    const std::uint64_t bs = pages.block_size(), fs = pages.folio_size();
    auto partly = [&](std::uint64_t from, std::uint64_t to) -> Result<void> {
        if (from >= to) return {};
        LockedFolio folio = TRY(pages.lock_for_change(from / fs, false));
        if (!folio) return {};
        pages.write_protect(folio);
        BlockMask mask = 0;
        for (std::uint64_t slot = from % fs / bs; slot < from % fs / bs + (to - from) / bs; ++slot)
            mask |= BlockMask{1} << slot;
        if (UEXT4_SEAM(punch_detaches)) release_journaled_blocks(folio, mask);
        std::memset(folio->data + from % fs, 0, to - from);
        pages.clear_dirty(folio, mask);
        folio->uptodate |= mask;
        return {};
    };
    const std::uint64_t inner_first = round_up(first, fs), inner_end = round_down(end, fs);
    if (inner_first > inner_end) return partly(first, end);
    TRY(partly(first, inner_first));
    TRY(partly(inner_end, end));
    pages.remove(inner_first / fs, inner_end / fs);
    return {};
}

// Whole blocks become unwritten, one extent at a time; whichever would need a block for the tree that there is none for
// gets zeros. No block of the range is a hole.
Result<void> make_unwritten(Inode& inode, std::uint64_t first, std::uint64_t last, bool reserve) {
    const std::uint64_t bs = inode.fs().block_size();
    bool kept = false;
    // To the end: what the blocks hold is not read again before it is zeros.
    UniqueWriteLock invalidate;
    if (UEXT4_SEAM(zeroing_invalidates)) invalidate = UniqueWriteLock(inode.pages().invalidate);
    const DirtyDataDiscard takes(inode);
    {
        MutexLock flush(inode.flush_lock);
        const BufferRef table = TRY(pin_inode_table_block(inode));
        TRY(forget_blocks(inode, first, last));
        for (RangeIterator range(inode, first, last); !range.done();) {
            Handle handle = TRY(inode.fs().journal.start(change_credits(inode)));
            MutexLock guard(inode.map_lock);
            const std::uint64_t at = range.at();
            if (at == first) inode.delalloc().release(LogicalBlock(first / bs), LogicalBlock(last / bs));
            (void)TRY(range.load_locked());
            const LogicalBlock block(at / bs);
            std::uint64_t blocks = range.length() / bs;
            if (range.mapping().state == BlockState::mapped) {
                if (inode.journals_data()) blocks = std::min(blocks, Handle::max_revokes_per_step);
                const Result<void> done = inode.map().set_unwritten(handle, block, blocks, true, nullptr);
                if (!done && done.error().code != ENOSPC) return done;
                kept = kept || !done;
                // A cut before this is durable finds it written, with the end of the file in it perhaps.
                if (done) inode.note_uncommitted_unmap(handle.tid(), block, block + blocks);
                if (done) TRY(inode.revoke_data(handle, range.block(), blocks));
                inode.extent_status().invalidate();
                range.advance_to(at + blocks * bs);
            } else if (range.mapping().state == BlockState::hole) {
                range.advance_to(TRY(inode.extent_mapper().allocate_unwritten(handle, block, blocks, reserve)).value *
                                 bs);
            } else {
                range.next();
            }
            TRY(inode.store(handle));
        }
    }
    return kept ? zero_contents(inode, first, last) : Result<void>();
}

Result<void> zero_range(Inode& inode, std::uint64_t offset, std::uint64_t length, bool keep_size, bool reserve) {
    const std::uint64_t bs = inode.fs().block_size(), end = offset + length;
    const std::uint64_t first = round_up(offset, bs), last = round_down(end, bs);
    // Before the range joins the running transaction, as a commit would take that along.
    if (first < last) TRY(prepare_to_zero(inode));
    // Where there is no room for all of it, nothing has changed yet but holes, which read as before.
    TRY(allocate_range(inode, offset, length, true, reserve));
    if (first > last) {
        TRY(zero_part(inode, offset, end));
    } else {
        TRY(zero_part(inode, offset, first));
        TRY(zero_part(inode, last, end));
    }
    if (first < last) TRY(make_unwritten(inode, first, last, reserve));
    return keep_size ? Result<void>() : allocate_range(inode, offset, length, false, reserve);
}

// ENOSPC where a split of the tree finds no block; then the cache has forgotten, and the blocks are still there.
// Invalidate held.
Result<void> punch_blocks(Inode& inode, std::uint64_t first, std::uint64_t end) {
    const std::uint64_t bs = inode.fs().block_size();
    MutexLock flush(inode.flush_lock);
    TRY(prepare_to_unmap(inode, LogicalBlock(first / bs), LogicalBlock(end / bs)));
    // The cache forgets what is still there if it cannot be freed: what cannot be read is met before.
    const std::vector<BufferRef> held = TRY(pin_for_free(inode, LogicalBlock(first / bs), LogicalBlock(end / bs)));
    TRY(forget_blocks(inode, first, end));
    Handle handle = TRY(inode.fs().journal.start(change_credits(inode) + OrphanList::credits()));
    {
        MutexLock guard(inode.map_lock);
        inode.delalloc().release(LogicalBlock(first / bs), LogicalBlock(end / bs));
    }
    TRY(remove_blocks(inode, handle, LogicalBlock(first / bs), LogicalBlock(end / bs)));
    MutexLock guard(inode.map_lock);
    // What is gone may have found no space, and held the size on disk back: nobody writes it back any more.
    inode.set_disk_size(stable_size(inode));
    return inode.store(handle);
}

}  // namespace

Result<void> punch_range(Inode& inode, std::uint64_t offset, std::uint64_t length, bool* only_zeroed) {
    const std::uint64_t bs = inode.fs().block_size();
    const std::uint64_t end = std::min(offset + length, round_up(inode.size_hint(), bs));
    // Blocks allocated past the end of the file may be punched as well.
    const std::uint64_t whole_end = round_down(offset + length, bs);
    const std::uint64_t first = round_up(offset, bs);
    if (first > whole_end) return zero_part(inode, offset, offset + length);
    (void)TRY(pin_for_free(inode, LogicalBlock(first / bs), LogicalBlock(whole_end / bs)));
    TRY(zero_part(inode, offset, std::min(first, end)));
    if (whole_end < end) TRY(zero_part(inode, whole_end, std::min(offset + length, end)));
    if (first >= whole_end) return {};
    UniqueWriteLock invalidate;
    if (UEXT4_SEAM(punch_invalidates)) invalidate = UniqueWriteLock(inode.pages().invalidate);
    const DirtyDataDiscard takes(inode);
    Result<void> removed = punch_blocks(inode, first, whole_end);
    if (removed || removed.error().code != ENOSPC) return removed;
    TRY(zero_contents(inode, first, std::min(whole_end, end)));
    if (!only_zeroed) return {};
    *only_zeroed = true;
    return removed;
}

Result<void> check_fallocate_mode(int mode) {
    constexpr int known = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_ZERO_RANGE |
                          FALLOC_FL_INSERT_RANGE | FALLOC_FL_UNSHARE_RANGE;
    if (mode & ~known) return fail(EOPNOTSUPP, "fallocate mode {:#x} is not known", mode);
    const int operation = mode & ~FALLOC_FL_KEEP_SIZE;
    const bool keep = (mode & FALLOC_FL_KEEP_SIZE) != 0;
    if ((operation & (operation - 1)) != 0) return fail(EOPNOTSUPP, "fallocate mode {:#x} mixes operations", mode);
    if (operation == FALLOC_FL_PUNCH_HOLE && !keep)
        return fail(EOPNOTSUPP, "a hole is punched with FALLOC_FL_KEEP_SIZE");
    if ((operation == FALLOC_FL_COLLAPSE_RANGE || operation == FALLOC_FL_INSERT_RANGE) && keep)
        return fail(EOPNOTSUPP, "collapse and insert change the size");
    return {};
}

Result<void> fallocate_file(Inode& inode, int mode, std::uint64_t offset, std::uint64_t length, bool reserve,
                            const Credentials* who, bool keep_times, bool* only_zeroed) {
    const int operation = mode & ~FALLOC_FL_KEEP_SIZE;
    const bool keep = (mode & FALLOC_FL_KEEP_SIZE) != 0;
    if (inode.has_flag(format::inode_flag::append) && operation != 0)
        return fail(EPERM, "inode {} is append-only", inode.number());
    if (inode.has_flag(format::inode_flag::immutable)) return fail(EPERM, "inode {} is immutable", inode.number());
    if (!inode.is_regular())
        return fail(inode.is_directory() ? EISDIR : ENODEV, "inode {} is no regular file", inode.number());
    if (length == 0) return fail(EINVAL, "fallocate of no bytes");
    const std::uint64_t limit = inode.fs().geometry.max_extent_file_size;
    if (offset > limit || length > limit - offset)
        return fail(EFBIG, "inode {}: {} bytes at {}, at most {}", inode.number(), length, offset, limit);
    WriteLock guard(inode.rw);
    // As in the kernel: also when the range is refused.
    if (who) TRY(file_remove_privs(inode, *who));
    if (!keep_times) touch_later(inode);
    if (!inode.will_use_extents() && operation != FALLOC_FL_PUNCH_HOLE)
        return fail(EOPNOTSUPP, "inode {} has no extents", inode.number());
    TRY(need_blocks(inode, reserve));
    switch (operation) {
        case FALLOC_FL_PUNCH_HOLE: return punch_range(inode, offset, length, only_zeroed);
        case FALLOC_FL_ZERO_RANGE: return zero_range(inode, offset, length, keep, reserve);
        case FALLOC_FL_COLLAPSE_RANGE: return collapse_range(inode, offset, length);
        case FALLOC_FL_INSERT_RANGE: return insert_range(inode, offset, length);
        default: return allocate_range(inode, offset, length, keep, reserve);
    }
}

}  // namespace uext4
