#include "base/seam.h"
#include "device/flush_order_device.h"
#include "file/file_io.h"
#include "inode/attributes.h"

namespace uext4 {

void update_mtime_ctime(Inode& inode) {
    const format::Timestamp now = current_time(inode.fs());
    inode.set_mtime(now);
    inode.set_ctime(now);
    inode.bump_version();
    inode.note_times_pending();
}

Result<void> store_pending_times(Inode& inode) {
    {
        MutexLock guard(inode.map_lock);
        if (!inode.times_pending() || inode.deleted.load()) return {};
    }
    Handle handle = TRY(inode.fs().journal.start(Inode::store_credits()));
    MutexLock guard(inode.map_lock);
    return inode.store(handle, false);
}

// A device that failed to flush may have dropped any write before that, and a later flush that works would not tell.
// So nothing is acknowledged any more.
static Result<void> flush_device(FsContext& fs) {
    Result<void> flushed = flush_completed_writes(fs.device);
    if (!flushed) fs.journal.abort(flushed.error());
    return flushed;
}

// A size or a mode is in memory alone.
static bool is_unstored(Inode& inode) {
    MutexLock guard(inode.map_lock);
    return inode.has_failed_store();
}

Result<void> write_back_for_sync(Inode& inode) {
    const std::uint64_t before = inode.discard_sequence.load();
    TRY(write_back(inode));
    const bool undisturbed = before % 2 == 0 && inode.discard_sequence.load() == before;
    if (undisturbed || !UEXT4_SEAM(syncs_await_changes)) return {};
    const ReadLock none_takes(inode.pages().invalidate);
    return write_back(inode);
}

Result<void> sync_file(Inode& inode, bool data_only) {
    FsContext& fs = inode.fs();
    // The commit that writeback may have to wait for has the times as well: it is the only one.
    if (!data_only && (!shift_is_durable(inode) || fs.logged_data_blocks.has_any())) TRY(store_pending_times(inode));
    TRY(write_back_for_sync(inode));
    if (!data_only || is_unstored(inode)) TRY(store_pending_times(inode));
    Tid tid = 0;
    {
        MutexLock guard(inode.map_lock);
        tid = data_only ? inode.data_tid() : inode.last_tid();
    }
    // The flush of a commit covers what was written before it. That of a commit that is under way may be over already,
    // and an overwrite in place joins no newer one.
    const bool covered = tid && (UEXT4_SEAM(flushes_are_later) ? fs.journal.is_open(tid) : !fs.journal.is_durable(tid));
    if (tid && !fs.journal.is_durable(tid)) TRY(fs.journal.commit(tid));
    return covered ? Result<void>() : flush_device(fs);
}

}  // namespace uext4
