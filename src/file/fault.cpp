// Faults of client maps. A fault takes Invalidate shared, then the folio; of a store then the handle, when data is
// journaled, and map_lock. Never Inode: a fault may come from inside an operation that holds it.
#include "file/fault.h"

#include "base/page.h"
#include "base/seam.h"

#include "file/file_io.h"
#include "sync/atomic_point.h"

#include <fcntl.h>

#include <algorithm>

namespace uext4 {

namespace {

constexpr std::uint64_t pages_around = 16;  // pages that a load makes visible with its own, when they are cached

// What the bytes of a folio that lie in the file are in blocks.
struct Span {
    std::uint64_t first = 0, count = 0;  // logical blocks
    BlockMask mask = 0;
};

Span span_of(const FileCache& pages, std::uint64_t index, std::uint64_t size) {
    const std::uint64_t fs = pages.folio_size(), bs = pages.block_size(), start = index * fs;
    Span span;
    span.first = start / bs;
    span.count = divide_up(std::min(start + fs, size) - start, bs);
    span.mask = span.count == 64 ? ~BlockMask{0} : (BlockMask{1} << span.count) - 1;
    return span;
}

Result<void> may_be_stored_to(Inode& inode) {
    atomic_point("FsContext::read_only", &inode.fs().read_only);
    if (inode.fs().read_only.load()) return fail(EROFS, "the file system is read-only");
    MutexLock guard(inode.map_lock);
    if (inode.has_flag(format::inode_flag::immutable)) return fail(EPERM, "inode {} is immutable", inode.number());
    return {};
}

// Promised blocks and a dirty folio. Contents that are in the inode are only dirty: writeback decides whether they
// still fit, and whoever makes them outgrow the inode promises the block first.
Result<void> store_ordered(Inode& inode, LockedFolio& folio, const Span& span, bool may_use_reserve) {
    {
        MutexLock guard(inode.map_lock);
        const bool stays_inline = inode.is_inline() && !inode.extent_status().has_pending();
        if (!stays_inline) TRY(inode.delalloc().reserve(LogicalBlock(span.first), span.count, may_use_reserve));
        update_mtime_ctime(inode);
    }
    inode.pages().mark_dirty(folio, span.mask);
    return {};
}

// The blocks are named and in the transaction before the map may store; the commit takes the right away again.
Result<void> store_journaled(Inode& inode, LockedFolio& folio, const Span& span, bool may_use_reserve, Handle& handle) {
    unsigned credits = 0;
    {
        MutexLock guard(inode.map_lock);
        credits = inode.extent_mapper().credits();
    }
    const auto blocks = static_cast<unsigned>(span.count);
    handle = TRY(inode.fs().journal.start(credits * blocks + blocks + 4));
    {
        MutexLock guard(inode.map_lock);
        TRY(inode.extent_mapper().allocate_for_journaled_data(handle, LogicalBlock(span.first), span.count,
                                                              may_use_reserve));
        update_mtime_ctime(inode);
        TRY(inode.store(handle));
    }
    return journal_folio_blocks(handle, inode, folio, span.mask);
}

bool in_inode(Inode& inode) {
    MutexLock guard(inode.map_lock);
    return inode.is_inline() && !inode.extent_status().has_pending();
}

// Shows a locked folio as far as its pages are in the file.
Result<void> show(Inode& inode, LockedFolio& folio, const FaultInstall& install, bool writable) {
    const std::uint64_t fs = inode.pages().folio_size(), start = folio->index * fs;
    const std::uint64_t end = std::min(start + fs, round_up(inode.size_hint(), page_size));
    if (start >= end) return {};
    folio->mapped = true;
    return install(start, end - start, writable);
}

Result<void> serve_store(Inode& inode, std::uint64_t index, const Fault& fault, const FaultInstall& install) {
    FileCache& pages = inode.pages();
    TRY(may_be_stored_to(inode));
    LockedFolio folio = TRY(pages.lock_for_change(index, true));
    const std::uint64_t window = TRY(fill_with_readahead(inode, folio));
    // The file grows only with this folio locked, when it ends in it; it shrinks only with Invalidate exclusive.
    const std::uint64_t size = inode.size_hint();
    if (fault.offset >= size) return fail(EFAULT, "inode {}: offset {} is past the end", inode.number(), fault.offset);
    const Span span = span_of(pages, index, size);
    Handle handle;
    if (inode.journals_data() && !in_inode(inode))
        TRY(store_journaled(inode, folio, span, fault.may_use_reserve, handle));
    else TRY(store_ordered(inode, folio, span, fault.may_use_reserve));
    inode.readahead.record_read(index, index + 1, window);
    return show(inode, folio, install, true);
}

Result<void> serve_load(Inode& inode, std::uint64_t index, const FaultInstall& install) {
    FileCache& pages = inode.pages();
    std::uint64_t window = 0;
    {
        LockedFolio folio = TRY(pages.lock(index, true));
        window = TRY(fill_with_readahead(inode, folio));
        TRY(show(inode, folio, install, false));
    }
    std::uint64_t next = index + 1;
    for (; next < index + pages_around; ++next) {
        LockedFolio folio = pages.try_lock(next);
        if (!folio || !folio_is_full(folio)) break;
        TRY(show(inode, folio, install, false));
    }
    // The next fault of who goes on comes behind what it sees now.
    inode.readahead.record_read(index, next, window);
    return {};
}

}  // namespace

Result<void> handle_fault(const Fault& fault, const FaultInstall& install) {
    Inode& inode = *fault.inode;
    FileCache& pages = inode.pages();
    // A store adds to what is dirty as a write does, and pays for it as one: what the device does not take may fill the
    // cache no further.
    if (fault.is_write) {
        const Result<void> room = balance_dirty(inode);
        if (!room && pages.cache().dirty_bytes() > pages.cache().dirty_limit()) return fail(room.error());
    }
    if (pages.cache().needs_reclaim()) pages.cache().reclaim();
    if (!UEXT4_SEAM(fault_needs_no_retry) && fault.is_write && in_inode(inode))
        return fallocate_file(inode, FALLOC_FL_KEEP_SIZE, 0, 1, fault.may_use_reserve, nullptr);
    ReadLock guard(pages.invalidate);
    if (!UEXT4_SEAM(fault_only_reserves) && fault.is_write && in_inode(inode))
        TRY(fallocate_file(inode, FALLOC_FL_KEEP_SIZE, 0, 1, fault.may_use_reserve, nullptr));
    const std::uint64_t size = inode.size_hint();
    if (fault.offset >= round_up(size, page_size))
        return fail(EFAULT, "inode {}: offset {} is past the end of {} bytes", inode.number(), fault.offset, size);
    const std::uint64_t index = fault.offset / pages.folio_size();
    if (fault.is_write) return serve_store(inode, index, fault, install);
    return serve_load(inode, index, install);
}

Result<void> run_with_file_stores_stopped(Inode& inode, const std::function<Result<void>()>& change) {
    WriteLock invalidate(inode.pages().invalidate);
    // Also where errors=remount-ro has ended changes: what was written before that is written still.
    if (!inode.fs().options.read_only && !inode.fs().journal.is_aborted()) {
        TRY(write_back(inode));
        // Folios that a transaction owns are its own until it has copied them.
        if (inode.journals_data()) TRY(inode.fs().journal.commit_all());
    }
    MutexLock flush(inode.flush_lock);
    // What was written before an abort is nowhere else, and stays.
    if (inode.fs().journal.is_aborted() && inode.pages().next_dirty_or_writeback(0))
        return fail(EROFS, "inode {}: the file has contents that cannot be written any more", inode.number());
    inode.pages().remove(0, ~std::uint64_t{0});
    return change();
}

Result<void> write_protect_file(Inode& inode) {
    if (!inode.pages().client_maps()) return {};
    // Stores that are being served are over; writeback and the commit take away what earlier ones were given.
    WriteLock invalidate(inode.pages().invalidate);
    TRY(write_back(inode));
    if (inode.journals_data()) TRY(inode.fs().journal.commit_all());
    return {};
}

void write_protect_mapped_pages(Inode& inode) {
    FileCache& pages = inode.pages();
    WriteLock invalidate(pages.invalidate);
    // Not all of the map at once: the kernel makes page tables for it.
    for (auto index = pages.next_cached(0); index; index = pages.next_cached(*index + 1)) {
        Result<LockedFolio> folio = pages.lock(*index, false);
        if (folio && *folio) pages.write_protect(*folio);
    }
}

void free_space_for(Inode& inode) {
    // Errors are noted with the file; whether there is room now shows when the store is tried again.
    (void)write_back(inode);
    (void)inode.fs().journal.commit_all();
}

}  // namespace uext4
