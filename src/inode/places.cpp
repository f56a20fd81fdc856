#include "inode/places.h"

#include "format/extent.h"
#include "inode/inline_area.h"
#include "inode/inode.h"

#include <algorithm>
#include <utility>

namespace uext4 {

namespace {
// How far ahead one look into the tree goes: long enough that a streaming reader asks the tree rarely.
constexpr std::uint64_t lookup_window = 1u << 20;
}  // namespace

Places::Places(Inode& inode) : inode_(inode) {}
Places::~Places() = default;

std::uint64_t Places::ratio() const { return inode_.fs().geometry.cluster_ratio; }

Places::Runs::iterator Places::run_at_or_after(std::uint64_t block) {
    auto it = pending_.upper_bound(block);
    if (it != pending_.begin()) {
        auto before = std::prev(it);
        if (before->first + before->second.count > block) return before;
    }
    return it;
}

// Afterwards a run starts at `block`, or none contains it. Returns the first run at or after it.
Places::Runs::iterator Places::split_at(std::uint64_t block) {
    auto it = run_at_or_after(block);
    if (it == pending_.end() || it->first >= block) return it;
    Pending& left = it->second;
    const std::uint64_t keep = block - it->first;
    Pending right = left;
    right.count = left.count - keep;
    if (right.block) right.block += keep;
    if (left.grant && ratio() == 1) {
        auto front = std::make_shared<Grant>(left.grant->split_front(keep));
        right.grant = left.grant;
        left.grant = std::move(front);
    }
    left.count = keep;
    if (left.place != Place::written) ++unnamed_runs_;
    return pending_.emplace(block, std::move(right)).first;
}

Places::Runs::iterator Places::add_run(std::uint64_t first, Pending run) {
    if (run.place != Place::written) {
        ++unnamed_runs_;
        unnamed_blocks_ += run.count;
    }
    return pending_.emplace(first, std::move(run)).first;
}

Places::Runs::iterator Places::erase_run(Runs::iterator it) {
    if (it->second.place != Place::written) {
        --unnamed_runs_;
        unnamed_blocks_ -= it->second.count;
    }
    return pending_.erase(it);
}

// Joins neighbouring reserved runs, so that a file written block by block stays one run.
void Places::merge_around(std::uint64_t block) {
    auto it = run_at_or_after(block);
    if (it == pending_.end() || it->second.place != Place::reserved) return;
    if (it != pending_.begin()) {
        auto before = std::prev(it);
        if (before->second.place == Place::reserved && before->first + before->second.count == it->first) {
            before->second.count += it->second.count;
            pending_.erase(it);
            --unnamed_runs_;
            it = before;
        }
    }
    auto after = std::next(it);
    if (after != pending_.end() && after->second.place == Place::reserved &&
        it->first + it->second.count == after->first) {
        it->second.count += after->second.count;
        pending_.erase(after);
        --unnamed_runs_;
    }
}

Result<MappedRun> Places::on_disk(LogicalBlock from, std::uint64_t max) {
    if (inode_.is_inline()) return MappedRun{from, max, BlockNr(), false};
    if (!disk_run_ || from < disk_run_->logical || from >= disk_run_->logical + disk_run_->count)
        disk_run_ = TRY(inode_.map().lookup(from, std::max(max, lookup_window)));
    MappedRun run = *disk_run_;
    const std::uint64_t skip = from - run.logical;
    run.logical = from;
    run.count = std::min(run.count - skip, max);
    if (!run.hole()) run.physical += skip;
    return run;
}

Result<std::optional<MappedRun>> Places::next_without_run(std::uint64_t& at, std::uint64_t end) {
    while (at < end) {
        const auto it = run_at_or_after(at);
        if (it == pending_.end() || it->first > at) {
            const std::uint64_t limit = it != pending_.end() ? std::min(end, it->first) : end;
            return TRY(on_disk(LogicalBlock(at), limit - at));
        }
        at = it->first + it->second.count;
    }
    return std::nullopt;
}

Result<Mapping> Places::lookup(std::uint64_t offset, std::uint64_t length) {
    const std::uint64_t bs = inode_.fs().block_size();
    const std::uint64_t first = offset / bs;
    const std::uint64_t count = std::max<std::uint64_t>(1, divide_up(offset % bs + length, bs));
    Mapping out;
    out.cookie = cookie_;
    out.offset = first * bs;
    auto it = run_at_or_after(first);
    if (it != pending_.end() && it->first <= first) {
        const std::uint64_t skip = first - it->first;
        out.place = it->second.place;
        out.length = std::min(it->second.count - skip, count) * bs;
        if (it->second.block) out.block = it->second.block + skip;
        if (out.place == Place::granted && first < arriving_end_.value) {
            out.arriving = first >= arriving_.value;
            const std::uint64_t change = out.arriving ? arriving_end_.value : arriving_.value;
            out.length = std::min(out.length, (change - first) * bs);
        }
        return out;
    }
    std::uint64_t limit = count;
    if (it != pending_.end()) limit = std::min(limit, it->first - first);
    if (inode_.is_inline() && first == 0) {
        out.place = Place::inline_data;
        out.length = bs;
        return out;
    }
    if (LogicalBlock(first) >= inode_.map().limit()) {
        out.length = limit * bs;
        return out;
    }
    const MappedRun run = TRY(on_disk(LogicalBlock(first), limit));
    out.length = run.count * bs;
    out.block = run.physical;
    out.place = run.hole() ? Place::hole : run.unwritten ? Place::unwritten : Place::mapped;
    return out;
}

Result<Places::Backing> Places::backing_of(std::uint64_t cluster) {
    const std::uint64_t r = ratio(), start = cluster * r;
    Backing found;
    for (auto it = run_at_or_after(start); it != pending_.end() && it->first < start + r; ++it) {
        if (it->second.place == Place::reserved) {
            found.promised = true;
        } else if (it->second.place == Place::granted) {
            const std::uint64_t inside = std::max(it->first, start);
            const BlockNr physical = it->second.block + (inside - it->first);
            found.base = physical - (inside - start);
            found.grant = it->second.grant;
            return found;
        }
    }
    for (std::uint64_t at = start; at < start + r;) {
        const MappedRun run = TRY(on_disk(LogicalBlock(at), start + r - at));
        if (!run.hole()) {
            found.base = run.physical - (at - start);
            return found;
        }
        at += run.count;
    }
    return found;
}

// New clusters that reserving the hole blocks [first, first+count) takes.
Result<std::uint64_t> Places::clusters_needed(std::uint64_t first, std::uint64_t count) {
    const std::uint64_t r = ratio();
    if (r == 1) return count;
    std::uint64_t needed = 0;
    for (std::uint64_t cluster = first / r; cluster <= (first + count - 1) / r; ++cluster) {
        const Backing backing = TRY(backing_of(cluster));
        if (!backing.base && !backing.promised) ++needed;
    }
    return needed;
}

std::uint64_t Places::tree_blocks_for(std::uint64_t runs, std::uint64_t blocks) const {
    const bool extents = inode_.uses_extents() || inode_.is_inline();
    if (!extents) runs += blocks / (inode_.fs().block_size() / 4);
    return BlockMap::tree_blocks_for(runs, inode_.fs().block_size(), extents);
}

std::uint64_t Places::least_for_one() const { return (1 + tree_blocks_for(1, 1)) * ratio(); }

// The claim for tree blocks covers naming every pending run.
Result<void> Places::cover_tree(bool privileged) {
    const std::uint64_t needed = tree_blocks_for(unnamed_runs_, unnamed_blocks_);
    if (needed <= tree_claim_.clusters()) return {};
    tree_claim_.merge(TRY(inode_.fs().allocator.claim(needed - tree_claim_.clusters(), privileged)));
    return {};
}

void Places::trim_claims() {
    if (unnamed_runs_) return;
    data_claim_.release();
    tree_claim_.release();
}

Result<void> Places::reserve(LogicalBlock first, std::uint64_t count, bool privileged) {
    TRY(reserve_holes(first, count, privileged));
    return {};
}

// What is newly reserved.
Result<std::vector<Places::Range>> Places::reserve_holes(LogicalBlock first, std::uint64_t count, bool privileged) {
    std::vector<Range> made;
    Result<void> result;
    std::uint64_t at = first.value;
    const std::uint64_t end = at + count;
    for (;;) {
        const Result<std::optional<MappedRun>> next = next_without_run(at, end);
        if (!next) {
            result = fail(next.error());
            break;
        }
        const std::optional<MappedRun>& run = *next;
        if (!run) break;
        if (run->hole()) {
            Result<std::uint64_t> clusters = clusters_needed(at, run->count);
            Result<Claim> claim =
                clusters ? inode_.fs().allocator.claim(*clusters, privileged) : fail(clusters.error());
            if (!claim) {
                result = fail(claim.error());
                break;
            }
            data_claim_.merge(std::move(*claim));
            add_run(at, Pending{run->count, Place::reserved, BlockNr(), nullptr});
            made.push_back({at, run->count});
        }
        at += run->count;
    }
    if (!made.empty()) ++cookie_;
    if (result && !made.empty()) result = cover_tree(privileged);
    if (!result) {
        for (const Range& r : made) drop_pending(LogicalBlock(r.first), LogicalBlock(r.end()));
        return fail(result.error());
    }
    for (const Range& r : made) merge_around(r.first);
    return made;
}

// For data that had a promise. Where there is no room for one any more it is dirty without, and asks again when it is
// written back.
Result<void> Places::promise_again(const Range& range) {
    Result<void> promised = reserve(LogicalBlock(range.first), range.count, true);
    if (!promised && promised.error().code == ENOSPC) return {};
    return promised;
}

Result<void> Places::reserve_over_inline(bool privileged, bool beyond_space) {
    auto it = run_at_or_after(0);
    if (it != pending_.end() && it->first == 0) return {};
    const auto may_lack = [beyond_space](const Error& why) { return beyond_space && why.code == ENOSPC; };
    Result<Claim> claim = inode_.fs().allocator.claim(1, privileged);
    if (claim) data_claim_.merge(std::move(*claim));
    else if (!may_lack(claim.error())) return fail(claim.error());
    add_run(0, Pending{1, Place::reserved, BlockNr(), nullptr});
    ++cookie_;
    if (Result<void> covered = cover_tree(privileged); !covered && !may_lack(covered.error())) {
        drop_pending(LogicalBlock(0), LogicalBlock(1));
        return covered;
    }
    merge_around(0);
    return {};
}

Result<BlockNr> Places::goal_for(LogicalBlock logical) {
    const std::uint64_t block = logical.value, bs = inode_.fs().block_size();
    // Just behind a block of the file; 0 where that has no place.
    const auto behind = [&](std::uint64_t one) -> Result<BlockNr> {
        auto it = run_at_or_after(one);
        if (it != pending_.end() && it->first <= one && it->second.block)
            return it->second.block + (one + 1 - it->first);
        const MappedRun run = TRY(on_disk(LogicalBlock(one), 1));
        return run.hole() ? BlockNr() : run.physical + 1;
    };
    const BlockNr goal = block > 0 ? TRY(behind(block - 1)) : BlockNr();
    if (!goal) return inode_.fs().allocator.goal_for(inode_.number());
    // The block in which the file ends may be kept aside: its place among the others, to which it goes when it is full,
    // stays free.
    if (block > 1 && inode_.size() / bs == block - 1 && inode_.size() % bs != 0)
        if (const BlockNr place = TRY(behind(block - 2)); place && place + 1 != goal) return place + 1;
    return goal;
}

// Chooses blocks for [first, first+count), none of which has one; the run it describes is at most that long.
Result<Places::Granted> Places::grant_run(LogicalBlock first, std::uint64_t count, Claim* paid, bool privileged,
                                          Pending& out, const std::optional<Goal>& wanted, Clusters how) {
    const std::uint64_t r = ratio();
    out.place = Place::granted;
    if (r == 1) {
        // A file's first blocks lie beside those of its neighbours; one that grows keeps room to grow in.
        const InodeNr grows = first.value && (!wanted || wanted->grows) ? inode_.number() : InodeNr();
        const BlockNr goal = wanted ? wanted->near : TRY(goal_for(first));
        auto grant = std::make_shared<Grant>(TRY(inode_.fs().allocator.grant(goal, count, paid, privileged, grows)));
        out.count = std::min(count, grant->count());
        out.block = grant->first();
        if (grant->count() > out.count) grant = std::make_shared<Grant>(grant->split_front(out.count));
        out.grant = std::move(grant);
        return Granted{first, out.count, out.block};
    }
    const std::uint64_t cluster = first.value / r, inside = first.value % r;
    Backing backing = TRY(backing_of(cluster));
    std::uint64_t room = r;
    if (!backing.base) {
        const BlockNr goal = TRY(goal_for(LogicalBlock(cluster * r)));
        // Of several, each whole and a hole: as many as an extent can name.
        if (how == Clusters::together && inside == 0)
            room = std::max(r, round_down(std::min<std::uint64_t>(count, format::max_unwritten_length), r));
        backing.grant = std::make_shared<Grant>(TRY(inode_.fs().allocator.grant(goal, room, paid, privileged)));
        if (backing.grant->count() > room) *backing.grant = backing.grant->split_front(room);
        room = backing.grant->count();
        backing.base = backing.grant->first();
    }
    out.count = std::min(count, room - inside);
    out.block = backing.base + inside;
    out.grant = std::move(backing.grant);
    return Granted{first, out.count, out.block};
}

Result<Places::Granted> Places::grant(LogicalBlock first, std::uint64_t count, bool privileged,
                                      const std::optional<Goal>& goal) {
    auto it = split_at(first.value);
    if (it == pending_.end() || it->first != first.value || it->second.place != Place::reserved)
        return fail(EIO, "inode {}: block {} is not reserved", inode_.number(), first);
    count = std::min(count, it->second.count);
    Pending run;
    // With clusters, a block may have been reserved beside mapped ones that are gone since: it has no promise of its
    // own.
    Claim* paid = data_claim_.clusters() ? &data_claim_ : nullptr;
    const Granted granted = TRY(grant_run(first, count, paid, privileged || !paid, run, goal, Clusters::one_by_one));
    split_at(first.value + granted.count);
    pending_[first.value] = std::move(run);
    ++cookie_;
    return granted;
}

void Places::expect_data(LogicalBlock first, LogicalBlock end) {
    arriving_ = first;
    arriving_end_ = end;
    ++cookie_;
}

void Places::data_arrived(LogicalBlock up_to) {
    if (!arriving_end_) return;
    arriving_ = std::max(arriving_, up_to);
    if (arriving_ >= arriving_end_) arriving_ = arriving_end_ = LogicalBlock();
    ++cookie_;
}

Places::Uses::~Uses() {
    for (std::shared_ptr<Uses> after = std::move(next); after && after.use_count() == 1;)
        after = std::move(after->next);
}

std::shared_ptr<const void> Places::use() {
    if (!uses_) uses_ = std::make_shared<Uses>();
    return uses_;
}

void Places::keep_until_unused(std::shared_ptr<const void> freed) {
    if (!uses_ || uses_.use_count() == 1) return;
    uses_->freed.push_back(std::move(freed));
    auto next = std::make_shared<Uses>();
    uses_->next = next;
    uses_ = std::move(next);
}

Result<void> Places::take_back(LogicalBlock first, std::uint64_t count) {
    split_at(first.value + count);
    auto it = split_at(first.value);
    while (it != pending_.end() && it->first < first.value + count) {
        if (it->second.place != Place::granted || !it->second.grant || !*it->second.grant) {
            ++it;
            continue;
        }
        const std::uint64_t start = it->first, n = it->second.count;
        const std::uint64_t r = ratio();
        // With clusters, other runs may share the grant: only a run that is alone in it can move.
        if (r > 1 && it->second.grant.use_count() > 1) {
            ++it;
            continue;
        }
        const std::shared_ptr<Grant> grant = it->second.grant;
        it = erase_run(it);
        inode_.fs().allocator.avoid(std::move(*grant));
        ++cookie_;
        TRY(reserve(LogicalBlock(start), n, true));
        it = run_at_or_after(start + n);
    }
    return {};
}

// Sets the run's bits and extents in one handle. The inline area gives way to block 0.
Result<void> Places::name_blocks(Handle& handle, std::uint64_t first, Pending& run, bool unwritten) {
    if (inode_.is_inline() && first != 0)
        return fail(EIO, "inode {}: block {} would be named before block 0 of inline data", inode_.number(), first);
    std::uint64_t counted = 0;
    if (run.grant && *run.grant) {
        counted = run.grant->count();
        TRY(inode_.fs().allocator.publish(handle, *run.grant));
    }
    disk_run_.reset();
    const auto name = [&]() -> Result<void> {
        if (inode_.is_inline()) {
            TRY(inode_.join(handle));  // the contents leave the inode only where nothing fails afterwards
            TRY(clear_inline(handle, inode_));
        }
        Claim* paid = tree_claim_.clusters() ? &tree_claim_ : nullptr;
        return inode_.map().insert(handle, MappedRun{LogicalBlock(first), run.count, run.block, unwritten}, paid,
                                   counted);
    };
    Result<void> named = name();
    if (!named && counted) {
        const BlockNr start = run.block - (ratio() > 1 ? first % ratio() : 0);
        // Whoever tries again names the same blocks, which have the data.
        Result<Grant> again = inode_.fs().allocator.take_back(handle, start, counted);
        if (again) *run.grant = std::move(*again);
        else run.grant.reset();
    }
    return named;
}

Result<LogicalBlock> Places::publish(Handle& handle, LogicalBlock first, std::uint64_t count) {
    const std::uint64_t end = first.value + count;
    split_at(end);
    auto it = split_at(first.value);
    while (it != pending_.end() && it->first < end) {
        if (it->second.place != Place::granted) {
            ++it;
            continue;
        }
        if (!handle.extend(credits())) return LogicalBlock(it->first);
        TRY(name_blocks(handle, it->first, it->second, false));
        it = erase_run(it);
        ++cookie_;
    }
    trim_claims();
    return LogicalBlock(end);
}

Result<LogicalBlock> Places::name_holes(Handle& handle, LogicalBlock first, LogicalBlock end, bool unwritten,
                                        bool privileged, std::vector<Range>& named) {
    std::uint64_t at = first.value;
    while (at < end.value) {
        auto it = split_at(at);
        const bool here = it != pending_.end() && it->first == at;
        if (here && it->second.place != Place::reserved) {
            at += it->second.count;
            continue;
        }
        std::uint64_t n = end.value - at;
        if (here) {
            n = std::min(n, it->second.count);
        } else {
            if (it != pending_.end()) n = std::min(n, it->first - at);
            const MappedRun run = TRY(on_disk(LogicalBlock(at), n));
            n = run.count;
            if (!run.hole()) {
                at += n;
                continue;
            }
        }
        if (!handle.extend(credits())) return LogicalBlock(at);
        Pending run;
        Claim* const paid = here && data_claim_.clusters() ? &data_claim_ : nullptr;
        const Granted granted = TRY(grant_run(LogicalBlock(at), n, paid, privileged || here, run, {},
                                              here ? Clusters::one_by_one : Clusters::together));
        if (here) {
            split_at(at + granted.count);
            erase_run(pending_.find(at));
        }
        if (Result<void> done = name_blocks(handle, at, run, unwritten); !done) {
            run.grant.reset();
            if (here) TRY(promise_again({at, granted.count}));
            return fail(done.error());
        }
        named.push_back({at, granted.count});
        at += granted.count;
        ++cookie_;
    }
    trim_claims();
    return end;
}

Result<LogicalBlock> Places::allocate_unwritten(Handle& handle, LogicalBlock first, std::uint64_t count,
                                                bool privileged) {
    std::vector<Range> named;
    return name_holes(handle, first, LogicalBlock(first.value + count), true, privileged, named);
}

std::uint64_t Places::promised_sectors() const {
    const std::uint64_t sectors = inode_.fs().block_size() / 512;
    if (ratio() == 1) return unnamed_blocks_ * sectors;
    // Of a cluster that is in use nothing more is promised.
    std::uint64_t blocks = data_claim_.clusters() * ratio();
    const Grant* last = nullptr;
    for (const auto& [first, run] : pending_) {
        if (run.place != Place::granted || !run.grant || run.grant.get() == last) continue;
        last = run.grant.get();
        blocks += last->count();
    }
    return blocks * sectors;
}

std::uint64_t Places::promised_blocks() const { return unnamed_blocks_ + tree_claim_.clusters() * ratio(); }

unsigned Places::credits() {
    return inode_.map().credits() + Allocator::publish_credits() + Inode::store_credits() + 1;
}

std::optional<LogicalBlock> Places::first_pending(LogicalBlock from) const {
    auto it = pending_.upper_bound(from.value);
    if (it != pending_.begin()) {
        auto before = std::prev(it);
        if (before->first + before->second.count > from.value) it = before;
    }
    for (; it != pending_.end(); ++it)
        if (it->second.place != Place::written) return LogicalBlock(std::max(it->first, from.value));
    return std::nullopt;
}

}  // namespace uext4
