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

Result<bool> WritebackPass::goes_on_at(LogicalBlock at) const {
    if (at.value == 0) return true;
    RangeIterator before(inode_, (at.value - 1) * bs_, at.value * bs_);
    (void)TRY(before.look_held());
    return before.run().has_block();
}

// A file that ends within its last block is appended to again, perhaps: until the block is full it is kept aside, and
// then goes behind the one before, so that the file does not become a piece for each time.
Result<Places::Goal> WritebackPass::goal_for(LogicalBlock at) {
    BlockNr behind = TRY(inode_.places().goal_for(at));
    // What fallocate has put there shows where this one has been.
    RangeIterator next(inode_, (at.value + 1) * bs_, (at.value + 2) * bs_);
    if (const Result<bool> seen = next.look_held(); seen && *seen && next.run().place == Place::unwritten)
        behind = BlockNr(next.block().value - 1);
    if (inode_.size() >= (at.value + 1) * bs_) return Places::Goal{behind, true};
    if (inode_.end_kept_at < behind + too_near || inode_.end_kept_at > behind + most_aside)
        inode_.end_kept_at = std::min(behind + std::clamp(at.value, least_aside, most_aside),
                                      BlockNr(inode_.fs().geometry.blocks_count - 1));
    return Places::Goal{inode_.end_kept_at, false};
}

// The next end within a block behind byte `from`: one that a cut may leave, or where the file ends now.
std::optional<std::uint64_t> WritebackPass::next_end(std::uint64_t from) const {
    const std::uint64_t size = inode_.size();
    const std::optional<std::uint64_t> after_cut = inode_.end_after_cut(from);
    return size > from && size % bs_ != 0 ? std::min(size, after_cut.value_or(size)) : after_cut;
}

// The block in which an end lies leaves its place where the file has grown behind that. So does an unwritten one of a
// file whose end is kept aside: written in its place, it would leave that with the next append, for good.
bool WritebackPass::leaves_its_place(Place place, std::uint64_t end) const {
    if (place == Place::mapped) return inode_.size() > end;
    return place == Place::unwritten && inode_.size() == end && end > inode_.disk_size() && inode_.end_kept_at;
}

// By a transaction that a cut may take back. map_lock held.
bool WritebackPass::was_emptied(LogicalBlock at) const {
    const Tid tid = inode_.moved().emptied(at, at + 1);
    return tid && inode_.fs().journal.has_log() && !inode_.fs().journal.durable(tid);
}

Result<void> WritebackPass::prepare_swaps() {
    if (!UEXT4_SEAM(appends_move) || inode_.data_in_journal()) return {};
    for (std::uint64_t from = 0;;) {
        LogicalBlock at;
        BlockNr old;
        Places::Goal goal;
        bool goes_on = false, must_leave = false;
        {
            MutexLock guard(inode_.map_lock);
            const std::optional<std::uint64_t> end = next_end(from);
            if (!end) return {};
            at = LogicalBlock(*end / bs_);
            from = (at.value + 1) * bs_ - 1;
            if (!is_dirty(at.value)) continue;
            RangeIterator range(inode_, *end, *end + 1);
            (void)TRY(range.look_held());
            const Place place = range.run().place;
            const bool emptied = place != Place::mapped && was_emptied(at);
            if (!emptied && !leaves_its_place(place, *end)) continue;
            if (place != Place::mapped && place != Place::unwritten) {
                ends_.push_back(at);  // where it has a place, as a part of a cluster
                continue;
            }
            old = range.block();
            must_leave = place == Place::mapped || emptied;
            // Where the block before has no place yet, it stays near its own.
            goes_on = TRY(goes_on_at(at));
            goal = goes_on ? TRY(goal_for(at)) : Places::Goal{old};
        }
        std::optional<BlockSwap> swap = prepare_swap(inode_, at, old, goal.near, goal.grows);
        // What others have freed may be had once it is durable.
        const bool may_move = inode_.fs().geometry.cluster_ratio == 1;
        if (!swap && must_leave && may_move && inode_.fs().allocator.has_space_later() &&
            inode_.fs().journal.commit_all())
            swap = prepare_swap(inode_, at, old, goal.near, goal.grows);
        // Where there is no log either the block is written in its place.
        if (!swap && must_leave && inode_.fs().journal.has_log()) ends_.push_back(at);
        if (swap) {
            if (goes_on && !inode_.end_kept_at) inode_.end_kept_at = old;  // until goal_for() finds a better one
            swaps_.push_back(std::move(*swap));
        }
    }
}

