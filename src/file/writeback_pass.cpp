#include "file/writeback_pass.h"

#include "base/seam.h"
#include "file/file_io.h"
#include "inode/inline_data.h"
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

Result<bool> WritebackPass::write_batch() {
    items_.clear();
    segments_.clear();
    eof_blocks_to_log_.clear();
    logged_ = 0;
    waits_for_checkpoint_ = false;
    image_tid_ = 0;
    if (!space_error_) first_failure_ = ~std::uint64_t{0};
    FailsUnlessFinished guard{*this};
    collect();
    if (items_.empty()) return false;
    Result<void> chosen = prepare_relocations();
    if (chosen) chosen = plan();
    if (chosen) chosen = defer_shifted();
    if (chosen) chosen = wait_for_images_of_unmapped();
    if (chosen && waits_for_checkpoint_) chosen = inode_.fs().journal.commit_all();
    if (chosen && waits_for_checkpoint_) chosen = inode_.fs().journal.checkpoint_all();
    if (chosen && image_tid_ != 0) chosen = inode_.fs().journal.checkpoint(image_tid_);
    Result<void> named;
    if (chosen && !UEXT4_SEAM(data_before_mapping)) named = map();
    if (chosen) {
        for (Segment& s : segments_) write(s);
        retry_elsewhere();
        limit_size_to_written();
        for (const Segment& s : segments_) mark_failed(s);
    }
    if (chosen && UEXT4_SEAM(data_before_mapping)) named = map();
    finish(!chosen || !named);
    guard.finished = true;
    if (!chosen) return fail(chosen.error());
    if (!named) return fail(named.error());
    for (const Segment& s : segments_)
        if (!s.result && !(space_error_ && s.result.error().code == ENOSPC)) return fail(s.result.error());
    return true;
}

