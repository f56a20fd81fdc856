#include "file/writeback_pass.h"

#include "base/seam.h"
#include "file/file_io.h"
#include "inode/inline_area.h"
#include "sync/atomic_point.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace uext4 {

namespace {
constexpr std::uint64_t pass_bytes = std::uint64_t{32} << 20;  // of one batch
}  // namespace

struct WritebackPass::FailsUnlessFinished {
    WritebackPass& pass;
    bool finished = false;
    ~FailsUnlessFinished() {
        if (!finished) pass.finish(true);
    }
};

WritebackPass::WritebackPass(Inode& inode, std::uint64_t first, std::uint64_t end, Sweep sweep)
    : inode_(inode),
      pages_(inode.pages()),
      fs_(pages_.folio_size()),
      bs_(pages_.block_size()),
      next_(first),
      end_(end),
      sweep_(sweep) {}

Result<bool> WritebackPass::batch() {
    items_.clear();
    segments_.clear();
    ends_.clear();
    logged_ = 0;
    waits_for_home_ = false;
    home_ = 0;
    if (!lacking_) reach_ = ~std::uint64_t{0};
    FailsUnlessFinished guard{*this};
    collect();
    if (items_.empty()) return false;
    Result<void> chosen = prepare_swaps();
    if (chosen) chosen = choose();
    if (chosen) chosen = leave_shifted();
    if (chosen) chosen = await_images_of_emptied();
    if (chosen && waits_for_home_) chosen = inode_.fs().journal.commit_all();
    if (chosen && waits_for_home_) chosen = inode_.fs().journal.checkpoint_all();
    if (chosen && home_ != 0) chosen = inode_.fs().journal.checkpoint(home_);
    Result<void> named;
    if (chosen && !UEXT4_SEAM(data_before_mapping)) named = name();
    if (chosen) {
        for (Segment& s : segments_) write(s);
        retry_elsewhere();
        hold_back_behind_failures();
        for (const Segment& s : segments_) mark_failed(s);
    }
    if (chosen && UEXT4_SEAM(data_before_mapping)) named = name();
    finish(!chosen || !named);
    guard.finished = true;
    if (!chosen) return fail(chosen.error());
    if (!named) return fail(named.error());
    for (const Segment& s : segments_)
        if (!s.result && !(lacking_ && s.result.error().code == ENOSPC)) return fail(s.result.error());
    return true;
}

void WritebackPass::collect() {
    const std::uint64_t most = std::max<std::uint64_t>(1, std::min(pass_bytes, pages_.cache().limit() / 4) / fs_);
    while (items_.size() < most) {
        const std::uint64_t size = inode_.size_hint();
        const std::optional<std::uint64_t> index = pages_.next_dirty(next_);
        if (!index || *index >= end_) {
            swept_ = std::max(swept_, std::min(edge_, end_ > size / fs_ ? size : std::min(size, end_ * fs_)));
            return;
        }
        Result<LockedFolio> locked = pages_.lock(*index, false);
        if (!locked || !*locked || !(*locked)->dirty) {
            next_ = *index + 1;
            continue;
        }
        LockedFolio& folio = *locked;
        const std::uint64_t start = folio->index * fs_;
        atomic_point("Inode::size", &inode_);
        const std::uint64_t file_end = inode_.size_hint();
        if (file_end > edge_) {
            end_ = next_;
            return;
        }
        next_ = *index + 1;
        swept_ = std::max(swept_, std::min(file_end, next_ * fs_));
        if (file_end < next_ * fs_) edge_ = file_end;
        pages_.protect(folio);
        if (file_end < start + fs_ && UEXT4_SEAM(zeroes_tails)) {
            const std::uint64_t keep = file_end > start ? file_end - start : 0;
            std::memset(folio->data + keep, 0, fs_ - keep);
        }
        items_.push_back({&*folio, folio->dirty});
        pages_.begin_writeback(folio);
    }
}

std::byte* WritebackPass::data_of(std::uint64_t logical, std::size_t item) const {
    const std::uint64_t per = fs_ / bs_, index = logical / per;
    while (items_[item].folio->index != index) ++item;
    return items_[item].folio->data + logical % per * bs_;
}

