#include "extent_status/delalloc_space.h"

#include "format/extent.h"

#include <algorithm>
#include <utility>

namespace uext4 {

std::uint64_t DelallocSpace::tree_blocks_for(std::uint64_t runs, std::uint64_t blocks) const {
    const bool extents = tree_.owner().uses_extents() || tree_.owner().is_inline();
    if (!extents) runs += blocks / (tree_.fs().block_size() / 4);
    return BlockMap::tree_blocks_for(runs, tree_.fs().block_size(), extents);
}

std::uint64_t DelallocSpace::min_free_for_one_block() const { return (1 + tree_blocks_for(1, 1)) * tree_.ratio(); }

// The reservation for tree blocks covers mapping every pending run.
Result<void> DelallocSpace::reserve_tree_blocks(bool privileged) {
    const std::uint64_t needed = tree_blocks_for(tree_.unmapped_runs(), tree_.unmapped_blocks());
    if (needed <= tree_reservation_.clusters()) return {};
    tree_reservation_.merge(TRY(tree_.fs().allocator.reserve(needed - tree_reservation_.clusters(), privileged)));
    return {};
}

void DelallocSpace::trim() {
    if (tree_.unmapped_runs()) return;
    data_reservation_.release();
    tree_reservation_.release();
}

Result<void> DelallocSpace::reserve(LogicalBlock first, std::uint64_t count, bool privileged) {
    TRY(reserve_holes(first, count, privileged));
    return {};
}

// What is newly reserved.
Result<std::vector<BlockRange>> DelallocSpace::reserve_holes(LogicalBlock first, std::uint64_t count, bool privileged) {
    std::vector<BlockRange> made;
    Result<void> result;
    std::uint64_t at = first.value;
    const std::uint64_t end = at + count;
    for (;;) {
        const Result<std::optional<MappedRun>> next = tree_.next_unpending_extent(at, end);
        if (!next) {
            result = fail(next.error());
            break;
        }
        const std::optional<MappedRun>& run = *next;
        if (!run) break;
        if (run->hole()) {
            Result<std::uint64_t> clusters = tree_.clusters_needed(at, run->count);
            Result<DelallocReservation> claim =
                clusters ? tree_.fs().allocator.reserve(*clusters, privileged) : fail(clusters.error());
            if (!claim) {
                result = fail(claim.error());
                break;
            }
            data_reservation_.merge(std::move(*claim));
            tree_.add_run(at, PendingRun{run->count, BlockState::delayed, BlockNr(), nullptr});
            made.push_back({at, run->count});
        }
        at += run->count;
    }
    if (!made.empty()) tree_.note_change();
    if (result && !made.empty()) result = reserve_tree_blocks(privileged);
    if (!result) {
        for (const BlockRange& r : made) release(LogicalBlock(r.first), LogicalBlock(r.end()));
        return fail(result.error());
    }
    for (const BlockRange& r : made) tree_.merge_around(r.first);
    return made;
}

// For data that had a promise. Where there is no room for one any more it is dirty without, and asks again when it is
// written back.
Result<void> DelallocSpace::restore(const BlockRange& range) {
    Result<void> promised = reserve(LogicalBlock(range.first), range.count, true);
    if (!promised && promised.error().code == ENOSPC) return {};
    return promised;
}

Result<void> DelallocSpace::reserve_inline_block(bool privileged, bool beyond_space) {
    auto it = tree_.run_at_or_after(0);
    if (it != tree_.end() && it->first == 0) return {};
    const auto may_lack = [beyond_space](const Error& why) { return beyond_space && why.code == ENOSPC; };
    Result<DelallocReservation> claim = tree_.fs().allocator.reserve(1, privileged);
    if (claim) data_reservation_.merge(std::move(*claim));
    else if (!may_lack(claim.error())) return fail(claim.error());
    tree_.add_run(0, PendingRun{1, BlockState::delayed, BlockNr(), nullptr});
    tree_.note_change();
    if (Result<void> covered = reserve_tree_blocks(privileged); !covered && !may_lack(covered.error())) {
        release(LogicalBlock(0), LogicalBlock(1));
        return covered;
    }
    tree_.merge_around(0);
    return {};
}

Result<BlockNr> DelallocSpace::allocation_goal(LogicalBlock logical) {
    const std::uint64_t block = logical.value, bs = tree_.fs().block_size();
    // Just behind a block of the file; 0 where that has no place.
    const auto behind = [&](std::uint64_t one) -> Result<BlockNr> {
        auto it = tree_.run_at_or_after(one);
        if (it != tree_.end() && it->first <= one && it->second.block) return it->second.block + (one + 1 - it->first);
        const MappedRun run = TRY(tree_.lookup_on_disk(LogicalBlock(one), 1));
        return run.hole() ? BlockNr() : run.physical + 1;
    };
    const BlockNr goal = block > 0 ? TRY(behind(block - 1)) : BlockNr();
    if (!goal) return tree_.fs().allocator.goal_for(tree_.owner().number());
    // The block in which the file ends may be kept aside: its place among the others, to which it goes when it is full,
    // stays free.
    if (block > 1 && tree_.owner().size() / bs == block - 1 && tree_.owner().size() % bs != 0)
        if (const BlockNr place = TRY(behind(block - 2)); place && place + 1 != goal) return place + 1;
    return goal;
}

// Chooses blocks for [first, first+count), none of which has one; the run it describes is at most that long.
Result<DelallocSpace::AllocatedRun> DelallocSpace::allocate_run(LogicalBlock first, std::uint64_t count,
                                                                DelallocReservation* paid, bool privileged,
                                                                PendingRun& out,
                                                                const std::optional<AllocationGoal>& wanted,
                                                                ClusterPolicy how) {
    const std::uint64_t r = tree_.ratio();
    out.state = BlockState::allocated;
    if (r == 1) {
        // A file's first blocks lie beside those of its neighbours; one that grows keeps room to grow in.
        const InodeNr grows = first.value && (!wanted || wanted->is_growing) ? tree_.owner().number() : InodeNr();
        const BlockNr goal = wanted ? wanted->block : TRY(allocation_goal(first));
        auto grant =
            std::make_shared<Allocation>(TRY(tree_.fs().allocator.allocate(goal, count, paid, privileged, grows)));
        out.count = std::min(count, grant->count());
        out.block = grant->first();
        if (grant->count() > out.count) grant = std::make_shared<Allocation>(grant->split_front(out.count));
        out.allocation = std::move(grant);
        return AllocatedRun{first, out.count, out.block};
    }
    const std::uint64_t cluster = first.value / r, inside = first.value % r;
    ClusterBacking backing = TRY(tree_.find_cluster(cluster));
    std::uint64_t room = r;
    if (!backing.base) {
        const BlockNr goal = TRY(allocation_goal(LogicalBlock(cluster * r)));
        // Of several, each whole and a hole: as many as an extent can name.
        if (how == ClusterPolicy::together && inside == 0)
            room = std::max(r, round_down(std::min<std::uint64_t>(count, format::max_unwritten_length), r));
        backing.allocation =
            std::make_shared<Allocation>(TRY(tree_.fs().allocator.allocate(goal, room, paid, privileged)));
        if (backing.allocation->count() > room) *backing.allocation = backing.allocation->split_front(room);
        room = backing.allocation->count();
        backing.base = backing.allocation->first();
    }
    out.count = std::min(count, room - inside);
    out.block = backing.base + inside;
    out.allocation = std::move(backing.allocation);
    return AllocatedRun{first, out.count, out.block};
}

Result<DelallocSpace::AllocatedRun> DelallocSpace::allocate(LogicalBlock first, std::uint64_t count, bool privileged,
                                                            const std::optional<AllocationGoal>& goal) {
    auto it = tree_.split_at(first.value);
    if (it == tree_.end() || it->first != first.value || it->second.state != BlockState::delayed)
        return fail(EIO, "inode {}: block {} is not reserved", tree_.owner().number(), first);
    count = std::min(count, it->second.count);
    PendingRun run;
    // With clusters, a block may have been reserved beside mapped ones that are gone since: it has no promise of its
    // own.
    DelallocReservation* paid = data_reservation_.clusters() ? &data_reservation_ : nullptr;
    const AllocatedRun granted =
        TRY(allocate_run(first, count, paid, privileged || !paid, run, goal, ClusterPolicy::one_by_one));
    tree_.split_at(first.value + granted.count);
    tree_.replace_run(first.value, std::move(run));
    tree_.note_change();
    return granted;
}

Result<void> DelallocSpace::revert(LogicalBlock first, std::uint64_t count) {
    tree_.split_at(first.value + count);
    auto it = tree_.split_at(first.value);
    while (it != tree_.end() && it->first < first.value + count) {
        if (it->second.state != BlockState::allocated || !it->second.allocation || !*it->second.allocation) {
            ++it;
            continue;
        }
        const std::uint64_t start = it->first, n = it->second.count;
        const std::uint64_t r = tree_.ratio();
        // With clusters, other runs may share the allocation: only a run that is alone in it can move.
        if (r > 1 && it->second.allocation.use_count() > 1) {
            ++it;
            continue;
        }
        const std::shared_ptr<Allocation> grant = it->second.allocation;
        it = tree_.erase_run(it);
        tree_.fs().allocator.avoid(std::move(*grant));
        tree_.note_change();
        TRY(reserve(LogicalBlock(start), n, true));
        it = tree_.run_at_or_after(start + n);
    }
    return {};
}

std::uint64_t DelallocSpace::sectors() const {
    const std::uint64_t sectors = tree_.fs().block_size() / 512;
    if (tree_.ratio() == 1) return tree_.unmapped_blocks() * sectors;
    // Of a cluster that is in use nothing more is promised.
    std::uint64_t blocks = data_reservation_.clusters() * tree_.ratio();
    const Allocation* last = nullptr;
    for (const auto& [first, pending] : tree_.runs()) {
        if (pending.state != BlockState::allocated || !pending.allocation || pending.allocation.get() == last) continue;
        last = pending.allocation.get();
        blocks += last->count();
    }
    return blocks * sectors;
}

std::uint64_t DelallocSpace::reserved_blocks() const {
    return tree_.unmapped_blocks() + tree_reservation_.clusters() * tree_.ratio();
}

void DelallocSpace::release(LogicalBlock first, LogicalBlock end) {
    if (!tree_.has_pending()) return;
    if (end.value != ~std::uint64_t{0}) tree_.split_at(end.value);
    auto it = tree_.split_at(first.value);
    bool any = false;
    while (it != tree_.end() && it->first < end.value) {
        const std::uint64_t start = it->first;
        const PendingRun run = it->second;
        it = tree_.erase_run(it);
        any = true;
        if (run.state != BlockState::delayed) continue;
        // What of the promise is still needed is what the remaining reserved blocks need.
        if (tree_.ratio() == 1) {
            data_reservation_.release_part(run.count);
            continue;
        }
        const Result<std::uint64_t> clusters = tree_.clusters_needed(start, run.count);
        if (clusters) data_reservation_.release_part(std::min(*clusters, data_reservation_.clusters()));
    }
    if (!any) return;
    tree_.note_change();
    trim();
}

}  // namespace uext4
