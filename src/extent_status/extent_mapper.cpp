#include "extent_status/extent_mapper.h"

namespace uext4 {

// Sets the run's bits and extents in one handle. The inline area gives way to block 0.
Result<void> ExtentMapper::map_blocks(Handle& handle, std::uint64_t first, PendingRun& run, bool unwritten) {
    if (tree_.owner().is_inline() && first != 0)
        return fail(EIO, "inode {}: block {} would be named before block 0 of inline data", tree_.owner().number(),
                    first);
    std::uint64_t counted = 0;
    if (run.allocation && *run.allocation) {
        counted = run.allocation->count();
        TRY(tree_.fs().allocator.mark_used(handle, *run.allocation));
    }
    tree_.clear_cached_extent();
    const auto name = [&]() -> Result<void> {
        if (tree_.owner().is_inline()) {
            TRY(tree_.owner().get_write_access(
                handle));  // the contents leave the inode only where nothing fails afterwards
            TRY(tree_.owner().clear_inline(handle));
        }
        DelallocReservation* paid = delalloc_.tree_reservation();
        return tree_.map().insert(handle, MappedRun{LogicalBlock(first), run.count, run.block, unwritten}, paid,
                                  counted);
    };
    Result<void> named = name();
    if (!named && counted) {
        const BlockNr start = run.block - (tree_.ratio() > 1 ? first % tree_.ratio() : 0);
        // Whoever tries again names the same blocks, which have the data.
        Result<Allocation> again = tree_.fs().allocator.unmark_used(handle, start, counted);
        if (again) *run.allocation = std::move(*again);
        else run.allocation.reset();
    }
    return named;
}

Result<LogicalBlock> ExtentMapper::map_allocated(Handle& handle, LogicalBlock first, std::uint64_t count) {
    const std::uint64_t end = first.value + count;
    tree_.split_at(end);
    auto it = tree_.split_at(first.value);
    while (it != tree_.end() && it->first < end) {
        if (it->second.state != BlockState::allocated) {
            ++it;
            continue;
        }
        if (!handle.extend(credits())) return LogicalBlock(it->first);
        TRY(map_blocks(handle, it->first, it->second, false));
        it = tree_.erase_run(it);
        tree_.note_change();
    }
    delalloc_.trim();
    return LogicalBlock(end);
}

Result<LogicalBlock> ExtentMapper::map_holes(Handle& handle, LogicalBlock first, LogicalBlock end, bool unwritten,
                                             bool privileged, std::vector<BlockRange>& named) {
    std::uint64_t at = first.value;
    while (at < end.value) {
        auto it = tree_.split_at(at);
        const bool here = it != tree_.end() && it->first == at;
        if (here && it->second.state != BlockState::delayed) {
            at += it->second.count;
            continue;
        }
        std::uint64_t n = end.value - at;
        if (here) {
            n = std::min(n, it->second.count);
        } else {
            if (it != tree_.end()) n = std::min(n, it->first - at);
            const MappedRun run = TRY(tree_.lookup_on_disk(LogicalBlock(at), n));
            n = run.count;
            if (!run.hole()) {
                at += n;
                continue;
            }
        }
        if (!handle.extend(credits())) return LogicalBlock(at);
        PendingRun run;
        DelallocReservation* const paid = here ? delalloc_.data_reservation() : nullptr;
        const AllocatedRun granted =
            TRY(delalloc_.allocate_run(LogicalBlock(at), n, paid, privileged || here, run, {},
                                       here ? ClusterPolicy::one_by_one : ClusterPolicy::together));
        if (here) {
            tree_.split_at(at + granted.count);
            tree_.erase_run(tree_.run_at_or_after(at));
        }
        if (Result<void> done = map_blocks(handle, at, run, unwritten); !done) {
            run.allocation.reset();
            if (here) TRY(delalloc_.restore({at, granted.count}));
            return fail(done.error());
        }
        named.push_back({at, granted.count});
        at += granted.count;
        tree_.note_change();
    }
    delalloc_.trim();
    return end;
}

Result<LogicalBlock> ExtentMapper::allocate_unwritten(Handle& handle, LogicalBlock first, std::uint64_t count,
                                                      bool privileged) {
    std::vector<BlockRange> named;
    return map_holes(handle, first, LogicalBlock(first.value + count), true, privileged, named);
}

unsigned ExtentMapper::credits() {
    return tree_.map().credits() + Allocator::mark_used_credits() + ExtentStatusOwner::store_credits() + 1;
}

}  // namespace uext4
