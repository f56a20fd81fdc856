#include "extent_status/extent_status_tree.h"

#include "format/extent.h"

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
    auto it = pending_.upper_bound(block);
    if (it != pending_.begin()) {
        auto before = std::prev(it);
        if (before->first + before->second.count > block) return before;
    }
    return it;
}

// Afterwards a run starts at `block`, or none contains it. Returns the first run at or after it.
ExtentStatusTree::Runs::iterator ExtentStatusTree::split_at(std::uint64_t block) {
    auto it = run_at_or_after(block);
    if (it == pending_.end() || it->first >= block) return it;
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
    return pending_.emplace(block, std::move(right)).first;
}

ExtentStatusTree::Runs::iterator ExtentStatusTree::add_run(std::uint64_t first, PendingRun run) {
    if (run.state != BlockState::converting) {
        ++unmapped_runs_;
        unmapped_blocks_ += run.count;
    }
    return pending_.emplace(first, std::move(run)).first;
}

ExtentStatusTree::Runs::iterator ExtentStatusTree::erase_run(Runs::iterator it) {
    if (it->second.state != BlockState::converting) {
        --unmapped_runs_;
        unmapped_blocks_ -= it->second.count;
    }
    return pending_.erase(it);
}

// Joins neighbouring reserved runs, so that a file written block by block stays one run.
void ExtentStatusTree::merge_around(std::uint64_t block) {
    auto it = run_at_or_after(block);
    if (it == pending_.end() || it->second.state != BlockState::delayed) return;
    if (it != pending_.begin()) {
        auto before = std::prev(it);
        if (before->second.state == BlockState::delayed && before->first + before->second.count == it->first) {
            before->second.count += it->second.count;
            pending_.erase(it);
            --unmapped_runs_;
            it = before;
        }
    }
    auto after = std::next(it);
    if (after != pending_.end() && after->second.state == BlockState::delayed &&
        it->first + it->second.count == after->first) {
        it->second.count += after->second.count;
        pending_.erase(after);
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
        if (it == pending_.end() || it->first > at) {
            const std::uint64_t limit = it != pending_.end() ? std::min(end, it->first) : end;
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
    if (it != pending_.end() && it->first <= first) {
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
    if (it != pending_.end()) limit = std::min(limit, it->first - first);
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
    for (auto it = run_at_or_after(start); it != pending_.end() && it->first < start + r; ++it) {
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

// New clusters that reserving the hole blocks [first, first+count) takes.
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

std::uint64_t ExtentStatusTree::tree_blocks_for(std::uint64_t runs, std::uint64_t blocks) const {
    const bool extents = owner_.uses_extents() || owner_.is_inline();
    if (!extents) runs += blocks / (fs_.block_size() / 4);
    return BlockMap::tree_blocks_for(runs, fs_.block_size(), extents);
}

std::uint64_t ExtentStatusTree::min_free_for_one_block() const { return (1 + tree_blocks_for(1, 1)) * ratio(); }

// The reservation for tree blocks covers mapping every pending run.
Result<void> ExtentStatusTree::reserve_tree_blocks(bool privileged) {
    const std::uint64_t needed = tree_blocks_for(unmapped_runs_, unmapped_blocks_);
    if (needed <= tree_reservation_.clusters()) return {};
    tree_reservation_.merge(TRY(fs_.allocator.reserve(needed - tree_reservation_.clusters(), privileged)));
    return {};
}

void ExtentStatusTree::trim_reservations() {
    if (unmapped_runs_) return;
    data_reservation_.release();
    tree_reservation_.release();
}

Result<void> ExtentStatusTree::reserve_delalloc(LogicalBlock first, std::uint64_t count, bool privileged) {
    TRY(reserve_holes(first, count, privileged));
    return {};
}

// What is newly reserved.
Result<std::vector<ExtentStatusTree::Range>> ExtentStatusTree::reserve_holes(LogicalBlock first, std::uint64_t count,
                                                                             bool privileged) {
    std::vector<Range> made;
    Result<void> result;
    std::uint64_t at = first.value;
    const std::uint64_t end = at + count;
    for (;;) {
        const Result<std::optional<MappedRun>> next = next_unpending_extent(at, end);
        if (!next) {
            result = fail(next.error());
            break;
        }
        const std::optional<MappedRun>& run = *next;
        if (!run) break;
        if (run->hole()) {
            Result<std::uint64_t> clusters = clusters_needed(at, run->count);
            Result<DelallocReservation> claim =
                clusters ? fs_.allocator.reserve(*clusters, privileged) : fail(clusters.error());
            if (!claim) {
                result = fail(claim.error());
                break;
            }
            data_reservation_.merge(std::move(*claim));
            add_run(at, PendingRun{run->count, BlockState::delayed, BlockNr(), nullptr});
            made.push_back({at, run->count});
        }
        at += run->count;
    }
    if (!made.empty()) ++sequence_;
    if (result && !made.empty()) result = reserve_tree_blocks(privileged);
    if (!result) {
        for (const Range& r : made) remove_pending(LogicalBlock(r.first), LogicalBlock(r.end()));
        return fail(result.error());
    }
    for (const Range& r : made) merge_around(r.first);
    return made;
}

// For data that had a promise. Where there is no room for one any more it is dirty without, and asks again when it is
// written back.
Result<void> ExtentStatusTree::restore_delayed(const Range& range) {
    Result<void> promised = reserve_delalloc(LogicalBlock(range.first), range.count, true);
    if (!promised && promised.error().code == ENOSPC) return {};
    return promised;
}

Result<void> ExtentStatusTree::reserve_inline_block(bool privileged, bool beyond_space) {
    auto it = run_at_or_after(0);
    if (it != pending_.end() && it->first == 0) return {};
    const auto may_lack = [beyond_space](const Error& why) { return beyond_space && why.code == ENOSPC; };
    Result<DelallocReservation> claim = fs_.allocator.reserve(1, privileged);
    if (claim) data_reservation_.merge(std::move(*claim));
    else if (!may_lack(claim.error())) return fail(claim.error());
    add_run(0, PendingRun{1, BlockState::delayed, BlockNr(), nullptr});
    ++sequence_;
    if (Result<void> covered = reserve_tree_blocks(privileged); !covered && !may_lack(covered.error())) {
        remove_pending(LogicalBlock(0), LogicalBlock(1));
        return covered;
    }
    merge_around(0);
    return {};
}

Result<BlockNr> ExtentStatusTree::allocation_goal(LogicalBlock logical) {
    const std::uint64_t block = logical.value, bs = fs_.block_size();
    // Just behind a block of the file; 0 where that has no place.
    const auto behind = [&](std::uint64_t one) -> Result<BlockNr> {
        auto it = run_at_or_after(one);
        if (it != pending_.end() && it->first <= one && it->second.block)
            return it->second.block + (one + 1 - it->first);
        const MappedRun run = TRY(lookup_on_disk(LogicalBlock(one), 1));
        return run.hole() ? BlockNr() : run.physical + 1;
    };
    const BlockNr goal = block > 0 ? TRY(behind(block - 1)) : BlockNr();
    if (!goal) return fs_.allocator.goal_for(owner_.number());
    // The block in which the file ends may be kept aside: its place among the others, to which it goes when it is full,
    // stays free.
    if (block > 1 && owner_.size() / bs == block - 1 && owner_.size() % bs != 0)
        if (const BlockNr place = TRY(behind(block - 2)); place && place + 1 != goal) return place + 1;
    return goal;
}

// Chooses blocks for [first, first+count), none of which has one; the run it describes is at most that long.
Result<ExtentStatusTree::AllocatedRun> ExtentStatusTree::allocate_run(LogicalBlock first, std::uint64_t count,
                                                                      DelallocReservation* paid, bool privileged,
                                                                      PendingRun& out,
                                                                      const std::optional<AllocationGoal>& wanted,
                                                                      ClusterPolicy how) {
    const std::uint64_t r = ratio();
    out.state = BlockState::allocated;
    if (r == 1) {
        // A file's first blocks lie beside those of its neighbours; one that grows keeps room to grow in.
        const InodeNr grows = first.value && (!wanted || wanted->is_growing) ? owner_.number() : InodeNr();
        const BlockNr goal = wanted ? wanted->block : TRY(allocation_goal(first));
        auto grant = std::make_shared<Allocation>(TRY(fs_.allocator.allocate(goal, count, paid, privileged, grows)));
        out.count = std::min(count, grant->count());
        out.block = grant->first();
        if (grant->count() > out.count) grant = std::make_shared<Allocation>(grant->split_front(out.count));
        out.allocation = std::move(grant);
        return AllocatedRun{first, out.count, out.block};
    }
    const std::uint64_t cluster = first.value / r, inside = first.value % r;
    ClusterBacking backing = TRY(find_cluster(cluster));
    std::uint64_t room = r;
    if (!backing.base) {
        const BlockNr goal = TRY(allocation_goal(LogicalBlock(cluster * r)));
        // Of several, each whole and a hole: as many as an extent can name.
        if (how == ClusterPolicy::together && inside == 0)
            room = std::max(r, round_down(std::min<std::uint64_t>(count, format::max_unwritten_length), r));
        backing.allocation = std::make_shared<Allocation>(TRY(fs_.allocator.allocate(goal, room, paid, privileged)));
        if (backing.allocation->count() > room) *backing.allocation = backing.allocation->split_front(room);
        room = backing.allocation->count();
        backing.base = backing.allocation->first();
    }
    out.count = std::min(count, room - inside);
    out.block = backing.base + inside;
    out.allocation = std::move(backing.allocation);
    return AllocatedRun{first, out.count, out.block};
}

Result<ExtentStatusTree::AllocatedRun> ExtentStatusTree::allocate(LogicalBlock first, std::uint64_t count,
                                                                  bool privileged,
                                                                  const std::optional<AllocationGoal>& goal) {
    auto it = split_at(first.value);
    if (it == pending_.end() || it->first != first.value || it->second.state != BlockState::delayed)
        return fail(EIO, "inode {}: block {} is not reserved", owner_.number(), first);
    count = std::min(count, it->second.count);
    PendingRun run;
    // With clusters, a block may have been reserved beside mapped ones that are gone since: it has no promise of its
    // own.
    DelallocReservation* paid = data_reservation_.clusters() ? &data_reservation_ : nullptr;
    const AllocatedRun granted =
        TRY(allocate_run(first, count, paid, privileged || !paid, run, goal, ClusterPolicy::one_by_one));
    split_at(first.value + granted.count);
    pending_[first.value] = std::move(run);
    ++sequence_;
    return granted;
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

Result<void> ExtentStatusTree::revert_to_delayed(LogicalBlock first, std::uint64_t count) {
    split_at(first.value + count);
    auto it = split_at(first.value);
    while (it != pending_.end() && it->first < first.value + count) {
        if (it->second.state != BlockState::allocated || !it->second.allocation || !*it->second.allocation) {
            ++it;
            continue;
        }
        const std::uint64_t start = it->first, n = it->second.count;
        const std::uint64_t r = ratio();
        // With clusters, other runs may share the allocation: only a run that is alone in it can move.
        if (r > 1 && it->second.allocation.use_count() > 1) {
            ++it;
            continue;
        }
        const std::shared_ptr<Allocation> grant = it->second.allocation;
        it = erase_run(it);
        fs_.allocator.avoid(std::move(*grant));
        ++sequence_;
        TRY(reserve_delalloc(LogicalBlock(start), n, true));
        it = run_at_or_after(start + n);
    }
    return {};
}

// Sets the run's bits and extents in one handle. The inline area gives way to block 0.
Result<void> ExtentStatusTree::map_blocks(Handle& handle, std::uint64_t first, PendingRun& run, bool unwritten) {
    if (owner_.is_inline() && first != 0)
        return fail(EIO, "inode {}: block {} would be named before block 0 of inline data", owner_.number(), first);
    std::uint64_t counted = 0;
    if (run.allocation && *run.allocation) {
        counted = run.allocation->count();
        TRY(fs_.allocator.mark_used(handle, *run.allocation));
    }
    cached_extent_.reset();
    const auto name = [&]() -> Result<void> {
        if (owner_.is_inline()) {
            TRY(owner_.get_write_access(handle));  // the contents leave the inode only where nothing fails afterwards
            TRY(owner_.clear_inline(handle));
        }
        DelallocReservation* paid = tree_reservation_.clusters() ? &tree_reservation_ : nullptr;
        return map_.insert(handle, MappedRun{LogicalBlock(first), run.count, run.block, unwritten}, paid, counted);
    };
    Result<void> named = name();
    if (!named && counted) {
        const BlockNr start = run.block - (ratio() > 1 ? first % ratio() : 0);
        // Whoever tries again names the same blocks, which have the data.
        Result<Allocation> again = fs_.allocator.unmark_used(handle, start, counted);
        if (again) *run.allocation = std::move(*again);
        else run.allocation.reset();
    }
    return named;
}

Result<LogicalBlock> ExtentStatusTree::map_allocated(Handle& handle, LogicalBlock first, std::uint64_t count) {
    const std::uint64_t end = first.value + count;
    split_at(end);
    auto it = split_at(first.value);
    while (it != pending_.end() && it->first < end) {
        if (it->second.state != BlockState::allocated) {
            ++it;
            continue;
        }
        if (!handle.extend(credits())) return LogicalBlock(it->first);
        TRY(map_blocks(handle, it->first, it->second, false));
        it = erase_run(it);
        ++sequence_;
    }
    trim_reservations();
    return LogicalBlock(end);
}

Result<LogicalBlock> ExtentStatusTree::map_holes(Handle& handle, LogicalBlock first, LogicalBlock end, bool unwritten,
                                                 bool privileged, std::vector<Range>& named) {
    std::uint64_t at = first.value;
    while (at < end.value) {
        auto it = split_at(at);
        const bool here = it != pending_.end() && it->first == at;
        if (here && it->second.state != BlockState::delayed) {
            at += it->second.count;
            continue;
        }
        std::uint64_t n = end.value - at;
        if (here) {
            n = std::min(n, it->second.count);
        } else {
            if (it != pending_.end()) n = std::min(n, it->first - at);
            const MappedRun run = TRY(lookup_on_disk(LogicalBlock(at), n));
            n = run.count;
            if (!run.hole()) {
                at += n;
                continue;
            }
        }
        if (!handle.extend(credits())) return LogicalBlock(at);
        PendingRun run;
        DelallocReservation* const paid = here && data_reservation_.clusters() ? &data_reservation_ : nullptr;
        const AllocatedRun granted = TRY(allocate_run(LogicalBlock(at), n, paid, privileged || here, run, {},
                                                      here ? ClusterPolicy::one_by_one : ClusterPolicy::together));
        if (here) {
            split_at(at + granted.count);
            erase_run(pending_.find(at));
        }
        if (Result<void> done = map_blocks(handle, at, run, unwritten); !done) {
            run.allocation.reset();
            if (here) TRY(restore_delayed({at, granted.count}));
            return fail(done.error());
        }
        named.push_back({at, granted.count});
        at += granted.count;
        ++sequence_;
    }
    trim_reservations();
    return end;
}

Result<LogicalBlock> ExtentStatusTree::allocate_unwritten(Handle& handle, LogicalBlock first, std::uint64_t count,
                                                          bool privileged) {
    std::vector<Range> named;
    return map_holes(handle, first, LogicalBlock(first.value + count), true, privileged, named);
}

std::uint64_t ExtentStatusTree::pending_sectors() const {
    const std::uint64_t sectors = fs_.block_size() / 512;
    if (ratio() == 1) return unmapped_blocks_ * sectors;
    // Of a cluster that is in use nothing more is promised.
    std::uint64_t blocks = data_reservation_.clusters() * ratio();
    const Allocation* last = nullptr;
    for (const auto& [first, pending] : pending_) {
        if (pending.state != BlockState::allocated || !pending.allocation || pending.allocation.get() == last) continue;
        last = pending.allocation.get();
        blocks += last->count();
    }
    return blocks * sectors;
}

std::uint64_t ExtentStatusTree::reserved_blocks() const {
    return unmapped_blocks_ + tree_reservation_.clusters() * ratio();
}

unsigned ExtentStatusTree::credits() {
    return map_.credits() + Allocator::mark_used_credits() + ExtentStatusOwner::store_credits() + 1;
}

std::optional<LogicalBlock> ExtentStatusTree::first_pending(LogicalBlock from) const {
    auto it = pending_.upper_bound(from.value);
    if (it != pending_.begin()) {
        auto before = std::prev(it);
        if (before->first + before->second.count > from.value) it = before;
    }
    for (; it != pending_.end(); ++it)
        if (it->second.state != BlockState::converting) return LogicalBlock(std::max(it->first, from.value));
    return std::nullopt;
}

}  // namespace uext4
