#include "base/page.h"
#include "base/seam.h"
#include "file/block_swap.h"
#include "file/file_io.h"
#include "inode/attributes.h"
#include "inode/inline_area.h"
#include "inode/xattr.h"
#include "sync/atomic_point.h"

#include <algorithm>
#include <cstring>
#include <iterator>

namespace uext4 {

namespace {

// The last block of the shorter file, with zeros behind its new end. A block named on disk is not changed in place: the
// zero-tailed copy goes to another one, which is swapped in, or through the log. So neither the old tail nor zeros in
// synced bytes can be seen after a crash.
struct Tail {
    LockedFolio folio;  // held until the size is set: what fails before that leaves its bytes as they are
    std::optional<BlockSwap> swap;
    struct Logged {
        BlockNr block;
        std::vector<std::byte> contents;
    };
    std::optional<Logged> logged;
    bool journaled = false;
    bool on_device = false;  // the zero-tailed block is there, in its place or in the one to swap
    bool dirty = false;      // it is written back in its time
};

void zero_from(FileCache& pages, LockedFolio& folio, std::uint64_t inside) {
    const std::uint64_t bs = pages.block_size(), folio_size = pages.folio_size();
    // Blocks wholly behind the end are nowhere now: zeros, clean, and no transaction's, which would keep the folio.
    BlockMask gone = 0;
    for (std::uint64_t slot = divide_up(inside, bs); slot < folio_size / bs; ++slot) gone |= BlockMask{1} << slot;
    detach_journaled_blocks(folio, gone);
    std::memset(folio->data + inside, 0, folio_size - inside);
    pages.clear_dirty(folio, gone);
}

// The block's zero-tailed copy goes to a block of its own, to a second one where the first cannot be written. Nothing
// where there is none.
Result<std::optional<BlockSwap>> write_copy(Inode& inode, LogicalBlock at, BlockNr old, ConstBytes copy) {
    std::optional<BlockSwap> unwritable;
    for (;;) {
        std::optional<BlockSwap> swap = prepare_swap(inode, at, old, old, false);
        if (!swap) return std::nullopt;
        const std::uint64_t place = swap->grant.first().value * inode.fs().block_size();
        if (Result<void> written = inode.fs().device.write(place, copy); written) return swap;
        else if (unwritable) return fail(written.error());
        unwritable = std::move(swap);
    }
}

Result<Tail> cut_tail(Inode& inode, std::uint64_t size) {
    FsContext& fs = inode.fs();
    FileCache& pages = inode.pages();
    const std::uint64_t bs = fs.block_size(), folio_size = pages.folio_size();
    Tail out;
    if (size % folio_size == 0) return out;
    RangeIterator last(inode, size, size + 1);
    (void)TRY(last.look());
    const Place place = last.run().place;
    const bool partial = size % bs != 0;
    out.folio = TRY(pages.lock_for_change(size / folio_size, partial && place != Place::hole));
    if (!out.folio) return out;
    if (partial && place != Place::hole) TRY(fill_folio(inode, out.folio));
    pages.protect(out.folio);
    if (inode.data_in_journal() && !inode.is_inline()) {
        out.journaled = partial && place == Place::mapped;
        return out;
    }
    if (!partial) return out;
    if (place != Place::mapped) {
        out.dirty = place == Place::written;
        return out;
    }
    const std::uint64_t inside = size % folio_size;
    const ConstBytes contents(out.folio->data + inside / bs * bs, bs);
    std::vector<std::byte> copy(contents.begin(), contents.end());
    if (UEXT4_SEAM(zeroes_tails))
        std::fill(copy.begin() + static_cast<std::ptrdiff_t>(size % bs), copy.end(), std::byte{0});
    out.swap = TRY(write_copy(inode, LogicalBlock(size / bs), last.block(), copy));
    if (!out.swap && fs.journal.has_log()) {
        out.logged = Tail::Logged{last.block(), std::move(copy)};
    } else if (!out.swap) {
        // Nothing is promised of a cut: the tail is zeroed in place before the size changes. Whatever fails from here
        // on, a part of the old bytes may be gone from the device: they are written back then.
        pages.mark_dirty(out.folio, BlockMask{1} << (inside / bs));
        TRY(fs.device.write(last.block().value * bs, copy));
    }
    out.on_device = true;
    return out;
}

// In the handle that sets the size.
Result<void> zero_tail(Handle& handle, Inode& inode, std::uint64_t size, Tail& tail) {
    FileCache& pages = inode.pages();
    const std::uint64_t inside = size % pages.folio_size();
    const BlockMask block = BlockMask{1} << (inside / pages.block_size());
    if (inode.data_in_journal() || UEXT4_SEAM(zeroes_tails)) zero_from(pages, tail.folio, inside);
    if (tail.journaled) return journal_folio_blocks(handle, inode, tail.folio, block);
    if (tail.logged) TRY(log_block(handle, inode, tail.logged->block, tail.logged->contents));
    if (tail.on_device) pages.clear_dirty(tail.folio, block);
    if (tail.dirty) pages.mark_dirty(tail.folio, block);
    return {};
}

Result<void> shrink(Inode& inode, std::uint64_t size, Orphans& orphans) {
    FsContext& fs = inode.fs();
    FileCache& pages = inode.pages();
    const std::uint64_t bs = fs.block_size(), folio_size = pages.folio_size();
    UniqueWriteLock invalidate;
    if (UEXT4_SEAM(truncate_invalidates)) invalidate = UniqueWriteLock(pages.invalidate);
    MutexLock flush(inode.flush_lock);
    const TakesFromCache takes(inode);
    // What is cut off is in the cache alone perhaps, and the tail is zeroed in its place where there is no other:
    // whatever cannot be read is met before.
    const std::vector<BufferRef> held = TRY(orphans.hold_for_add(inode));
    const LogicalBlock first(divide_up(size, bs));
    TRY(prepare_to_cut(inode, first, LogicalBlock(~std::uint64_t{0})));
    const std::vector<BufferRef> freeing = TRY(hold_to_free(inode, first, LogicalBlock(~std::uint64_t{0})));
    Tail tail = TRY(cut_tail(inode, size));
    // What lies past the new end is gone from the cache before the size is: a fault sees either all or nothing of it.
    pages.remove(divide_up(size, folio_size), ~std::uint64_t{0});
    atomic_point("FileCache::client_maps", &pages);
    if (ClientMapsHook* maps = pages.client_maps()) {
        // Of a folio above a page a part is away for a moment, and a commit looks without the folio's lock.
        if (tail.folio && folio_size > page_size)
            detach_journaled_blocks(tail.folio, ~BlockMask{0} << size % folio_size / bs);
        maps->cut(size);
    }
    const bool was_orphan = orphans.contains(inode);
    const unsigned credits = cut_credits(inode) + (tail.swap || tail.journaled || tail.logged ? swap_credits() : 0) + 2;
    Handle handle = TRY(fs.journal.start(credits));
    if (!was_orphan) TRY(orphans.add(handle, inode));
    if (tail.swap) {
        MutexLock guard(inode.map_lock);
        TRY(swap_block(handle, inode, *tail.swap));
    }
    if (tail.folio) TRY(zero_tail(handle, inode, size, tail));
    {
        MutexLock guard(inode.map_lock);
        inode.places().drop_pending(first, LogicalBlock(~std::uint64_t{0}));
        inode.set_size(size);
        inode.cut_unfinished.store(!inode.is_inline());
        const std::vector<std::byte> old = inode.is_inline() ? TRY(read_inline(inode)) : std::vector<std::byte>();
        // With the last block go those of its bytes that were not there before.
        const bool has_tail = tail.swap || tail.logged;
        const std::uint64_t on_disk = std::min(inode.disk_size(), size);
        inode.set_disk_size(has_tail && on_disk / bs == size / bs ? size : on_disk);
        if (inode.is_inline()) {
            TRY(write_inline(handle, inode, ConstBytes(old).first(inode.disk_size())));
        } else {
            TRY(inode.store(handle));
        }
    }
    tail.folio.unlock();
    if (!inode.is_inline()) TRY(remove_blocks(inode, handle, first, LogicalBlock(~std::uint64_t{0})));
    inode.cut_unfinished.store(false);
    // Of one that has names, an earlier cut has failed behind this.
    if (!was_orphan || inode.links() != 0) {
        if (!handle.extend(Orphans::credits())) TRY(handle.restart(credits));
        TRY(orphans.remove(handle, inode));
    }
    return {};
}

Result<void> grow(Inode& inode, std::uint64_t size, bool may_use_reserve) {
    bool leaves = false;
    {
        MutexLock guard(inode.map_lock);
        leaves = inode.is_inline() && size > inline_capacity(inode);
    }
    if (leaves) TRY(leave_inline(inode, may_use_reserve));
    TRY(clear_tail(inode));
    const LockedFolio straddle = TRY(zero_straddle(inode));
    Handle handle = TRY(inode.fs().journal.start(Inode::store_credits()));
    MutexLock guard(inode.map_lock);
    TRY(inode.join(handle));  // what cannot be stored is met before it changes
    inode.set_size(size);
    return store_stable_size(handle, inode);
}

}  // namespace

unsigned cut_credits(Inode& inode) {
    MutexLock guard(inode.map_lock);
    return inode.places().credits() + Inode::store_credits() + Orphans::credits();
}

Result<BufferRef> hold_table(Inode& inode) {
    MutexLock guard(inode.map_lock);
    return inode.read_table();
}

Result<std::vector<BufferRef>> hold_to_free(Inode& inode, LogicalBlock first, LogicalBlock end) {
    constexpr std::size_t most_held = 64;
    Allocator& allocator = inode.fs().allocator;
    std::vector<BufferRef> held;
    Result<void> found;
    MutexLock guard(inode.map_lock);
    held.push_back(TRY(inode.read_table()));
    if (inode.is_inline()) return held;
    TRY(inode.map().for_each(first, [&](const MappedRun& run) {
        if (run.logical >= end) return false;
        if (run.hole()) return true;
        found = allocator.check_groups_of(run.physical, run.count);
        if (!found || held.size() >= most_held) return found.has_value();
        Result<std::vector<BufferRef>> blocks = allocator.hold_for_free(run.physical, run.count);
        if (!blocks) found = fail(blocks.error());
        else std::ranges::move(*blocks, std::back_inserter(held));
        return found.has_value();
    }));
    if (!found) return fail(found.error());
    return held;
}

Result<void> remove_blocks(Inode& inode, Handle& handle, LogicalBlock first, LogicalBlock end) {
    for (;;) {
        unsigned credits = 0;
        {
            MutexLock guard(inode.map_lock);
            const LogicalBlock last = std::min(end, inode.map().limit());
            if (first >= last) return {};
            const LogicalBlock reached = TRY(inode.places().remove(handle, first, last));
            TRY(inode.store(handle));
            if (reached <= first) return {};
            credits = inode.places().credits() + Inode::store_credits() + Orphans::credits();
        }
        TRY(handle.restart(credits));
    }
}

namespace {

// Blocks that fallocate put behind the end of the file.
Result<bool> has_blocks_behind(Inode& inode, std::uint64_t size) {
    MutexLock guard(inode.map_lock);
    if (inode.is_inline()) return false;
    const LogicalBlock first(divide_up(size, inode.fs().block_size())), limit = inode.map().limit();
    if (first >= limit) return false;
    const MappedRun run = TRY(inode.map().lookup(first, limit.value - first.value));
    return !run.hole() || run.count < limit.value - first.value;
}

}  // namespace

Result<void> truncate_file(Inode& inode, std::uint64_t size, Orphans& orphans, const Credentials* who) {
    WriteLock guard(inode.rw);
    if (size > max_file_size(inode))
        return fail(EFBIG, "inode {}: {} bytes, at most {}", inode.number(), size, max_file_size(inode));
    if (who) TRY(remove_privileges(inode, *who));
    const std::uint64_t old = inode.size_hint();
    if (size < old || (size == old && TRY(has_blocks_behind(inode, size)))) {
        TRY(shrink(inode, size, orphans));
        if (size == 0 && old != 0) inode.replace_on_close.store(true);
    } else if (size > old) {
        TRY(grow(inode, size, !who || is_privileged(inode.fs(), *who)));
    }
    MutexLock map(inode.map_lock);
    note_change(inode);
    return {};
}

namespace {

// The descriptor of the inode's group, and its bitmap.
Result<std::vector<BufferRef>> hold_for_number(const Inode& inode) {
    FsContext& fs = inode.fs();
    const format::Geometry& g = fs.geometry;
    const auto place = g.descriptor_place(g.group_of(inode.number()));
    std::vector<BufferRef> held;
    held.push_back(TRY(fs.buffers.read(place.block, "group descriptors")));
    BlockNr bitmap;
    {
        MutexLock guard(held.front()->lock);
        const format::GroupDescView desc(held.front()->data().subspan(place.offset), g.desc_size);
        if (!(desc.flags() & format::group_flag::inode_uninit)) bitmap = desc.inode_bitmap();
    }
    // Freeing the number says what is wrong with it.
    if (bitmap && g.valid_block(bitmap)) held.push_back(TRY(fs.buffers.read(bitmap, "inode bitmap")));
    return held;
}

// `inode.rw` held.
Result<void> delete_locked(Inode& inode, InodeTable& inodes, Orphans& orphans) {
    {
        WriteLock invalidate(inode.pages().invalidate);
        MutexLock flush(inode.flush_lock);
        inode.pages().remove(0, ~std::uint64_t{0});
        MutexLock map(inode.map_lock);
        inode.places().drop_pending(LogicalBlock(0), LogicalBlock(~std::uint64_t{0}));
        inode.count_as_free();
    }
    const unsigned attributes = xattr_credits(inode);
    Handle handle = TRY(inode.fs().journal.start(cut_credits(inode)));
    if (inode.has_map()) TRY(remove_blocks(inode, handle, LogicalBlock(0), LogicalBlock(~std::uint64_t{0})));
    inode.cut_unfinished.store(false);
    const unsigned last = attributes + Allocator::inode_credits() + Orphans::credits() + 2 * Inode::store_credits();
    if (!handle.extend(last)) TRY(handle.restart(last));
    TRY(free_all_xattrs(handle, inode));
    // What freeing the number has to read is read while the list of orphans still knows it, and held until it is done.
    (void)TRY(inode.fs().allocator.inode_in_use(inode.number()));
    const std::vector<BufferRef> held = TRY(hold_for_number(inode));
    TRY(orphans.remove(handle, inode));
    return inodes.release(handle, inode);
}

}  // namespace

Result<void> delete_inode(Inode& inode, InodeTable& inodes, Orphans& orphans) {
    WriteLock guard(inode.rw);
    if (inode.links() != 0 || inode.deleted.load()) return {};
    Result<void> done = delete_locked(inode, inodes, orphans);
    MutexLock map(inode.map_lock);
    inode.end_counting_as_free();
    return done;
}

}  // namespace uext4
