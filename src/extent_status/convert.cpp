// Fallocate's unwritten blocks once they have been written: what follows in memory, then on disk.
#include "extent_status/extent_mapper.h"

#include <algorithm>

namespace uext4 {

Result<LogicalBlock> ExtentMapper::convert_unwritten(Handle& handle, LogicalBlock first, std::uint64_t count,
                                                     LogicalBlock reach) {
    const std::uint64_t end = first.value + count;
    tree_.split_at(end);
    auto it = tree_.split_at(first.value);
    while (it != tree_.end() && it->first < end) {
        if (it->second.state != BlockState::converting) {
            ++it;
            continue;
        }
        if (!handle.extend(credits())) return LogicalBlock(it->first);
        tree_.clear_cached_extent();
        const LogicalBlock start(it->first);
        const std::uint64_t n = it->second.count;
        Result<void> done = tree_.map().set_unwritten(handle, start, n, false, nullptr);
        if (!done && done.error().code == ENOSPC) {
            const Result<bool> whole = convert_whole_extents(handle, start.value, start.value + n, reach.value);
            if (whole && !*whole) return start;
            done = whole ? Result<void>() : fail(whole.error());
        }
        TRY(done);
        it = tree_.erase_run(tree_.run_at_or_after(start.value));
        tree_.note_change();
    }
    return LogicalBlock(end);
}

// There is no block for a tree that a split makes larger. Whole extents take none: what was not written in them gets
// zeros on the device, and what is still to be converted there up to `reach` goes along. Nobody else writes to
// unwritten blocks meanwhile: that is done with flush_lock held. As no written block may lie behind the size on disk,
// an extent that does stays unwritten behind what was written; where even that takes a block, it is cut off there. What
// is cut off belongs to nobody's data, and is free space like any other. False: the handle has no room; what is done
// stays.
Result<bool> ExtentMapper::convert_whole_extents(Handle& handle, std::uint64_t first, std::uint64_t end,
                                                 std::uint64_t reach) {
    const std::uint64_t bs = tree_.fs().block_size();
    for (std::uint64_t at = first; at < end;) {
        MappedRun whole = TRY(tree_.map().find_extent(LogicalBlock(at)));
        const std::uint64_t behind = whole.logical.value + whole.count;
        at = std::min(end, behind);
        if (!whole.unwritten) continue;
        const std::uint64_t in_file = std::max(at, divide_up(tree_.owner().disk_size(), bs));
        const std::uint64_t keep =
            std::min(behind, std::max(in_file, tree_.end_of_converting(whole.logical.value, reach)));
        whole.count = keep - whole.logical.value;
        if (!handle.extend(credits())) return false;
        TRY(zero_unwritten(handle, whole));
        Result<void> done = tree_.map().set_unwritten(handle, whole.logical, whole.count, false, nullptr);
        if (!done && done.error().code == ENOSPC && keep < behind && divide_up(tree_.owner().size(), bs) <= keep &&
            tree_.end_of_converting(keep, behind) == keep) {
            if (TRY(unmap_on_disk(handle, LogicalBlock(keep), LogicalBlock(behind))).value > keep) return false;
            if (!handle.extend(credits())) return false;
            done = tree_.map().set_unwritten(handle, whole.logical, whole.count, false, nullptr);
        }
        TRY(done);
    }
    return true;
}

Result<void> ExtentMapper::zero_unwritten(Handle& handle, const MappedRun& extent) {
    constexpr std::uint64_t most_bytes = 1u << 20;
    const std::uint64_t bs = tree_.fs().block_size(), end = extent.logical.value + extent.count;
    const std::vector<std::byte> zeros(std::min(most_bytes, extent.count * bs));
    for (std::uint64_t at = extent.logical.value; at < end;) {
        auto it = tree_.run_at_or_after(at);
        if (it != tree_.end() && it->first <= at) {  // written, or is this moment
            at = it->first + it->second.count;
            continue;
        }
        const std::uint64_t limit = it == tree_.end() ? end : std::min(end, it->first);
        const std::uint64_t n = std::min<std::uint64_t>(limit - at, zeros.size() / bs);
        const BlockNr block = extent.physical + (at - extent.logical.value);
        // An image that was left without a name counts as freed from here on.
        TRY(tree_.fs().logged_data_blocks.revoke(handle, block, n));
        if (tree_.fs().journal.has_uncommitted_frees(block, n))
            return fail(ENOSPC, "inode {}: block {} was freed by a transaction that is not durable yet",
                        tree_.owner().number(), block);
        TRY(tree_.fs().device.write(block.value * bs, ConstBytes(zeros).first(n * bs)));
        at += n;
    }
    return {};
}

Result<LogicalBlock> ExtentMapper::map_range(Handle& handle, LogicalBlock first, std::uint64_t count,
                                             LogicalBlock reach) {
    const std::uint64_t bs = tree_.fs().block_size();
    LogicalBlock at = first;
    const LogicalBlock end(first.value + count);
    tree_.mark_converting(first, count);
    while (at < end) {
        const Mapping m = TRY(tree_.lookup(at.value * bs, (end.value - at.value) * bs));
        const std::uint64_t n = m.end() / bs - at.value;
        LogicalBlock reached(at.value + n);
        if (m.state == BlockState::allocated) {
            reached = TRY(map_allocated(handle, at, n));
        } else if (m.state == BlockState::converting) {
            reached = TRY(convert_unwritten(handle, at, n, reach));
        }
        if (reached.value < at.value + n) return reached;
        at = reached;
    }
    return end;
}

}  // namespace uext4