Result<void> WritebackPass::write_at(const Segment& s, BlockNr block) {
    std::vector<ConstBytes> parts;
    std::size_t item = s.item;
    const std::uint64_t per = fs_ / bs_;
    for (std::uint64_t n = 0; n < s.count;) {
        const std::uint64_t logical = s.first + n, index = logical / per;
        while (items_[item].folio->index != index) ++item;
        const std::uint64_t take = std::min(s.count - n, per - logical % per);
        parts.emplace_back(items_[item].folio->data + logical % per * bs_, take * bs_);
        n += take;
    }
    return inode_.fs().device.writev(block.value * bs_, parts);
}

void WritebackPass::write(Segment& s) {
    if (s.place == Place::inline_data || !s.result) return;
    if (s.logged || s.left) return;
    if (s.swap) write_swap(s);
    else s.result = write_at(s, s.block);
    if (!UEXT4_SEAM(failed_writes_count)) s.result = {};
}

// To a second block where the device does not take the first; where it takes none, the old one stays.
void WritebackPass::write_swap(Segment& s) {
    Allocator& allocator = inode_.fs().allocator;
    s.result = write_at(s, s.swap->grant.first());
    if (s.result) return;
    std::optional<BlockSwap> other = prepare_swap(inode_, s.swap->at, s.swap->old, s.swap->grant.first(), false);
    allocator.avoid(std::move(s.swap->grant));
    if (other) {
        *s.swap = std::move(*other);
        s.result = write_at(s, s.swap->grant.first());
        if (s.result) return;
        allocator.avoid(std::move(s.swap->grant));
    }
    // An unwritten one may be written as well where it lies, but not below an image that the log has of it.
    const LogicalBlock at(s.first);
    if (s.place != Place::unwritten || inode_.fs().logged_blocks.has(s.block, 1)) return;
    if (!commit_emptied(inode_, at, at + 1)) return;
    s.swap = nullptr;
    s.result = write_at(s, s.block);
}

// A device write failed: the same data into other blocks, once.
void WritebackPass::retry_elsewhere() {
    std::vector<Segment> again;
    for (Segment& s : segments_) {
        if (s.result) continue;
        if (s.place == Place::granted) retry_grant(s, again);
        else if (!s.swap && (s.place == Place::mapped || s.place == Place::unwritten)) retry_moved(s);
    }
    for (Segment& s : again) segments_.push_back(std::move(s));
    std::stable_sort(segments_.begin(), segments_.end(),
                     [](const Segment& a, const Segment& b) { return a.first < b.first; });
    inode_.fs().allocator.bound_avoided();
}

void WritebackPass::retry_grant(Segment& s, std::vector<Segment>& again) {
    MutexLock guard(inode_.map_lock);
    Places& places = inode_.places();
    if (!places.take_back(LogicalBlock(s.first), s.count)) return;
    std::vector<Segment> fresh;
    for (std::uint64_t n = 0; n < s.count;) {
        Result<Places::Granted> g = places.grant(LogicalBlock(s.first + n), s.count - n, true);
        if (!g) return;
        fresh.push_back({s.first + n, g->count, Place::granted, g->block, s.item});
        n += g->count;
    }
    guard.unlock();
    bool all = true;
    for (Segment& f : fresh) {
        f.result = write_at(f, f.block);
        all = all && f.result.has_value();
    }
    if (!all) {
        guard.lock();
        // The next pass begins with others.
        for (const Segment& f : fresh)
            if (!f.result && !places.take_back(LogicalBlock(f.first), f.count)) return;
        return;
    }
    s = fresh.front();
    again.insert(again.end(), fresh.begin() + 1, fresh.end());
}

// What has blocks on disk: they are swapped for new ones, in the handle of this function. Unwritten ones stay that
// until they are named.
void WritebackPass::retry_moved(Segment& s) {
    FsContext& fs = inode_.fs();
    for (std::uint64_t n = 0; n < s.count; ++n) {
        const LogicalBlock at(s.first + n);
        std::optional<BlockSwap> swap = prepare_swap(inode_, at, s.block + n, s.block, false);
        if (!swap) return;
        if (!write_at({at.value, 1, s.place, BlockNr(), s.item}, swap->grant.first())) {
            fs.allocator.avoid(std::move(swap->grant));
            return;
        }
        unsigned credits = swap_credits() + Inode::store_credits();
        {
            MutexLock guard(inode_.map_lock);
            credits += inode_.places().credits();
        }
        Result<Handle> handle = fs.journal.start(credits);
        if (!handle) return;
        MutexLock guard(inode_.map_lock);
        if (!swap_block(*handle, inode_, *swap, Allocator::AfterUse::avoided) || !inode_.store(*handle)) return;
    }
    s.result = {};
}

