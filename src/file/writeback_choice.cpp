// Where each block of a batch goes: the part of WritebackPass that chooses.
#include "base/seam.h"
#include "file/file_io.h"
#include "file/writeback_pass.h"

#include <algorithm>
#include <utility>

namespace uext4 {

namespace {
// What is written over blocks that the log has goes there as well; of one batch no more than this.
constexpr unsigned most_logged = 16;
// How far from where the file goes on its end is kept aside: as many blocks as the file has, within these bounds. So it
// is out of the way until the file has doubled, or nearly.
constexpr std::uint64_t least_aside = 256, most_aside = 4096, too_near = 32;
}  // namespace

bool WritebackPass::is_dirty(std::uint64_t logical) const {
    const std::uint64_t per = fs_ / bs_;
    const auto item = std::ranges::lower_bound(items_, logical / per, {}, [](const Item& i) { return i.folio->index; });
    return item != items_.end() && item->folio->index == logical / per && (item->blocks >> logical % per & 1);
}

Result<bool> WritebackPass::is_followed_by_data(LogicalBlock at) const {
    if (at.value == 0) return true;
    RangeIterator before(inode_, (at.value - 1) * bs_, at.value * bs_);
    (void)TRY(before.load_locked());
    return before.mapping().has_block();
}

// A file that ends within its last block is appended to again, perhaps: until the block is full it is kept aside, and
// then goes behind the one before, so that the file does not become a piece for each time.
Result<DelallocSpace::AllocationGoal> WritebackPass::goal_for(LogicalBlock at) {
    BlockNr behind = TRY(inode_.delalloc().allocation_goal(at));
    // What fallocate has put there shows where this one has been.
    RangeIterator next(inode_, (at.value + 1) * bs_, (at.value + 2) * bs_);
    if (const Result<bool> seen = next.load_locked(); seen && *seen && next.mapping().state == BlockState::unwritten)
        behind = BlockNr(next.block().value - 1);
    if (inode_.size() >= (at.value + 1) * bs_) return DelallocSpace::AllocationGoal{behind, true};
    if (inode_.eof_block_goal < behind + too_near || inode_.eof_block_goal > behind + most_aside)
        inode_.eof_block_goal = std::min(behind + std::clamp(at.value, least_aside, most_aside),
                                         BlockNr(inode_.fs().geometry.blocks_count - 1));
    return DelallocSpace::AllocationGoal{inode_.eof_block_goal, false};
}

// The next end within a block behind byte `from`: one that a cut may leave, or where the file ends now.
std::optional<std::uint64_t> WritebackPass::next_end(std::uint64_t from) const {
    const std::uint64_t size = inode_.size();
    const std::optional<std::uint64_t> after_cut = inode_.size_after_crash(from);
    return size > from && size % bs_ != 0 ? std::min(size, after_cut.value_or(size)) : after_cut;
}

// The block in which an end lies leaves its place where the file has grown behind that. So does an unwritten one of a
// file whose end is kept aside: written in its place, it would leave that with the next append, for good.
bool WritebackPass::needs_relocation(BlockState place, std::uint64_t end) const {
    if (place == BlockState::mapped) return inode_.size() > end;
    return place == BlockState::unwritten && inode_.size() == end && end > inode_.disk_size() && inode_.eof_block_goal;
}

// By a transaction that a cut may take back. map_lock held.
bool WritebackPass::has_uncommitted_unmap(LogicalBlock at) const {
    const Tid tid = inode_.uncommitted_moves().unmap_tid(at, at + 1);
    return tid && inode_.fs().journal.has_log() && !inode_.fs().journal.is_durable(tid);
}

Result<void> WritebackPass::prepare_relocations() {
    if (!UEXT4_SEAM(appends_move) || inode_.journals_data()) return {};
    for (std::uint64_t from = 0;;) {
        LogicalBlock at;
        BlockNr old;
        DelallocSpace::AllocationGoal goal;
        bool goes_on = false, must_leave = false;
        {
            MutexLock guard(inode_.map_lock);
            const std::optional<std::uint64_t> end = next_end(from);
            if (!end) return {};
            at = LogicalBlock(*end / bs_);
            from = (at.value + 1) * bs_ - 1;
            if (!is_dirty(at.value)) continue;
            RangeIterator range(inode_, *end, *end + 1);
            (void)TRY(range.load_locked());
            const BlockState place = range.mapping().state;
            const bool emptied = place != BlockState::mapped && has_uncommitted_unmap(at);
            if (!emptied && !needs_relocation(place, *end)) continue;
            if (place != BlockState::mapped && place != BlockState::unwritten) {
                eof_blocks_to_log_.push_back(at);  // where it has a place, as a part of a cluster
                continue;
            }
            old = range.block();
            must_leave = place == BlockState::mapped || emptied;
            // Where the block before has no place yet, it stays near its own.
            goes_on = TRY(is_followed_by_data(at));
            goal = goes_on ? TRY(goal_for(at)) : DelallocSpace::AllocationGoal{old};
        }
        std::optional<OutOfPlaceWrite> swap = prepare_out_of_place_write(inode_, at, old, goal.block, goal.is_growing);
        // What others have freed may be had once it is durable.
        const bool may_move = inode_.fs().geometry.cluster_ratio == 1;
        if (!swap && must_leave && may_move && inode_.fs().allocator.has_pending_free() &&
            inode_.fs().journal.commit_all())
            swap = prepare_out_of_place_write(inode_, at, old, goal.block, goal.is_growing);
        // Where there is no log either the block is written in its place.
        if (!swap && must_leave && inode_.fs().journal.has_log()) eof_blocks_to_log_.push_back(at);
        if (swap) {
            if (goes_on && !inode_.eof_block_goal)
                inode_.eof_block_goal = old;  // until allocation_goal() finds a better one
            relocations_.push_back(std::move(*swap));
        }
    }
}

// Where each dirty block goes. A block past the end of the file that lives nowhere is not written.
Result<void> WritebackPass::plan() {
    const std::uint64_t per = fs_ / bs_;
    MutexLock guard(inode_.map_lock);
    for (std::size_t i = 0; i < items_.size(); ++i) {
        const std::uint64_t base = items_[i].folio->index * per;
        for (std::uint64_t slot = 0; slot < per; ++slot) {
            if (!(items_[i].blocks >> slot & 1)) continue;
            const std::uint64_t logical = base + slot;
            if (extends_last(logical)) continue;
            TRY(plan_range(logical, run_length(i, slot), i));
        }
    }
    plan_in_place();
    return {};
}

bool WritebackPass::extends_last(std::uint64_t logical) const {
    return !segments_.empty() && logical >= segments_.back().first &&
           logical < segments_.back().first + segments_.back().count;
}

// Dirty blocks that follow each other, from this one on.
std::uint64_t WritebackPass::run_length(std::size_t item, std::uint64_t slot) const {
    const std::uint64_t per = fs_ / bs_;
    std::uint64_t n = 0;
    for (;;) {
        while (slot < per && (items_[item].blocks >> slot & 1)) ++slot, ++n;
        if (slot < per || item + 1 == items_.size()) return n;
        if (items_[item + 1].folio->index != items_[item].folio->index + 1 || !(items_[item + 1].blocks & 1)) return n;
        ++item;
        slot = 0;
    }
}

Result<void> WritebackPass::plan_range(std::uint64_t logical, std::uint64_t count, std::size_t item) {
    RangeIterator range(inode_, logical * bs_, (logical + count) * bs_);
    (void)TRY(range.load_locked());
    if (range.mapping().state == BlockState::hole) {
        // Dirty without a promise: an earlier write to its blocks failed and gave them back, or it was taken so.
        const std::uint64_t wanted = range.length() / bs_;
        if (Result<void> promised = reserve_some(logical, wanted); !promised) {
            if (promised.error().code != ENOSPC) return promised;
            return defer_for_space({logical, wanted, BlockState::hole, BlockNr(), item}, promised.error());
        }
        (void)TRY(range.load_locked());
    }
    Segment s{logical, range.length() / bs_, range.mapping().state, range.mapping().block, item};
    if (s.state == BlockState::delayed) {
        const Result<void> granted = plan_allocated(s);
        if (!granted && granted.error().code == ENOSPC) return defer_for_space(s, granted.error());
        TRY(granted);
    } else if (s.state == BlockState::inline_data) {
        s.count = 1;
    }
    if (s.state == BlockState::mapped || s.state == BlockState::unwritten) plan_out_of_place(s);
    if (is_in_place(s)) plan_logged(s);
    if (s.state == BlockState::mapped) inode_.extent_status().note_overwrite();
    if (!segments_.empty() && !s.relocation && !s.logged) {
        Segment& last = segments_.back();
        if (last.state == s.state && !last.relocation && !last.logged && last.deferred == s.deferred &&
            s.state != BlockState::inline_data && last.first + last.count == s.first &&
            last.block + last.count == s.block) {
            last.count += s.count;
            return {};
        }
    }
    segments_.push_back(s);
    return {};
}

Result<void> WritebackPass::plan_allocated(Segment& s) {
    std::optional<DelallocSpace::AllocationGoal> goal;
    if (!relocations_.empty() && relocations_.back().at.value + 1 == s.first)
        goal = DelallocSpace::AllocationGoal{relocations_.back().allocation.first() + 1};
    if (const std::uint64_t size = inode_.size(), last = size / bs_; inode_.eof_block_goal && size % bs_ != 0) {
        if (last > s.first && last < s.first + s.count) s.count = last - s.first;
        if (last == s.first) {
            s.count = 1;
            goal = TRY(goal_for(LogicalBlock(last)));
        }
    }
    const DelallocSpace::AllocatedRun granted =
        TRY(inode_.delalloc().allocate(LogicalBlock(s.first), s.count, true, goal));
    s.count = granted.count;
    s.block = granted.block;
    s.state = BlockState::allocated;
    return {};
}

void WritebackPass::plan_out_of_place(Segment& s) {
    for (OutOfPlaceWrite& swap : relocations_) {
        if (swap.at.value == s.first && swap.old_block == s.block) {
            s.relocation = &swap;
            s.count = 1;
        } else if (swap.at.value > s.first && swap.at.value < s.first + s.count) {
            s.count = swap.at.value - s.first;
        }
    }
}

// One block, or those before the first such one.
void WritebackPass::plan_logged(Segment& s) {
    LoggedDataBlocks& blocks = inode_.fs().logged_data_blocks;
    const std::uint64_t whole = s.count;
    for (const LogicalBlock end : eof_blocks_to_log_)
        if (end.value >= s.first && end.value < s.first + s.count) s.count = end.value - s.first;
    const bool is_end = s.count == 0;
    const bool asks = UEXT4_SEAM(logged_is_asked);
    const std::uint64_t free = is_end ? 0 : asks ? blocks.count_without_image(s.block, s.count) : s.count;
    if (free == s.count && !is_end) return;
    if (!is_end && logged_ >= most_logged) {
        if (may_defer(s)) s.deferred = true;
        else waits_for_checkpoint_ = true;
        return;
    }
    s.count = std::min(whole, std::max<std::uint64_t>(free, 1));
    if (free != 0) return;
    s.logged = true;
    ++logged_;
    // Now, as a folio of which something else fails may change before the others are named.
    const std::byte* data = data_of(s.first, s.item);
    s.contents.assign(data, data + bs_);
}

bool WritebackPass::is_in_place(const Segment& s) const {
    if (s.relocation || s.logged) return false;
    // Chosen blocks of a cluster that is in use may have been the file's before.
    const bool clusters = inode_.fs().geometry.cluster_ratio > 1;
    return s.state == BlockState::mapped || s.state == BlockState::unwritten || s.state == BlockState::converting ||
           (clusters && s.state == BlockState::allocated);
}

// The size on disk does not wait for what lies before it.
bool WritebackPass::may_defer(const Segment& s) const {
    return sweep_ == Sweep::first && s.state == BlockState::mapped &&
           (s.first + s.count) * bs_ <= round_up(inode_.disk_size(), bs_);
}

Result<void> WritebackPass::defer_shifted() {
    const auto may_wait = [this](const Segment& s) {
        return s.deferred || (s.state == BlockState::mapped && is_in_place(s));
    };
    if (std::ranges::none_of(segments_, may_wait)) return {};
    bool waits = false;
    {
        MutexLock guard(inode_.map_lock);
        const Tid shifted = inode_.uncommitted_moves().shift_tid();
        const bool durable = !shifted || inode_.fs().journal.is_durable(shifted);
        for (Segment& s : segments_) {
            if (!durable && s.state == BlockState::mapped && is_in_place(s)) {
                s.deferred = may_defer(s);
                waits = waits || !s.deferred;
            }
            if (s.deferred) note_deferred(s);
        }
    }
    return waits ? commit_shift(inode_) : Result<void>();
}

Result<void> WritebackPass::wait_for_images_of_unmapped() {
    const auto may_be_emptied = [this](const Segment& s) { return s.state != BlockState::mapped && is_in_place(s); };
    if (std::ranges::none_of(segments_, may_be_emptied)) return {};
    // Anywhere: a whole extent gets zeros where there is no block to split it.
    return wait_for_older_images(inode_);
}

void WritebackPass::note_deferred(const Segment& s) {
    const std::uint64_t per = fs_ / bs_;
    std::size_t item = s.item;
    for (std::uint64_t logical = s.first; logical < s.first + s.count; ++logical) {
        while (items_[item].folio->index != logical / per) ++item;
        items_[item].deferred |= BlockMask{1} << logical % per;
    }
    has_deferred_ = true;
    deferred_image_tid_ = std::max(deferred_image_tid_, inode_.fs().logged_data_blocks.newest_tid(s.block, s.count));
}

Result<void> WritebackPass::wait_for_deferred() {
    Journal& journal = inode_.fs().journal;
    TRY(commit_shift(inode_));
    if (deferred_image_tid_ == 0) return {};
    TRY(journal.commit(deferred_image_tid_));
    return journal.checkpoint(deferred_image_tid_);
}

// A sync of what overwrites has nothing to commit (P10), also where the log has an image.
void WritebackPass::plan_in_place() {
    const bool leaves = std::ranges::any_of(segments_, &Segment::deferred);
    if ((logged_ == 0 && !waits_for_checkpoint_ && !leaves) || size_before(all_mapped) != inode_.disk_size()) return;
    Tid newest = 0;
    for (const Segment& s : segments_) {
        const bool is_end =
            std::ranges::any_of(eof_blocks_to_log_, [&](LogicalBlock end) { return end.value == s.first; });
        if (s.state != BlockState::mapped || s.relocation || is_end) return;
        newest = std::max(newest, inode_.fs().logged_data_blocks.newest_tid(s.block, s.count));
    }
    if (!inode_.fs().journal.is_durable(newest)) return;
    // Behind what another batch has to name: on its way home an image may take the running transaction along.
    bool may_wait = true;
    for (const Segment& s : segments_) may_wait = may_wait && may_defer(s);
    for (Segment& s : segments_) {
        s.deferred = may_wait && (s.logged || s.deferred);
        s.logged = false;
        s.contents.clear();
    }
    logged_ = 0;
    waits_for_checkpoint_ = false;
    if (!may_wait) image_tid_ = newest;
}

Result<void> WritebackPass::defer_for_space(Segment s, const Error& why) {
    space_error_ = why;
    s.result = fail(why);
    segments_.push_back(std::move(s));
    return {};
}

// All of them, or as many as there is space for.
Result<void> WritebackPass::reserve_some(std::uint64_t logical, std::uint64_t count) {
    for (;; count /= 2) {
        const bool privileged = !inode_.has_unreserved_data.load();
        Result<void> promised = inode_.delalloc().reserve(LogicalBlock(logical), count, privileged);
        if (promised || promised.error().code != ENOSPC || count == 1) return promised;
    }
}

}  // namespace uext4