// Where each dirty block goes. A block past the end of the file that lives nowhere is not written.
Result<void> WritebackPass::choose() {
    const std::uint64_t per = fs_ / bs_;
    MutexLock guard(inode_.map_lock);
    for (std::size_t i = 0; i < items_.size(); ++i) {
        const std::uint64_t base = items_[i].folio->index * per;
        for (std::uint64_t slot = 0; slot < per; ++slot) {
            if (!(items_[i].blocks >> slot & 1)) continue;
            const std::uint64_t logical = base + slot;
            if (extends_last(logical)) continue;
            TRY(choose_from(logical, run_length(i, slot), i));
        }
    }
    choose_home();
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

Result<void> WritebackPass::choose_from(std::uint64_t logical, std::uint64_t count, std::size_t item) {
    Places& places = inode_.places();
    RangeIterator range(inode_, logical * bs_, (logical + count) * bs_);
    (void)TRY(range.look_held());
    if (range.run().place == Place::hole) {
        // Dirty without a promise: an earlier write to its blocks failed and gave them back, or it was taken so.
        const std::uint64_t wanted = range.length() / bs_;
        if (Result<void> promised = promise_some(logical, wanted); !promised) {
            if (promised.error().code != ENOSPC) return promised;
            return leave_without_space({logical, wanted, Place::hole, BlockNr(), item}, promised.error());
        }
        (void)TRY(range.look_held());
    }
    Segment s{logical, range.length() / bs_, range.run().place, range.run().block, item};
    if (s.place == Place::reserved) {
        const Result<void> granted = choose_granted(s);
        if (!granted && granted.error().code == ENOSPC) return leave_without_space(s, granted.error());
        TRY(granted);
    } else if (s.place == Place::inline_data) {
        s.count = 1;
    }
    if (s.place == Place::mapped || s.place == Place::unwritten) choose_swap(s);
    if (is_in_its_place(s)) choose_logged(s);
    if (s.place == Place::mapped) places.note_overwrite();
    if (!segments_.empty() && !s.swap && !s.logged) {
        Segment& last = segments_.back();
        if (last.place == s.place && !last.swap && !last.logged && last.left == s.left &&
            s.place != Place::inline_data && last.first + last.count == s.first && last.block + last.count == s.block) {
            last.count += s.count;
            return {};
        }
    }
    segments_.push_back(s);
    return {};
}

Result<void> WritebackPass::choose_granted(Segment& s) {
    std::optional<Places::Goal> goal;
    if (!swaps_.empty() && swaps_.back().at.value + 1 == s.first) goal = Places::Goal{swaps_.back().grant.first() + 1};
    if (const std::uint64_t size = inode_.size(), last = size / bs_; inode_.end_kept_at && size % bs_ != 0) {
        if (last > s.first && last < s.first + s.count) s.count = last - s.first;
        if (last == s.first) {
            s.count = 1;
            goal = TRY(goal_for(LogicalBlock(last)));
        }
    }
    const Places::Granted granted = TRY(inode_.places().grant(LogicalBlock(s.first), s.count, true, goal));
    s.count = granted.count;
    s.block = granted.block;
    s.place = Place::granted;
    return {};
}

void WritebackPass::choose_swap(Segment& s) {
    for (BlockSwap& swap : swaps_) {
        if (swap.at.value == s.first && swap.old == s.block) {
            s.swap = &swap;
            s.count = 1;
        } else if (swap.at.value > s.first && swap.at.value < s.first + s.count) {
            s.count = swap.at.value - s.first;
        }
    }
}

// One block, or those before the first such one.
void WritebackPass::choose_logged(Segment& s) {
    LoggedBlocks& blocks = inode_.fs().logged_blocks;
    const std::uint64_t whole = s.count;
    for (const LogicalBlock end : ends_)
        if (end.value >= s.first && end.value < s.first + s.count) s.count = end.value - s.first;
    const bool is_end = s.count == 0;
    const bool asks = UEXT4_SEAM(logged_is_asked);
    const std::uint64_t free = is_end ? 0 : asks ? blocks.free_of(s.block, s.count) : s.count;
    if (free == s.count && !is_end) return;
    if (!is_end && logged_ >= most_logged) {
        if (may_leave(s)) s.left = true;
        else waits_for_home_ = true;
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

bool WritebackPass::is_in_its_place(const Segment& s) const {
    if (s.swap || s.logged) return false;
    // Chosen blocks of a cluster that is in use may have been the file's before.
    const bool clusters = inode_.fs().geometry.cluster_ratio > 1;
    return s.place == Place::mapped || s.place == Place::unwritten || s.place == Place::written ||
           (clusters && s.place == Place::granted);
}

// The size on disk does not wait for what lies before it.
bool WritebackPass::may_leave(const Segment& s) const {
    return sweep_ == Sweep::first && s.place == Place::mapped &&
           (s.first + s.count) * bs_ <= round_up(inode_.disk_size(), bs_);
}

Result<void> WritebackPass::leave_shifted() {
    const auto may_wait = [this](const Segment& s) {
        return s.left || (s.place == Place::mapped && is_in_its_place(s));
    };
    if (std::ranges::none_of(segments_, may_wait)) return {};
    bool waits = false;
    {
        MutexLock guard(inode_.map_lock);
        const Tid shifted = inode_.moved().shifted();
        const bool durable = !shifted || inode_.fs().journal.durable(shifted);
        for (Segment& s : segments_) {
            if (!durable && s.place == Place::mapped && is_in_its_place(s)) {
                s.left = may_leave(s);
                waits = waits || !s.left;
            }
            if (s.left) note_left(s);
        }
    }
    return waits ? commit_shift(inode_) : Result<void>();
}

Result<void> WritebackPass::await_images_of_emptied() {
    const auto may_be_emptied = [this](const Segment& s) { return s.place != Place::mapped && is_in_its_place(s); };
    if (std::ranges::none_of(segments_, may_be_emptied)) return {};
    // Anywhere: a whole extent gets zeros where there is no block to split it.
    return await_older_images(inode_);
}

void WritebackPass::note_left(const Segment& s) {
    const std::uint64_t per = fs_ / bs_;
    std::size_t item = s.item;
    for (std::uint64_t logical = s.first; logical < s.first + s.count; ++logical) {
        while (items_[item].folio->index != logical / per) ++item;
        items_[item].left |= BlockMask{1} << logical % per;
    }
    left_some_ = true;
    left_for_home_ = std::max(left_for_home_, inode_.fs().logged_blocks.newest(s.block, s.count));
}

Result<void> WritebackPass::await_left() {
    Journal& journal = inode_.fs().journal;
    TRY(commit_shift(inode_));
    if (left_for_home_ == 0) return {};
    TRY(journal.commit(left_for_home_));
    return journal.checkpoint(left_for_home_);
}

// A sync of what overwrites has nothing to commit (P10), also where the log has an image.
void WritebackPass::choose_home() {
    const bool leaves = std::ranges::any_of(segments_, &Segment::left);
    if ((logged_ == 0 && !waits_for_home_ && !leaves) || size_with(all_named) != inode_.disk_size()) return;
    Tid newest = 0;
    for (const Segment& s : segments_) {
        const bool is_end = std::ranges::any_of(ends_, [&](LogicalBlock end) { return end.value == s.first; });
        if (s.place != Place::mapped || s.swap || is_end) return;
        newest = std::max(newest, inode_.fs().logged_blocks.newest(s.block, s.count));
    }
    if (!inode_.fs().journal.durable(newest)) return;
    // Behind what another batch has to name: on its way home an image may take the running transaction along.
    bool may_wait = true;
    for (const Segment& s : segments_) may_wait = may_wait && may_leave(s);
    for (Segment& s : segments_) {
        s.left = may_wait && (s.logged || s.left);
        s.logged = false;
        s.contents.clear();
    }
    logged_ = 0;
    waits_for_home_ = false;
    if (!may_wait) home_ = newest;
}

Result<void> WritebackPass::leave_without_space(Segment s, const Error& why) {
    lacking_ = why;
    s.result = fail(why);
    segments_.push_back(std::move(s));
    return {};
}

// All of them, or as many as there is space for.
Result<void> WritebackPass::promise_some(std::uint64_t logical, std::uint64_t count) {
    for (;; count /= 2) {
        const bool privileged = !inode_.kept_without_reserve.load();
        Result<void> promised = inode_.places().reserve(LogicalBlock(logical), count, privileged);
        if (promised || promised.error().code != ENOSPC || count == 1) return promised;
    }
}

}  // namespace uext4