// No block is named past the size on disk, which stays below the first one that failed.
void WritebackPass::hold_back_behind_failures() {
    MutexLock guard(inode_.map_lock);
    const std::uint64_t on_disk = inode_.disk_size();
    // Of a batch before, or of this one.
    std::optional<Error> failed = reach_ == ~std::uint64_t{0} ? std::nullopt : lacking_;
    for (Segment& s : segments_) {
        if ((s.first + s.count) * bs_ <= on_disk) continue;
        if (!failed && !s.result) {
            failed = s.result.error();
            reach_ = std::max(on_disk, s.first * bs_);
        } else if (failed && s.result) {
            s.result = fail(*failed);
        }
    }
}

// What the size on disk may be while the blocks from `unnamed` on have no names. map_lock held.
std::uint64_t WritebackPass::size_with(std::uint64_t unnamed) const {
    const std::uint64_t bound = std::min(reach_, unnamed > ~std::uint64_t{0} / bs_ ? reach_ : unnamed * bs_);
    return std::max(inode_.disk_size(), std::min(bound, stable_size(inode_, InFlight::arrived, swept())));
}

void WritebackPass::mark_failed(const Segment& s) {
    if (s.result) return;
    const std::uint64_t per = fs_ / bs_;
    for (Item& item : items_) {
        const std::uint64_t base = item.folio->index * per;
        if (base < s.first + s.count && base + per > s.first) item.failed = true;
    }
}

Result<void> WritebackPass::name() {
    bool change = false;
    unsigned credits = 0;
    BufferRef table;  // held: what cannot be stored is met before
    {
        for (Item& item : items_)
            if (item.failed) pages_.fail_writeback(*item.folio, item.blocks);
        MutexLock guard(inode_.map_lock);
        for (const Segment& s : segments_)
            change = change || (s.result && (s.place != Place::mapped || s.swap || s.logged));
        change = change || size_with(all_named) != inode_.disk_size();
        credits = inode_.places().credits() + Inode::store_credits() + (swaps_.empty() ? 0 : swap_credits()) +
                  (logged_ ? 1 : 0);
        if (change) table = TRY(inode_.read_table());
    }
    if (!change) return {};
    const LogicalBlock reach = mark_written();
    Handle handle = TRY(inode_.fs().journal.start(credits));
    for (const Segment& s : segments_)
        if (s.result && s.swap && s.place == Place::unwritten) TRY(swap_unwritten(handle, s, credits));
    // A block of the file is not converted before the log has what goes through it.
    for (const Segment& s : segments_)
        if (s.result && s.logged && is_converted(s)) TRY(log(handle, s, credits));
    for (const Segment& s : segments_)
        if (s.result) TRY(name_segment(handle, s, reach, credits));
    MutexLock guard(inode_.map_lock);
    inode_.set_disk_size(size_with(all_named));
    return inode_.store(handle);
}

// Before the first is named: where space is short, one extent is converted with all that was written in it. Returns
// where the last one ends.
LogicalBlock WritebackPass::mark_written() {
    LogicalBlock reach;
    MutexLock guard(inode_.map_lock);
    for (const Segment& s : segments_) {
        if (!s.result) continue;
        if (s.place == Place::unwritten && !s.swap && !s.logged)
            inode_.places().mark_written(LogicalBlock(s.first), s.count);
        reach = std::max(reach, LogicalBlock(s.first + s.count));
    }
    return reach;
}

Result<void> WritebackPass::name_segment(Handle& handle, const Segment& s, LogicalBlock reach, unsigned credits) {
    if (s.swap && s.place == Place::mapped) return name_swap(handle, s, credits);
    if (s.logged && !is_converted(s)) TRY(log(handle, s, credits));
    if (s.place == Place::mapped) {
        if (!s.logged) return {};
        MutexLock guard(inode_.map_lock);
        return set_size_with(handle, s);
    }
    Result<void> named = name_run(handle, s, reach, credits);
    if (!named && s.logged && s.place == Place::granted) forget_logged(handle, s);
    return named;
}

