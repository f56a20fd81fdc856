// Blocks that get another meaning and may be written to where they lie: what waits for what.
//
// A shift and what empties blocks in their place are not in one transaction (but in data=journal, where contents go
// through the log). So a block that was emptied is, in all that a cut may leave, at the same place in the file; new
// contents may be seen there, like those of any overwrite, but behind an end that a cut may leave. An image of it in
// the log goes home no more (it is forgotten), unless it was on its way already, or a newer one follows it.
#include "file/file_io.h"

namespace uext4 {

namespace {

Tid shifted(Inode& inode) {
    MutexLock guard(inode.map_lock);
    return inode.uncommitted_moves().shift_tid();
}

Tid emptied(Inode& inode, LogicalBlock first, LogicalBlock end) {
    MutexLock guard(inode.map_lock);
    return inode.uncommitted_moves().unmap_tid(first, end);
}

}  // namespace

bool shift_is_durable(Inode& inode) {
    const Tid tid = shifted(inode);
    return !tid || inode.fs().journal.is_durable(tid);
}

Result<void> commit_shift(Inode& inode) {
    const Tid tid = shifted(inode);
    return tid ? inode.fs().journal.commit(tid) : Result<void>();
}

Result<void> commit_unmaps(Inode& inode, LogicalBlock first, LogicalBlock end) {
    const Tid tid = emptied(inode, first, end);
    return tid ? inode.fs().journal.commit(tid) : Result<void>();
}

Result<void> prepare_to_zero(Inode& inode) { return inode.journals_data() ? Result<void>() : commit_shift(inode); }

Result<void> prepare_to_unmap(Inode& inode, LogicalBlock first, LogicalBlock end) {
    if (inode.fs().geometry.cluster_ratio == 1) return {};
    bool any_kept = false;
    {
        MutexLock guard(inode.map_lock);
        any_kept = !inode.is_inline() && !inode.extent_mapper().partial_cluster_blocks(first, end).empty();
    }
    return any_kept ? prepare_to_zero(inode) : Result<void>();
}

Result<void> wait_for_older_images(Inode& inode) {
    Journal& journal = inode.fs().journal;
    if (!inode.fs().logged_data_blocks.has_any()) return {};
    const Tid tid = emptied(inode, LogicalBlock(), LogicalBlock(~std::uint64_t{0}));
    // Or one is forgotten though nothing was emptied, as what was logged got no name.
    const bool any_forgotten = (tid && !journal.is_durable(tid)) || journal.has_uncommitted_frees();
    return any_forgotten ? journal.wait_for_checkpoint_writes() : Result<void>();
}

}  // namespace uext4
