// Blocks that get another meaning and may be written to where they lie: what waits for what.
//
// A shift and what empties blocks in their place are not in one transaction, nor the latter with blocks that the log
// has an image of. So a block that was emptied is, in all that a cut may leave, at the same place in the file; new
// contents may be seen there, like those of any overwrite, but behind an end that a cut may leave.
#include "file/file_io.h"

#include <algorithm>

namespace uext4 {

namespace {

Tid shifted(Inode& inode) {
    MutexLock guard(inode.map_lock);
    return inode.moved().shifted();
}

}  // namespace

bool shift_is_durable(Inode& inode) {
    const Tid tid = shifted(inode);
    return !tid || inode.fs().journal.durable(tid);
}

Result<void> commit_shift(Inode& inode) {
    const Tid tid = shifted(inode);
    return tid ? inode.fs().journal.commit(tid) : Result<void>();
}

Result<void> commit_emptied(Inode& inode, LogicalBlock first, LogicalBlock end) {
    Tid tid = 0;
    {
        MutexLock guard(inode.map_lock);
        tid = inode.moved().emptied(first, end);
    }
    return tid ? inode.fs().journal.commit(tid) : Result<void>();
}

Result<void> prepare_to_empty(Inode& inode, LogicalBlock first, LogicalBlock end) {
    FsContext& fs = inode.fs();
    if (inode.data_in_journal()) return {};
    TRY(commit_shift(inode));
    if (!fs.logged_blocks.any()) return {};
    Tid newest = 0;
    {
        const std::uint64_t bs = fs.block_size();
        MutexLock guard(inode.map_lock);
        for (RangeIterator range(inode, first.value * bs, end.value * bs); TRY(range.look_held()); range.next())
            if (range.run().has_block())
                newest = std::max(newest, fs.logged_blocks.newest(range.block(), range.length() / bs));
    }
    if (newest == 0) return {};
    TRY(fs.journal.commit(newest));
    return fs.journal.checkpoint(newest);
}

Result<void> prepare_to_cut(Inode& inode, LogicalBlock first, LogicalBlock end) {
    if (inode.fs().geometry.cluster_ratio == 1) return {};
    std::vector<std::pair<LogicalBlock, LogicalBlock>> kept;
    {
        MutexLock guard(inode.map_lock);
        if (!inode.is_inline()) kept = inode.places().kept_within_clusters(first, end);
    }
    for (const auto& [from, to] : kept) TRY(prepare_to_empty(inode, from, to));
    return {};
}

}  // namespace uext4
