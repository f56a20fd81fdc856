// Fallocate's unwritten blocks once they have been written: what follows in memory, then on disk.
#include "inode/inode.h"
#include "inode/places.h"

#include <algorithm>

namespace uext4 {

void Places::mark_written(LogicalBlock first, std::uint64_t count) {
    std::uint64_t at = first.value;
    const std::uint64_t end = at + count;
    while (at < end) {
        auto it = run_at_or_after(at);
        if (it != pending_.end() && it->first <= at) {
            at = it->first + it->second.count;
            continue;
        }
        const std::uint64_t limit = it != pending_.end() ? std::min(end, it->first) : end;
        const Result<MappedRun> run = on_disk(LogicalBlock(at), limit - at);
        if (!run) return;
        if (!run->hole() && run->unwritten) add_run(at, Pending{run->count, Place::written, run->physical, nullptr});
        at += run->count;
    }
    ++cookie_;
}

Result<LogicalBlock> Places::convert(Handle& handle, LogicalBlock first, std::uint64_t count) {
    const std::uint64_t end = first.value + count;
    split_at(end);
    auto it = split_at(first.value);
    while (it != pending_.end() && it->first < end) {
        if (it->second.place != Place::written) {
            ++it;
            continue;
        }
        if (!handle.extend(credits())) return LogicalBlock(it->first);
        disk_run_.reset();
        Result<void> done =
            inode_.map().set_unwritten(handle, LogicalBlock(it->first), it->second.count, false, nullptr);
        if (!done && done.error().code == ENOSPC)
            done = convert_whole_extents(handle, it->first, it->first + it->second.count);
        TRY(done);
        it = erase_run(it);
        ++cookie_;
    }
    return LogicalBlock(end);
}

// There is no block for a tree that a split makes larger. Whole extents take none: what was not written in them gets
// zeros on the device. Only within the size on disk, as no written block may lie behind it; and nobody else writes to
// unwritten blocks meanwhile: that is done with flush_lock held.
Result<void> Places::convert_whole_extents(Handle& handle, std::uint64_t first, std::uint64_t end) {
    const std::uint64_t bs = inode_.fs().block_size();
    for (std::uint64_t at = first; at < end;) {
        const MappedRun whole = TRY(inode_.map().extent_at(LogicalBlock(at)));
        at = whole.logical.value + whole.count;
        if (!whole.unwritten) continue;
        if (at > divide_up(inode_.disk_size(), bs))
            return fail(ENOSPC, "inode {}: no space to split the extent at block {}", inode_.number(), whole.logical);
        TRY(zero_unwritten(whole));
        TRY(inode_.map().set_unwritten(handle, whole.logical, whole.count, false, nullptr));
    }
    return {};
}

Result<void> Places::zero_unwritten(const MappedRun& extent) {
    constexpr std::uint64_t most_bytes = 1u << 20;
    const std::uint64_t bs = inode_.fs().block_size(), end = extent.logical.value + extent.count;
    const std::vector<std::byte> zeros(std::min(most_bytes, extent.count * bs));
    for (std::uint64_t at = extent.logical.value; at < end;) {
        auto it = run_at_or_after(at);
        if (it != pending_.end() && it->first <= at) {  // written, or is this moment
            at = it->first + it->second.count;
            continue;
        }
        const std::uint64_t limit = it == pending_.end() ? end : std::min(end, it->first);
        const std::uint64_t n = std::min<std::uint64_t>(limit - at, zeros.size() / bs);
        const BlockNr block = extent.physical + (at - extent.logical.value);
        TRY(inode_.fs().device.write(block.value * bs, ConstBytes(zeros).first(n * bs)));
        at += n;
    }
    return {};
}

Result<std::vector<MappedRun>> Places::unwritten_runs(LogicalBlock first, std::uint64_t count) {
    const std::uint64_t end = first.value + count;
    std::vector<MappedRun> unwritten;
    for (std::uint64_t at = first.value; at < end;) {
        const MappedRun run = TRY(on_disk(LogicalBlock(at), end - at));
        if (!run.hole() && run.unwritten) unwritten.push_back(run);
        at += run.count;
    }
    return unwritten;
}

// For contents that go to the log with this handle: holes are promised and blocks that fallocate made become written,
// all of them or none.
Result<void> Places::prepare_contents(Handle& handle, LogicalBlock first, std::uint64_t count, bool privileged) {
    const std::vector<MappedRun> unwritten = TRY(unwritten_runs(first, count));
    const std::uint64_t blocks = BlockMap::tree_blocks_for(unwritten.size(), inode_.fs().block_size(), true);
    Result<Claim> paid = inode_.fs().allocator.claim(blocks, privileged);
    if (!paid && paid.error().code != ENOSPC) return fail(paid.error());
    TRY(reserve(first, count, privileged));
    if (!paid) {
        // What is zeroed more than needed does no harm if the rest fails.
        for (const MappedRun& run : unwritten) {
            TRY(convert_whole_extents(handle, run.logical.value, run.logical.value + run.count));
            changed();
        }
        return {};
    }
    Claim tree = std::move(*paid);
    for (const MappedRun& run : unwritten) {
        TRY(inode_.map().set_unwritten(handle, run.logical, run.count, false, &tree));
        changed();
    }
    return {};
}

Result<LogicalBlock> Places::name(Handle& handle, LogicalBlock first, std::uint64_t count) {
    const std::uint64_t bs = inode_.fs().block_size();
    LogicalBlock at = first;
    const LogicalBlock end(first.value + count);
    while (at < end) {
        const Mapping m = TRY(lookup(at.value * bs, (end.value - at.value) * bs));
        const std::uint64_t n = m.end() / bs - at.value;
        LogicalBlock reached(at.value + n);
        if (m.place == Place::granted) {
            reached = TRY(publish(handle, at, n));
        } else if (m.place == Place::unwritten || m.place == Place::written) {
            mark_written(at, n);
            reached = TRY(convert(handle, at, n));
        }
        if (reached.value < at.value + n) return reached;
        at = reached;
    }
    return end;
}

}  // namespace uext4
