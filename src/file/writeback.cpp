// Writeback of files: passes, and the size that stands on disk.
#include "base/seam.h"
#include "file/file_io.h"
#include "file/writeback_pass.h"
#include "inode/inline_data.h"
#include "inode/inode_table.h"
#include "sync/atomic_point.h"

#include <algorithm>

namespace uext4 {

std::uint64_t stable_size(Inode& inode, WritebackData in_flight, std::uint64_t swept) {
    const std::uint64_t bs = inode.fs().block_size(), fs = inode.pages().folio_size();
    const std::uint64_t on_disk = inode.disk_size(), size = inode.size();
    std::uint64_t bound = size;
    const std::uint64_t from = std::max(on_disk, swept);
    if (size > from) {
        if (auto pending = inode.extent_status().first_pending(LogicalBlock(from / bs)))
            bound = std::min(bound, pending->value * bs);
        const auto waiting = in_flight == WritebackData::complete ? inode.pages().next_dirty(from / fs)
                                                                  : inode.pages().next_dirty_or_writeback(from / fs);
        if (waiting) bound = std::min(bound, *waiting * fs);
        bound = std::max(bound, from);
    }
    // While the contents are in the inode, the size is what is stored there.
    return bound;
}

Result<void> store_stable_size(Handle& handle, Inode& inode, std::uint64_t swept) {
    if (!inode.is_inline() || inode.extent_status().has_pending()) {
        inode.set_disk_size(stable_size(inode, WritebackData::missing, swept));
        return inode.store(handle);
    }
    // The stored value has the size that the inode says.
    std::vector<std::byte> contents = TRY(read_inline_data(inode));
    inode.set_disk_size(stable_size(inode, WritebackData::missing, swept));
    contents.resize(inode.disk_size());
    return write_inline_data(handle, inode, contents);
}

namespace {

// A file that grew while its last folio was on its way got its size on disk held back: nothing before `swept` holds it
// now. Nor does what a truncate took before it was written: where that ends in the hole before it, no pass names
// anything. One that is being deleted has lost what the size speaks of already. flush_lock held.
Result<void> settle_size(Inode& inode, std::uint64_t swept) {
    auto settled = [&] {
        const bool going = inode.deleted.load() || (inode.links() == 0 && !inode.is_tmpfile.load());
        return going || stable_size(inode, WritebackData::missing, swept) == inode.disk_size();
    };
    BufferRef table;  // held: what cannot be stored is met before
    {
        MutexLock guard(inode.map_lock);
        if (settled()) return {};
        table = TRY(inode.read_inode_table_block());
    }
    Handle handle = TRY(inode.fs().journal.start(Inode::store_credits()));
    MutexLock guard(inode.map_lock);
    return settled() ? Result<void>() : store_stable_size(handle, inode, swept);
}

// Nothing of the file waits, is on its way, or was held back.
bool all_written(Inode& inode) {
    const std::uint64_t size = inode.size_hint();
    if (UEXT4_SEAM(syncs_await_others) ? inode.pages().next_dirty_or_writeback(0) : inode.pages().next_dirty(0))
        return false;
    MutexLock guard(inode.map_lock);
    return inode.disk_size() >= std::min(size, inode.size());
}

// One pass, and another for what it has left, or where inline contents left the inode. flush_lock held.
Result<void> pass_over(Inode& inode, std::uint64_t first, std::uint64_t end) {
    for (auto sweep = WritebackPass::Sweep::first;;) {
        WritebackPass pass(inode, first, end, sweep);
        Result<bool> more = true;
        while (more && *more) more = pass.write_batch();
        if (pass.has_deferred()) {
            // What has failed is dirty, and met again.
            TRY(pass.wait_for_deferred());
            sweep = WritebackPass::Sweep::last;
            continue;
        }
        if (!more) return fail(more.error());
        if (pass.space_error()) return fail(*pass.space_error());
        if (!pass.converted_inline()) return settle_size(inode, pass.scanned_bytes());
    }
}

}  // namespace

Result<void> write_back(Inode& inode, std::uint64_t first, std::uint64_t end) {
    // What another pass has on its way is not there yet: flush_lock waits for it.
    const std::uint64_t fs = inode.pages().folio_size();
    if (!UEXT4_SEAM(commit_protects_by_itself)) {
        for (auto index = inode.pages().next_cached(0); index; index = inode.pages().next_cached(*index + 1)) {
            LockedFolio folio = TRY(inode.pages().lock(*index, false));
            if (folio) inode.pages().write_protect(folio);
        }
    }
    if (all_written(inode)) return {};
    MutexLock guard(inode.flush_lock);
    bool whole = false;
    {
        MutexLock map(inode.map_lock);
        whole = inode.is_inline();  // block 0 is named before any other
        // The size on disk stays below what is not there yet, and blocks are not named past it: what lies between goes
        // along.
        if (end > inode.disk_size()) first = std::min(first, inode.disk_size());
    }
    const std::uint64_t last = end == ~std::uint64_t{0} || whole ? ~std::uint64_t{0} : divide_up(end, fs);
    Result<void> written = pass_over(inode, whole ? 0 : first / fs, last);
    // What others have freed may be had once it is durable.
    const auto has_more_later = [&] {
        return inode.fs().allocator.has_pending_free() || inode.fs().journal.has_uncommitted_frees();
    };
    if (!written && written.error().code == ENOSPC && has_more_later() && inode.fs().journal.commit_all())
        written = pass_over(inode, whole ? 0 : first / fs, last);
    inode.last_writeback_failed.store(!written);
    if (written && first == 0 && end == ~std::uint64_t{0}) inode.has_unreserved_data.store(false);
    if (written) return {};
    // What has no space is still dirty, and its own sync tells as long as that is so.
    if (written.error().code == ENOSPC) return fail(ENOSPC, "inode {}: {}", inode.number(), written.error().what);
    inode.writeback_error.store(written.error().code);
    atomic_point("Inode::writeback_errors", &inode.writeback_errors);
    inode.writeback_errors.fetch_add(1);
    return fail(written.error().code, "inode {}: {}", inode.number(), written.error().what);
}

Result<void> balance_dirty(Inode& inode) {
    constexpr int most_files = 64;
    PageCache& cache = inode.pages().cache();
    if (cache.dirty_bytes() > cache.background_limit()) cache.wake_flusher();
    if (cache.dirty_bytes() <= cache.dirty_limit()) return {};
    TRY(write_back(inode));
    for (int n = 0; n < most_files && cache.dirty_bytes() > cache.dirty_limit(); ++n) {
        const std::optional<std::uint64_t> number = cache.next_dirty_file();
        if (!number) return {};
        const InodeRef other = inode.table().find(InodeNr(*number));
        // What the device does not take is tried again in its time, and by who asks for it.
        if (other && !other->last_writeback_failed.load()) (void)write_back(*other);
    }
    return {};
}

}  // namespace uext4
