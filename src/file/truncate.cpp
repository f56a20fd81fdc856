#include "base/page.h"
#include "base/seam.h"
#include "file/file_io.h"
#include "file/out_of_place_write.h"
#include "inode/attributes.h"
#include "inode/inline_data.h"
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
    std::optional<OutOfPlaceWrite> swap;
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
    release_journaled_blocks(folio, gone);
    std::memset(folio->data + inside, 0, folio_size - inside);
    pages.clear_dirty(folio, gone);
}

// The block's zero-tailed copy goes to a block of its own, to a second one where the first cannot be written. Nothing
// where there is none.
Result<std::optional<OutOfPlaceWrite>> write_copy(Inode& inode, LogicalBlock at, BlockNr old, ConstBytes copy) {
    std::optional<OutOfPlaceWrite> unwritable;
    for (;;) {
        std::optional<OutOfPlaceWrite> swap = prepare_out_of_place_write(inode, at, old, old, false);
        if (!swap) return std::nullopt;
        const std::uint64_t place = swap->allocation.first().value * inode.fs().block_size();
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
    (void)TRY(last.load());
    const BlockState place = last.mapping().state;
    const bool partial = size % bs != 0;
    out.folio = TRY(pages.lock_for_change(size / folio_size, partial && place != BlockState::hole));
    if (!out.folio) return out;
    if (partial && place != BlockState::hole) TRY(fill_folio(inode, out.folio));
    pages.write_protect(out.folio);
    if (inode.journals_data() && !inode.is_inline()) {
        out.journaled = partial && place == BlockState::mapped;
        return out;
    }
    if (!partial) return out;
    if (place != BlockState::mapped) {
        out.dirty = place == BlockState::converting;
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
    if (inode.journals_data() || UEXT4_SEAM(zeroes_tails)) zero_from(pages, tail.folio, inside);
    if (tail.journaled) return journal_folio_blocks(handle, inode, tail.folio, block);
    if (tail.logged) TRY(log_block(handle, inode, tail.logged->block, tail.logged->contents));
    if (tail.on_device) pages.clear_dirty(tail.folio, block);
    if (tail.dirty) pages.mark_dirty(tail.folio, block);
    return {};
}

Result<void> shrink(Inode& inode, std::uint64_t size, OrphanList& orphans) {
    FsContext& fs = inode.fs();
    FileCache& pages = inode.pages();
    const std::uint64_t bs = fs.block_size(), folio_size = pages.folio_size();
    UniqueWriteLock invalidate;
    if (UEXT4_SEAM(truncate_invalidates)) invalidate = UniqueWriteLock(pages.invalidate);
    MutexLock flush(inode.flush_lock);
    const DirtyDataDiscard takes(inode);
    // What is cut off is in the cache alone perhaps, and the tail is zeroed in its place where there is no other:
    // whatever cannot be read is met before.
    const std::vector<BufferRef> held = TRY(orphans.pin_for_add(inode));
    const LogicalBlock first(divide_up(size, bs));
    TRY(prepare_to_unmap(inode, first, LogicalBlock(~std::uint64_t{0})));
    const std::vector<BufferRef> freeing = TRY(pin_for_free(inode, first, LogicalBlock(~std::uint64_t{0})));
    Tail tail = TRY(cut_tail(inode, size));
    // What lies past the new end is gone from the cache before the size is: a fault sees either all or nothing of it.
    pages.remove(divide_up(size, folio_size), ~std::uint64_t{0});
    atomic_point("FileCache::client_maps", &pages);
    if (ClientMapsHook* maps = pages.client_maps()) {
        // Of a folio above a page a part is away for a moment, and a commit looks without the folio's lock.
        if (tail.folio && folio_size > page_size)
            release_journaled_blocks(tail.folio, ~BlockMask{0} << size % folio_size / bs);
        maps->truncate(size);
    }
    const bool was_orphan = orphans.contains(inode);
    const unsigned credits =
        truncate_credits(inode) + (tail.swap || tail.journaled || tail.logged ? out_of_place_write_credits() : 0) + 2;
    Handle handle = TRY(fs.journal.start(credits));
    if (!was_orphan) TRY(orphans.add(handle, inode));
    if (tail.swap) {
        MutexLock guard(inode.map_lock);
        TRY(finish_out_of_place_write(handle, inode, *tail.swap));
    }
    if (tail.folio) TRY(zero_tail(handle, inode, size, tail));
    {
        MutexLock guard(inode.map_lock);
        inode.delalloc().release(first, LogicalBlock(~std::uint64_t{0}));
        inode.set_size(size);
        inode.truncate_incomplete.store(!inode.is_inline());
        const std::vector<std::byte> old = inode.is_inline() ? TRY(read_inline_data(inode)) : std::vector<std::byte>();
        // With the last block go those of its bytes that were not there before.
        const bool has_tail = tail.swap || tail.logged;
        const std::uint64_t on_disk = std::min(inode.disk_size(), size);
        inode.set_disk_size(has_tail && on_disk / bs == size / bs ? size : on_disk);
        if (inode.is_inline()) {
            TRY(write_inline_data(handle, inode, ConstBytes(old).first(inode.disk_size())));
        } else {
            TRY(inode.store(handle));
        }
    }
    tail.folio.unlock();
    if (!inode.is_inline()) TRY(remove_blocks(inode, handle, first, LogicalBlock(~std::uint64_t{0})));
    inode.truncate_incomplete.store(false);
    // Of one that has names, an earlier cut has failed behind this.
    if (!was_orphan || inode.links() != 0) {
        if (!handle.extend(OrphanList::credits())) TRY(handle.restart(credits));
        TRY(orphans.remove(handle, inode));
    }
    return {};
}

Result<void> grow(Inode& inode, std::uint64_t size, bool may_use_reserve) {
    bool leaves = false;
    {
        MutexLock guard(inode.map_lock);
        leaves = inode.is_inline() && size > max_inline_size(inode);
    }
    if (leaves) TRY(convert_inline_to_blocks(inode, may_use_reserve));
    TRY(zero_eof_block(inode));
    const LockedFolio straddle = TRY(zero_eof_folio(inode));
    Handle handle = TRY(inode.fs().journal.start(Inode::store_credits()));
    MutexLock guard(inode.map_lock);
    TRY(inode.get_write_access(handle));  // what cannot be stored is met before it changes
    inode.set_size(size);
    return store_stable_size(handle, inode);
}

}  // namespace

unsigned truncate_credits(Inode& inode) {
    MutexLock guard(inode.map_lock);
    return inode.extent_mapper().credits() + Inode::store_credits() + OrphanList::credits();
}

Result<BufferRef> pin_inode_table_block(Inode& inode) {
    MutexLock guard(inode.map_lock);
    return inode.read_inode_table_block();
}

Result<std::vector<BufferRef>> pin_for_free(Inode& inode, LogicalBlock first, LogicalBlock end) {
    constexpr std::size_t most_held = 64;
    Allocator& allocator = inode.fs().allocator;
    std::vector<BufferRef> held;
    Result<void> found;
    MutexLock guard(inode.map_lock);
    held.push_back(TRY(inode.read_inode_table_block()));
    if (inode.is_inline()) return held;
    TRY(inode.map().for_each(first, [&](const MappedRun& run) {
        if (run.logical >= end) return false;
        if (run.hole()) return true;
        found = allocator.check_groups(run.physical, run.count);
        if (!found || held.size() >= most_held) return found.has_value();
        Result<std::vector<BufferRef>> blocks = allocator.pin_blocks_for_free(run.physical, run.count);
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
            const LogicalBlock last = std::min(end, inode.map().max_block());
            if (first >= last) return {};
            const LogicalBlock reached = TRY(inode.extent_mapper().unmap_range(handle, first, last));
            TRY(inode.store(handle));
            if (reached <= first) return {};
            credits = inode.extent_mapper().credits() + Inode::store_credits() + OrphanList::credits();
        }
        TRY(handle.restart(credits));
    }
}

namespace {

// Blocks that fallocate put behind the end of the file.
Result<bool> has_blocks_behind(Inode& inode, std::uint64_t size) {
    MutexLock guard(inode.map_lock);
    if (inode.is_inline()) return false;
    const LogicalBlock first(divide_up(size, inode.fs().block_size())), limit = inode.map().max_block();
    if (first >= limit) return false;
    const MappedRun run = TRY(inode.map().lookup(first, limit.value - first.value));
    return !run.hole() || run.count < limit.value - first.value;
}

}  // namespace

Result<void> truncate_file(Inode& inode, std::uint64_t size, OrphanList& orphans, const Credentials* who) {
    WriteLock guard(inode.rw);
    if (size > max_file_size(inode))
        return fail(EFBIG, "inode {}: {} bytes, at most {}", inode.number(), size, max_file_size(inode));
    if (who) TRY(file_remove_privs(inode, *who));
    const std::uint64_t old = inode.size_hint();
    if (size < old || (size == old && TRY(has_blocks_behind(inode, size)))) {
        TRY(shrink(inode, size, orphans));
        if (size == 0 && old != 0) inode.replace_on_close.store(true);
    } else if (size > old) {
        TRY(grow(inode, size, !who || may_use_reserved_blocks(inode.fs(), *who)));
    }
    MutexLock map(inode.map_lock);
    update_mtime_ctime(inode);
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
Result<void> delete_locked(Inode& inode, InodeTable& inodes, OrphanList& orphans) {
    {
        WriteLock invalidate(inode.pages().invalidate);
        MutexLock flush(inode.flush_lock);
        inode.pages().remove(0, ~std::uint64_t{0});
        MutexLock map(inode.map_lock);
        inode.delalloc().release(LogicalBlock(0), LogicalBlock(~std::uint64_t{0}));
        inode.count_as_deleting();
    }
    const unsigned attributes = xattr_credits(inode);
    Handle handle = TRY(inode.fs().journal.start(truncate_credits(inode)));
    if (inode.has_map()) TRY(remove_blocks(inode, handle, LogicalBlock(0), LogicalBlock(~std::uint64_t{0})));
    inode.truncate_incomplete.store(false);
    const unsigned last = attributes + Allocator::inode_credits() + OrphanList::credits() + 2 * Inode::store_credits();
    if (!handle.extend(last)) TRY(handle.restart(last));
    TRY(free_all_xattrs(handle, inode));
    // What freeing the number has to read is read while the list of orphans still knows it, and held until it is done.
    (void)TRY(inode.fs().allocator.is_inode_used(inode.number()));
    const std::vector<BufferRef> held = TRY(hold_for_number(inode));
    TRY(orphans.remove(handle, inode));
    return inodes.free_inode(handle, inode);
}

}  // namespace

Result<void> delete_inode(Inode& inode, InodeTable& inodes, OrphanList& orphans) {
    WriteLock guard(inode.rw);
    if (inode.links() != 0 || inode.deleted.load()) return {};
    Result<void> done = delete_locked(inode, inodes, orphans);
    MutexLock map(inode.map_lock);
    inode.end_counting_as_deleting();
    return done;
}

}  // namespace uext4
