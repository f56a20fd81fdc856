// Blocks for contents that a handle takes to the log (data=journal): all of them or none, whatever fails on the way.
#include "extent_status/extent_mapper.h"

namespace uext4 {

Result<std::vector<MappedRun>> ExtentMapper::unwritten_runs(LogicalBlock first, std::uint64_t count) {
    const std::uint64_t end = first.value + count;
    std::vector<MappedRun> unwritten;
    for (std::uint64_t at = first.value; at < end;) {
        const MappedRun run = TRY(tree_.lookup_on_disk(LogicalBlock(at), end - at));
        if (!run.hole() && run.unwritten) unwritten.push_back(run);
        at += run.count;
    }
    return unwritten;
}

Result<void> ExtentMapper::allocate_for_journaled_data(Handle& handle, LogicalBlock first, std::uint64_t count,
                                                       bool privileged) {
    const LogicalBlock end(first.value + count);
    const std::vector<MappedRun> unwritten = TRY(unwritten_runs(first, count));
    // What can fail for want of room fails before anything is named.
    const std::uint64_t blocks = BlockMap::tree_blocks_for(unwritten.size(), tree_.fs().block_size(), true);
    Result<DelallocReservation> paid = tree_.fs().allocator.reserve(blocks, privileged);
    if (!paid && paid.error().code != ENOSPC) return fail(paid.error());
    UndoRecord done;
    done.reserved = TRY(delalloc_.reserve_holes(first, count, privileged));
    Result<void> result;
    if (Result<LogicalBlock> reached = map_holes(handle, first, end, false, privileged, done.mapped); !reached)
        result = fail(reached.error());
    else if (*reached < end)
        result = fail(ENOSPC, "inode {}: no room in the journal for {} blocks", tree_.owner().number(), count);
    if (result) result = convert_for_contents(handle, unwritten, std::move(paid), done);
    if (result) return {};
    // Where there is no way back either, what is in the transaction must not be committed.
    if (Result<void> back = undo_journaled_data(handle, done); !back) tree_.fs().journal.abort(back.error());
    return result;
}

Result<void> ExtentMapper::convert_for_contents(Handle& handle, const std::vector<MappedRun>& unwritten,
                                                Result<DelallocReservation> paid, UndoRecord& done) {
    for (const MappedRun& run : unwritten) {
        const std::uint64_t last = run.logical.value + run.count;
        if (paid) {
            TRY(tree_.map().set_unwritten(handle, run.logical, run.count, false, &*paid));
            done.converted.push_back({run.logical.value, run.count});
        } else if (!TRY(convert_whole_extents(handle, run.logical.value, last, last))) {
            // What is zeroed more than needed reads as it did.
            return fail(ENOSPC, "inode {}: no room in the journal to cut an extent", tree_.owner().number());
        }
        tree_.invalidate();
    }
    return {};
}

Result<void> ExtentMapper::undo_journaled_data(Handle& handle, const UndoRecord& done) {
    for (const BlockRange& r : done.converted)
        TRY(tree_.map().set_unwritten(handle, LogicalBlock(r.first), r.count, true, nullptr));
    for (const BlockRange& r : done.mapped) {
        const LogicalBlock reached = TRY(unmap_on_disk(handle, LogicalBlock(r.first), LogicalBlock(r.end())));
        if (reached.value > r.first)
            return fail(ENOSPC, "inode {}: no room in the journal to take block {} back", tree_.owner().number(),
                        r.first);
    }
    tree_.invalidate();
    for (const BlockRange& r : done.reserved) delalloc_.release(LogicalBlock(r.first), LogicalBlock(r.end()));
    // What had been promised before is promised again.
    for (const BlockRange& r : done.mapped) {
        std::uint64_t at = r.first;
        for (const BlockRange& fresh : done.reserved) {
            if (fresh.end() <= at || fresh.first >= r.end()) continue;
            if (fresh.first > at) TRY(delalloc_.restore({at, fresh.first - at}));
            at = fresh.end();
        }
        if (at < r.end()) TRY(delalloc_.restore({at, r.end() - at}));
    }
    return {};
}

}  // namespace uext4