void WritebackPass::collect() {
    const std::uint64_t most = std::max<std::uint64_t>(1, std::min(pass_bytes, pages_.cache().limit() / 4) / fs_);
    while (items_.size() < most) {
        const std::uint64_t size = inode_.size_hint();
        const std::optional<std::uint64_t> index = pages_.next_dirty(next_);
        if (!index || *index >= end_) {
            scanned_bytes_ =
                std::max(scanned_bytes_, std::min(end_at_scan_, end_ > size / fs_ ? size : std::min(size, end_ * fs_)));
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
        if (file_end > end_at_scan_) {
            end_ = next_;
            return;
        }
        next_ = *index + 1;
        scanned_bytes_ = std::max(scanned_bytes_, std::min(file_end, next_ * fs_));
        if (file_end < next_ * fs_) end_at_scan_ = file_end;
        pages_.write_protect(folio);
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
    if (s.state == BlockState::inline_data || !s.result) return;
    if (s.logged || s.deferred) return;
    if (s.relocation) write_out_of_place(s);
    else s.result = write_at(s, s.block);
    if (!UEXT4_SEAM(failed_writes_count)) s.result = {};
}

// To a second block where the device does not take the first; where it takes none, the old one stays.
void WritebackPass::write_out_of_place(Segment& s) {
    Allocator& allocator = inode_.fs().allocator;
    s.result = write_at(s, s.relocation->allocation.first());
    if (s.result) return;
    std::optional<OutOfPlaceWrite> other = prepare_out_of_place_write(inode_, s.relocation->at, s.relocation->old_block,
                                                                      s.relocation->allocation.first(), false);
    allocator.avoid(std::move(s.relocation->allocation));
    if (other) {
        *s.relocation = std::move(*other);
        s.result = write_at(s, s.relocation->allocation.first());
        if (s.result) return;
        allocator.avoid(std::move(s.relocation->allocation));
    }
    // An unwritten one may be written as well where it lies, but not below an image that the log has of it.
    const LogicalBlock at(s.first);
    if (s.state != BlockState::unwritten || inode_.fs().logged_data_blocks.has(s.block, 1)) return;
    if (!commit_unmaps(inode_, at, at + 1)) return;
    s.relocation = nullptr;
    s.result = write_at(s, s.block);
}

// A device write failed: the same data into other blocks, once.
void WritebackPass::retry_elsewhere() {
    std::vector<Segment> again;
    for (Segment& s : segments_) {
        if (s.result) continue;
        if (s.state == BlockState::allocated) retry_allocation(s, again);
        else if (!s.relocation && (s.state == BlockState::mapped || s.state == BlockState::unwritten))
            retry_out_of_place(s);
    }
    for (Segment& s : again) segments_.push_back(std::move(s));
    std::stable_sort(segments_.begin(), segments_.end(),
                     [](const Segment& a, const Segment& b) { return a.first < b.first; });
    inode_.fs().allocator.trim_avoided();
}

void WritebackPass::retry_allocation(Segment& s, std::vector<Segment>& again) {
    MutexLock guard(inode_.map_lock);
    DelallocSpace& delalloc = inode_.delalloc();
    if (!delalloc.revert(LogicalBlock(s.first), s.count)) return;
    std::vector<Segment> fresh;
    for (std::uint64_t n = 0; n < s.count;) {
        Result<DelallocSpace::AllocatedRun> g = delalloc.allocate(LogicalBlock(s.first + n), s.count - n, true);
        if (!g) return;
        fresh.push_back({s.first + n, g->count, BlockState::allocated, g->block, s.item});
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
            if (!f.result && !delalloc.revert(LogicalBlock(f.first), f.count)) return;
        return;
    }
    s = fresh.front();
    again.insert(again.end(), fresh.begin() + 1, fresh.end());
}

// What has blocks on disk: they are swapped for new ones, in the handle of this function. Unwritten ones stay that
// until they are named.
void WritebackPass::retry_out_of_place(Segment& s) {
    FsContext& fs = inode_.fs();
    for (std::uint64_t n = 0; n < s.count; ++n) {
        const LogicalBlock at(s.first + n);
        std::optional<OutOfPlaceWrite> swap = prepare_out_of_place_write(inode_, at, s.block + n, s.block, false);
        if (!swap) return;
        if (!write_at({at.value, 1, s.state, BlockNr(), s.item}, swap->allocation.first())) {
            fs.allocator.avoid(std::move(swap->allocation));
            return;
        }
        unsigned credits = out_of_place_write_credits() + Inode::store_credits();
        {
            MutexLock guard(inode_.map_lock);
            credits += inode_.extent_mapper().credits();
        }
        Result<Handle> handle = fs.journal.start(credits);
        if (!handle) return;
        MutexLock guard(inode_.map_lock);
        if (!finish_out_of_place_write(*handle, inode_, *swap, Allocator::Reuse::avoid) || !inode_.store(*handle))
            return;
    }
    s.result = {};
}

// No block is named past the size on disk, which stays below the first one that failed.
void WritebackPass::limit_size_to_written() {
    MutexLock guard(inode_.map_lock);
    const std::uint64_t on_disk = inode_.disk_size();
    // Of a batch before, or of this one.
    std::optional<Error> failed = first_failure_ == ~std::uint64_t{0} ? std::nullopt : space_error_;
    for (Segment& s : segments_) {
        if ((s.first + s.count) * bs_ <= on_disk) continue;
        if (!failed && !s.result) {
            failed = s.result.error();
            first_failure_ = std::max(on_disk, s.first * bs_);
        } else if (failed && s.result) {
            s.result = fail(*failed);
        }
    }
}

// What the size on disk may be while the blocks from `unnamed` on have no names. map_lock held.
std::uint64_t WritebackPass::size_before(std::uint64_t unnamed) const {
    const std::uint64_t bound =
        std::min(first_failure_, unnamed > ~std::uint64_t{0} / bs_ ? first_failure_ : unnamed * bs_);
    return std::max(inode_.disk_size(), std::min(bound, stable_size(inode_, WritebackData::complete, scanned_bytes())));
}

void WritebackPass::mark_failed(const Segment& s) {
    if (s.result) return;
    const std::uint64_t per = fs_ / bs_;
    for (Item& item : items_) {
        const std::uint64_t base = item.folio->index * per;
        if (base < s.first + s.count && base + per > s.first) item.failed = true;
    }
}

Result<void> WritebackPass::map() {
    bool change = false;
    unsigned credits = 0;
    BufferRef table;  // held: what cannot be stored is met before
    {
        for (Item& item : items_)
            if (item.failed) pages_.fail_writeback(*item.folio, item.blocks);
        MutexLock guard(inode_.map_lock);
        for (const Segment& s : segments_)
            change = change || (s.result && (s.state != BlockState::mapped || s.relocation || s.logged));
        change = change || size_before(all_mapped) != inode_.disk_size();
        credits = inode_.extent_mapper().credits() + Inode::store_credits() +
                  (relocations_.empty() ? 0 : out_of_place_write_credits()) + (logged_ ? 1 : 0);
        if (change) table = TRY(inode_.read_inode_table_block());
    }
    if (!change) return {};
    const LogicalBlock reach = mark_written();
    Handle handle = TRY(inode_.fs().journal.start(credits));
    for (const Segment& s : segments_)
        if (s.result && s.relocation && s.state == BlockState::unwritten) TRY(relocate_unwritten(handle, s, credits));
    // A block of the file is not converted before the log has what goes through it.
    for (const Segment& s : segments_)
        if (s.result && s.logged && is_converted(s)) TRY(log_segment(handle, s, credits));
    for (const Segment& s : segments_)
        if (s.result) TRY(map_segment(handle, s, reach, credits));
    MutexLock guard(inode_.map_lock);
    inode_.set_disk_size(size_before(all_mapped));
    return inode_.store(handle);
}

// Before the first is named: where space is short, one extent is converted with all that was written in it. Returns
// where the last one ends.
LogicalBlock WritebackPass::mark_written() {
    LogicalBlock reach;
    MutexLock guard(inode_.map_lock);
    for (const Segment& s : segments_) {
        if (!s.result) continue;
        if (s.state == BlockState::unwritten && !s.relocation && !s.logged)
            inode_.extent_status().mark_converting(LogicalBlock(s.first), s.count);
        reach = std::max(reach, LogicalBlock(s.first + s.count));
    }
    return reach;
}

Result<void> WritebackPass::map_segment(Handle& handle, const Segment& s, LogicalBlock reach, unsigned credits) {
    if (s.relocation && s.state == BlockState::mapped) return map_out_of_place(handle, s, credits);
    if (s.logged && !is_converted(s)) TRY(log_segment(handle, s, credits));
    if (s.state == BlockState::mapped) {
        if (!s.logged) return {};
        MutexLock guard(inode_.map_lock);
        return store_size_after(handle, s);
    }
    Result<void> named = map_run(handle, s, reach, credits);
    if (!named && s.logged && s.state == BlockState::allocated) revoke_logged(handle, s);
    return named;
}

Result<void> WritebackPass::map_run(Handle& handle, const Segment& s, LogicalBlock reach, unsigned credits) {
    for (RangeIterator range(inode_, s.first * bs_, (s.first + s.count) * bs_);;) {
        {
            MutexLock guard(inode_.map_lock);
            if (s.state == BlockState::inline_data) return store_inline(handle, s);
            // Run by run: where one finds no space, the size has what is named already.
            for (bool has_room = true; has_room;) {
                (void)TRY(range.load_locked());
                const LogicalBlock next(range.run_end() / bs_);
                const LogicalBlock at = TRY(inode_.extent_mapper().map_range(handle, LogicalBlock(range.at() / bs_),
                                                                             range.length() / bs_, reach));
                range.advance_to(at.value * bs_);
                if (const std::uint64_t size = size_before(at.value); size != inode_.disk_size()) {
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
Result<void> WritebackPass::ensure_credits(Handle& handle, unsigned credits) {
    if (handle.extend(credits)) return {};
    {
        MutexLock guard(inode_.map_lock);
        TRY(inode_.store(handle));
    }
    return handle.restart(credits);
}

// It has no name before the others, and is unwritten there as well: what is converted from here on finds the space that
// was kept for the swap free again.
Result<void> WritebackPass::relocate_unwritten(Handle& handle, const Segment& s, unsigned credits) {
    TRY(ensure_credits(handle, credits));
    MutexLock guard(inode_.map_lock);
    TRY(finish_out_of_place_write(handle, inode_, *s.relocation));
    inode_.extent_status().mark_converting(LogicalBlock(s.first), 1);
    return inode_.store(handle);
}

// With its size: in between, what the file has grown by would lie behind its end.
Result<void> WritebackPass::map_out_of_place(Handle& handle, const Segment& s, unsigned credits) {
    TRY(ensure_credits(handle, credits));
    MutexLock guard(inode_.map_lock);
    TRY(finish_out_of_place_write(handle, inode_, *s.relocation));
    return store_size_after(handle, s);
}

// Of a block that is the file's already.
bool WritebackPass::is_converted(const Segment& s) {
    return s.state == BlockState::unwritten || s.state == BlockState::converting;
}

// Before its name or its size.
Result<void> WritebackPass::log_segment(Handle& handle, const Segment& s, unsigned credits) {
    TRY(ensure_credits(handle, credits));
    TRY(log_block(handle, inode_, s.block, s.contents));
    MutexLock guard(inode_.map_lock);
    inode_.extent_status()
        .note_overwrite();  // the data is only in the log: a writer to the block in place checks again
    if (s.state == BlockState::unwritten) inode_.extent_status().mark_converting(LogicalBlock(s.first), 1);
    return {};
}

// Without a name it may go to somebody else, with the rest of its cluster: no recovery writes the image there.
void WritebackPass::revoke_logged(Handle& handle, const Segment& s) {
    const Result<void> forgotten = inode_.fs().logged_data_blocks.revoke(handle, s.block, 1);
    if (!forgotten) inode_.fs().journal.abort(forgotten.error());
}

Result<void> WritebackPass::store_size_after(Handle& handle, const Segment& s) {
    inode_.set_disk_size(size_before(s.first + 1));
    Result<void> stored = inode_.store(handle);
    if (!stored) inode_.fs().journal.abort(stored.error());  // the transaction would have the one without the other
    return stored;
}

Result<void> WritebackPass::store_inline(Handle& handle, const Segment& s) {
    const ConstBytes contents(data_of(s.first, s.item), std::min<std::uint64_t>(inode_.size(), bs_));
    if (!inode_.is_inline() || inode_.extent_status().has_pending())
        return fail(EIO, "inode {}: inline data left the inode during its writeback", inode_.number());
    const Result<void> stored = write_inline_data(handle, inode_, contents);
    if (stored || stored.error().code != ENOSPC) return stored;
    // The attributes grew meanwhile: another pass writes block 0.
    TRY(inode_.delalloc().reserve_inline_block(true));
    items_[s.item].failed = true;
    first_failure_ = 0;
    converted_inline_ = true;
    pages_.fail_writeback(*items_[s.item].folio, 1);
    return {};
}

void WritebackPass::finish(bool all_failed) {
    relocations_.clear();
    std::array<Folio*, 64> ended{};
    std::size_t count = 0;
    for (Item& item : items_) {
        if (item.failed) continue;  // fail_writeback() has ended it already
        if (all_failed) pages_.fail_writeback(*item.folio, item.blocks);
        else if (item.deferred) pages_.fail_writeback(*item.folio, item.deferred);
        else ended[count++] = item.folio;
        if (count == ended.size()) pages_.end_writeback(std::span(ended).first(std::exchange(count, 0)));
    }
    if (count != 0) pages_.end_writeback(std::span(ended).first(count));
}

}  // namespace uext4