Result<void> WritebackPass::name_run(Handle& handle, const Segment& s, LogicalBlock reach, unsigned credits) {
    for (RangeIterator range(inode_, s.first * bs_, (s.first + s.count) * bs_);;) {
        {
            MutexLock guard(inode_.map_lock);
            if (s.place == Place::inline_data) return name_inline(handle, s);
            // Run by run: where one finds no space, the size has what is named already.
            for (bool has_room = true; has_room;) {
                (void)TRY(range.look_held());
                const LogicalBlock next(range.run_end() / bs_);
                const LogicalBlock at =
                    TRY(inode_.places().name(handle, LogicalBlock(range.at() / bs_), range.length() / bs_, reach));
                range.go_to(at.value * bs_);
                if (const std::uint64_t size = size_with(at.value); size != inode_.disk_size()) {
                    inode_.set_disk_size(size);
                    TRY(inode_.store(handle));
                }
                if (range.done()) return {};
                has_room = at >= next;
            }
            TRY(inode_.store(handle));  // a valid file before the restart
        }
        TRY(handle.restart(credits));
    }
}

// For the next block in the handle.
Result<void> WritebackPass::make_room(Handle& handle, unsigned credits) {
    if (handle.extend(credits)) return {};
    {
        MutexLock guard(inode_.map_lock);
        TRY(inode_.store(handle));
    }
    return handle.restart(credits);
}

// It has no name before the others, and is unwritten there as well: what is converted from here on finds the space that
// was kept for the swap free again.
Result<void> WritebackPass::swap_unwritten(Handle& handle, const Segment& s, unsigned credits) {
    TRY(make_room(handle, credits));
    MutexLock guard(inode_.map_lock);
    TRY(swap_block(handle, inode_, *s.swap));
    inode_.places().mark_written(LogicalBlock(s.first), 1);
    return inode_.store(handle);
}

// With its size: in between, what the file has grown by would lie behind its end.
Result<void> WritebackPass::name_swap(Handle& handle, const Segment& s, unsigned credits) {
    TRY(make_room(handle, credits));
    MutexLock guard(inode_.map_lock);
    TRY(swap_block(handle, inode_, *s.swap));
    return set_size_with(handle, s);
}

// Of a block that is the file's already.
bool WritebackPass::is_converted(const Segment& s) { return s.place == Place::unwritten || s.place == Place::written; }

// Before its name or its size.
Result<void> WritebackPass::log(Handle& handle, const Segment& s, unsigned credits) {
    TRY(make_room(handle, credits));
    TRY(log_block(handle, inode_, s.block, s.contents));
    MutexLock guard(inode_.map_lock);
    inode_.places().note_overwrite();  // it has arrived in the log alone: who writes to it in its place looks again
    if (s.place == Place::unwritten) inode_.places().mark_written(LogicalBlock(s.first), 1);
    return {};
}

// Without a name it may go to somebody else, with the rest of its cluster: no recovery writes the image there.
void WritebackPass::forget_logged(Handle& handle, const Segment& s) {
    const Result<void> forgotten = inode_.fs().logged_blocks.forget(handle, s.block, 1);
    if (!forgotten) inode_.fs().journal.abort(forgotten.error());
}

Result<void> WritebackPass::set_size_with(Handle& handle, const Segment& s) {
    inode_.set_disk_size(size_with(s.first + 1));
    Result<void> stored = inode_.store(handle);
    if (!stored) inode_.fs().journal.abort(stored.error());  // the transaction would have the one without the other
    return stored;
}

Result<void> WritebackPass::name_inline(Handle& handle, const Segment& s) {
    const ConstBytes contents(data_of(s.first, s.item), std::min<std::uint64_t>(inode_.size(), bs_));
    if (!inode_.is_inline() || inode_.places().has_pending())
        return fail(EIO, "inode {}: inline data left the inode during its writeback", inode_.number());
    const Result<void> stored = write_inline(handle, inode_, contents);
    if (stored || stored.error().code != ENOSPC) return stored;
    // The attributes grew meanwhile: another pass writes block 0.
    TRY(inode_.places().reserve_over_inline(true));
    items_[s.item].failed = true;
    reach_ = 0;
    left_inline_ = true;
    pages_.fail_writeback(*items_[s.item].folio, 1);
    return {};
}

void WritebackPass::finish(bool all_failed) {
    swaps_.clear();
    std::array<Folio*, 64> ended{};
    std::size_t count = 0;
    for (Item& item : items_) {
        if (item.failed) continue;  // fail_writeback() has ended it already
        if (all_failed) pages_.fail_writeback(*item.folio, item.blocks);
        else if (item.left) pages_.fail_writeback(*item.folio, item.left);
        else ended[count++] = item.folio;
        if (count == ended.size()) pages_.end_writeback(std::span(ended).first(std::exchange(count, 0)));
    }
    if (count != 0) pages_.end_writeback(std::span(ended).first(count));
}

}  // namespace uext4
