#include "extent_status/extent_status_tree.h"

#include <algorithm>
#include <utility>

namespace uext4 {

namespace {
// How far ahead one look into the tree goes: long enough that a streaming reader asks the tree rarely.
constexpr std::uint64_t lookup_window = 1u << 20;
}  // namespace

ExtentStatusTree::ExtentStatusTree(FsContext& fs, BlockMap& map, ExtentStatusOwner& owner)
    : fs_(fs), map_(map), owner_(owner) {}
ExtentStatusTree::~ExtentStatusTree() = default;

std::uint64_t ExtentStatusTree::ratio() const { return fs_.geometry.cluster_ratio; }

ExtentStatusTree::Runs::iterator ExtentStatusTree::run_at_or_after(std::uint64_t block) {
    auto it = runs_.upper_bound(block);
    if (it != runs_.begin()) {
        auto before = std::prev(it);
        if (before->first + before->second.count > block) return before;
    }
    return it;
}

ExtentStatusTree::Runs::iterator ExtentStatusTree::split_at(std::uint64_t block) {
    auto it = run_at_or_after(block);
    if (it == runs_.end() || it->first >= block) return it;
    PendingRun& left = it->second;
    const std::uint64_t keep = block - it->first;
    PendingRun right = left;
    right.count = left.count - keep;
    if (right.block) right.block += keep;
    if (left.allocation && ratio() == 1) {
        auto front = std::make_shared<Allocation>(left.allocation->split_front(keep));
        right.allocation = left.allocation;
        left.allocation = std::move(front);
    }
    left.count = keep;
    if (left.state != BlockState::converting) ++unmapped_runs_;
    return runs_.emplace(block, std::move(right)).first;
}

ExtentStatusTree::Runs::iterator ExtentStatusTree::add_run(std::uint64_t first, PendingRun run) {
    if (run.state != BlockState::converting) {
        ++unmapped_runs_;
        unmapped_blocks_ += run.count;
    }
    return runs_.emplace(first, std::move(run)).first;
}

ExtentStatusTree::Runs::iterator ExtentStatusTree::erase_run(Runs::iterator it) {
    if (it->second.state != BlockState::converting) {
        --unmapped_runs_;
        unmapped_blocks_ -= it->second.count;
    }
    return runs_.erase(it);
}

void ExtentStatusTree::merge_around(std::uint64_t block) {
    auto it = run_at_or_after(block);
    if (it == runs_.end() || it->second.state != BlockState::delayed) return;
    if (it != runs_.begin()) {
        auto before = std::prev(it);
        if (before->second.state == BlockState::delayed && before->first + before->second.count == it->first) {
            before->second.count += it->second.count;
            runs_.erase(it);
            --unmapped_runs_;
            it = before;
        }
    }
    auto after = std::next(it);
    if (after != runs_.end() && after->second.state == BlockState::delayed &&
        it->first + it->second.count == after->first) {
        it->second.count += after->second.count;
        runs_.erase(after);
        --unmapped_runs_;
    }
}

Result<MappedRun> ExtentStatusTree::lookup_on_disk(LogicalBlock from, std::uint64_t max) {
    if (owner_.is_inline()) return MappedRun{from, max, BlockNr(), false};
    if (!cached_extent_ || from < cached_extent_->logical || from >= cached_extent_->logical + cached_extent_->count)
        cached_extent_ = TRY(map_.lookup(from, std::max(max, lookup_window)));
    MappedRun run = *cached_extent_;
    const std::uint64_t skip = from - run.logical;
    run.logical = from;
    run.count = std::min(run.count - skip, max);
    if (!run.hole()) run.physical += skip;
    return run;
}

Result<std::optional<MappedRun>> ExtentStatusTree::next_unpending_extent(std::uint64_t& at, std::uint64_t end) {
    while (at < end) {
        const auto it = run_at_or_after(at);
        if (it == runs_.end() || it->first > at) {
            const std::uint64_t limit = it != runs_.end() ? std::min(end, it->first) : end;
            return TRY(lookup_on_disk(LogicalBlock(at), limit - at));
        }
        at = it->first + it->second.count;
    }
    return std::nullopt;
}

Result<Mapping> ExtentStatusTree::lookup(std::uint64_t offset, std::uint64_t length) {
    const std::uint64_t bs = fs_.block_size();
    const std::uint64_t first = offset / bs;
    const std::uint64_t count = std::max<std::uint64_t>(1, divide_up(offset % bs + length, bs));
    Mapping out;
    out.sequence = sequence_;
    out.offset = first * bs;
    auto it = run_at_or_after(first);
    if (it != runs_.end() && it->first <= first) {
        const std::uint64_t skip = first - it->first;
        out.state = it->second.state;
        out.length = std::min(it->second.count - skip, count) * bs;
        if (it->second.block) out.block = it->second.block + skip;
        if (out.state == BlockState::allocated && first < data_pending_end_.value) {
            out.data_pending = first >= data_pending_.value;
            const std::uint64_t change = out.data_pending ? data_pending_end_.value : data_pending_.value;
            out.length = std::min(out.length, (change - first) * bs);
        }
        return out;
    }
    std::uint64_t limit = count;
    if (it != runs_.end()) limit = std::min(limit, it->first - first);
    if (owner_.is_inline() && first == 0) {
        out.state = BlockState::inline_data;
        out.length = bs;
        return out;
    }
    if (LogicalBlock(first) >= map_.max_block()) {
        out.length = limit * bs;
        return out;
    }
    const MappedRun run = TRY(lookup_on_disk(LogicalBlock(first), limit));
    out.length = run.count * bs;
    out.block = run.physical;
    out.state = run.hole() ? BlockState::hole : run.unwritten ? BlockState::unwritten : BlockState::mapped;
    return out;
}

Result<ExtentStatusTree::ClusterBacking> ExtentStatusTree::find_cluster(std::uint64_t cluster) {
    const std::uint64_t r = ratio(), start = cluster * r;
    ClusterBacking found;
    for (auto it = run_at_or_after(start); it != runs_.end() && it->first < start + r; ++it) {
        if (it->second.state == BlockState::delayed) {
            found.is_reserved = true;
        } else if (it->second.state == BlockState::allocated) {
            const std::uint64_t inside = std::max(it->first, start);
            const BlockNr physical = it->second.block + (inside - it->first);
            found.base = physical - (inside - start);
            found.allocation = it->second.allocation;
            return found;
        }
    }
    for (std::uint64_t at = start; at < start + r;) {
        const MappedRun run = TRY(lookup_on_disk(LogicalBlock(at), start + r - at));
        if (!run.hole()) {
            found.base = run.physical - (at - start);
            return found;
        }
        at += run.count;
    }
    return found;
}

Result<std::uint64_t> ExtentStatusTree::clusters_needed(std::uint64_t first, std::uint64_t count) {
    const std::uint64_t r = ratio();
    if (r == 1) return count;
    std::uint64_t needed = 0;
    for (std::uint64_t cluster = first / r; cluster <= (first + count - 1) / r; ++cluster) {
        const ClusterBacking backing = TRY(find_cluster(cluster));
        if (!backing.base && !backing.is_reserved) ++needed;
    }
    return needed;
}

void ExtentStatusTree::set_data_pending(LogicalBlock first, LogicalBlock end) {
    data_pending_ = first;
    data_pending_end_ = end;
    ++sequence_;
}

void ExtentStatusTree::clear_data_pending(LogicalBlock up_to) {
    if (!data_pending_end_) return;
    data_pending_ = std::max(data_pending_, up_to);
    if (data_pending_ >= data_pending_end_) data_pending_ = data_pending_end_ = LogicalBlock();
    ++sequence_;
}

ExtentStatusTree::DeviceIo::~DeviceIo() {
    for (std::shared_ptr<DeviceIo> after = std::move(next); after && after.use_count() == 1;)
        after = std::move(after->next);
}

std::shared_ptr<const void> ExtentStatusTree::begin_device_io() {
    if (!device_io_) device_io_ = std::make_shared<DeviceIo>();
    return device_io_;
}

void ExtentStatusTree::defer_free(std::shared_ptr<const void> freed) {
    if (!device_io_ || device_io_.use_count() == 1) return;
    device_io_->freed.push_back(std::move(freed));
    auto next = std::make_shared<DeviceIo>();
    device_io_->next = next;
    device_io_ = std::move(next);
}

std::optional<LogicalBlock> ExtentStatusTree::first_pending(LogicalBlock from) const {
    auto it = runs_.upper_bound(from.value);
    if (it != runs_.begin()) {
        auto before = std::prev(it);
        if (before->first + before->second.count > from.value) it = before;
    }
    for (; it != runs_.end(); ++it)
        if (it->second.state != BlockState::converting) return LogicalBlock(std::max(it->first, from.value));
    return std::nullopt;
}

void ExtentStatusTree::mark_converting(LogicalBlock first, std::uint64_t count) {
    std::uint64_t at = first.value;
    const std::uint64_t end = at + count;
    for (;;) {
        const Result<std::optional<MappedRun>> next = next_unpending_extent(at, end);
        if (!next) return;
        const std::optional<MappedRun>& run = *next;
        if (!run) break;
        if (!run->hole() && run->unwritten)
            add_run(at, PendingRun{run->count, BlockState::converting, run->physical, nullptr});
        at += run->count;
    }
    ++sequence_;
}

std::uint64_t ExtentStatusTree::end_of_converting(std::uint64_t from, std::uint64_t to) {
    std::uint64_t found = from;
    for (auto it = run_at_or_after(from); it != runs_.end() && it->first < to; ++it)
        if (it->second.state == BlockState::converting) found = std::min(to, it->first + it->second.count);
    return found;
}

}  // namespace uext4
