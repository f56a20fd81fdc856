// Writeback: dirty folios to the device, then one short handle that names their blocks.
//
// A pass holds flush_lock. Its folios are under writeback from before their blocks are chosen until after the blocks
// are named, so nobody changes them meanwhile and what is named is what was written.
//
// Blocks are named in their order, and the size on disk grows with each step, so that no block is ever named past it.
// It is held back by what failed and by what the pass has not looked at; not by what was clean when the pass came by
// and is dirty since: those bytes were zeros, or are on the device, in a file that was as large.
//
// A block that is dirty without a promise, and for which there is no space, stays dirty, and the pass goes on: the
// file's other blocks have theirs. What lies behind the size on disk waits with it.
#include "base/seam.h"
#include "file/file_io.h"
#include "inode/inline_area.h"
#include "inode/inode_table.h"
#include "sync/atomic_point.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace uext4 {

namespace {

constexpr std::uint64_t pass_bytes = std::uint64_t{32} << 20;  // of one batch

struct Item {
    Folio* folio;
    BlockMask blocks;
    bool failed = false;
};

struct Segment {
    std::uint64_t first;  // logical block
    std::uint64_t count;
    Place place;
    BlockNr block;
    std::size_t item;  // of its first block
    Result<void> result{};
};

class Pass {
public:
    Pass(Inode& inode, std::uint64_t first, std::uint64_t end)
        : inode_(inode),
          pages_(inode.pages()),
          fs_(pages_.folio_size()),
          bs_(pages_.block_size()),
          next_(first),
          end_(end) {}

    // Bytes before this are on their way or there, as they were in some moment since the pass began.
    std::uint64_t swept() const { return swept_; }

    // Inline contents had to leave the inode: they are dirty, and another pass writes them.
    bool left_inline() const { return left_inline_; }

    // Why some blocks are as dirty as they were, if that is for want of space.
    const std::optional<Error>& lacking() const { return lacking_; }

    // True when there was something to do.
    Result<bool> batch() {
        items_.clear();
        segments_.clear();
        if (!lacking_) reach_ = ~std::uint64_t{0};
        FailsUnlessFinished guard{*this};
        collect();
        if (items_.empty()) return false;
        Result<void> chosen = choose();
        if (chosen && std::ranges::any_of(segments_, [](const Segment& s) { return s.place == Place::mapped; }))
            chosen = commit_moves(inode_);
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

private:
    // Where memory runs out on the way, nobody waits for ever for what was to be written: it is dirty again.
    struct FailsUnlessFinished {
        Pass& pass;
        bool finished = false;
        ~FailsUnlessFinished() {
            if (!finished) pass.finish(true);
        }
    };

    void collect() {
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

    // Where each dirty block goes. A block past the end of the file that lives nowhere is not written.
    Result<void> choose() {
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
        return {};
    }

    bool extends_last(std::uint64_t logical) const {
        return !segments_.empty() && logical >= segments_.back().first &&
               logical < segments_.back().first + segments_.back().count;
    }

    // Dirty blocks that follow each other, from this one on.
    std::uint64_t run_length(std::size_t item, std::uint64_t slot) const {
        const std::uint64_t per = fs_ / bs_;
        std::uint64_t n = 0;
        for (;;) {
            while (slot < per && (items_[item].blocks >> slot & 1)) ++slot, ++n;
            if (slot < per || item + 1 == items_.size()) return n;
            if (items_[item + 1].folio->index != items_[item].folio->index + 1 || !(items_[item + 1].blocks & 1))
                return n;
            ++item;
            slot = 0;
        }
    }

    Result<void> choose_from(std::uint64_t logical, std::uint64_t count, std::size_t item) {
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
            const Result<Places::Granted> granted = places.grant(LogicalBlock(logical), s.count, true);
            if (!granted && granted.error().code == ENOSPC) return leave_without_space(s, granted.error());
            if (!granted) return fail(granted.error());
            s.count = granted->count;
            s.block = granted->block;
            s.place = Place::granted;
        } else if (s.place == Place::inline_data) {
            s.count = 1;
        }
        if (s.place == Place::mapped) places.note_overwrite();
        if (!segments_.empty()) {
            Segment& last = segments_.back();
            if (last.place == s.place && s.place != Place::inline_data && last.first + last.count == s.first &&
                last.block + last.count == s.block) {
                last.count += s.count;
                return {};
            }
        }
        segments_.push_back(s);
        return {};
    }

    Result<void> leave_without_space(Segment s, const Error& why) {
        lacking_ = why;
        s.result = fail(why);
        segments_.push_back(std::move(s));
        return {};
    }

    // All of them, or as many as there is space for.
    Result<void> promise_some(std::uint64_t logical, std::uint64_t count) {
        for (;; count /= 2) {
            const bool privileged = !inode_.kept_without_reserve.load();
            Result<void> promised = inode_.places().reserve(LogicalBlock(logical), count, privileged);
            if (promised || promised.error().code != ENOSPC || count == 1) return promised;
        }
    }

    std::byte* data_of(std::uint64_t logical, std::size_t item) const {
        const std::uint64_t per = fs_ / bs_, index = logical / per;
        while (items_[item].folio->index != index) ++item;
        return items_[item].folio->data + logical % per * bs_;
    }

    Result<void> write_at(const Segment& s, BlockNr block) {
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

    void write(Segment& s) {
        if (s.place == Place::inline_data || !s.result) return;
        s.result = write_at(s, s.block);
        if (!UEXT4_SEAM(failed_writes_count)) s.result = {};
    }

    // A device write failed: the same data into other blocks, once.
    void retry_elsewhere() {
        std::vector<Segment> again;
        for (Segment& s : segments_) {
            if (s.result) continue;
            if (s.place == Place::granted) retry_grant(s, again);
            else if (s.place == Place::mapped || s.place == Place::unwritten) retry_moved(s);
        }
        for (Segment& s : again) segments_.push_back(std::move(s));
        std::stable_sort(segments_.begin(), segments_.end(),
                         [](const Segment& a, const Segment& b) { return a.first < b.first; });
        inode_.fs().allocator.bound_avoided();
    }

    void retry_grant(Segment& s, std::vector<Segment>& again) {
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
    void retry_moved(Segment& s) {
        FsContext& fs = inode_.fs();
        if (fs.geometry.cluster_ratio != 1) return;
        for (std::uint64_t n = 0; n < s.count; ++n) {
            Result<Claim> tree = fs.allocator.claim(BlockMap::tree_blocks_for(1, fs.block_size(), true), true);
            if (!tree) return;
            Result<Grant> grant = fs.allocator.grant(s.block, 1, nullptr, true);
            if (!grant) return;
            Segment one{s.first + n, 1, s.place, grant->first(), s.item};
            if (Result<void> w = write_at(one, grant->first()); !w) {
                fs.allocator.avoid(std::move(*grant));
                return;
            }
            unsigned credits = 0;
            {
                MutexLock guard(inode_.map_lock);
                credits = inode_.places().credits();
            }
            Result<Handle> handle = fs.journal.start(credits + 2 * Allocator::publish_credits());
            if (!handle) return;
            MutexLock guard(inode_.map_lock);
            const BlockNr fresh = grant->first();
            if (!fs.allocator.publish(*handle, *grant)) return;
            Result<BlockNr> old = inode_.map().replace(*handle, LogicalBlock(s.first + n), fresh, &*tree);
            inode_.places().changed();
            if (!old) {
                (void)fs.allocator.free(*handle, fresh, 1);  // the bit of this handle is taken back
                return;
            }
            Result<std::shared_ptr<const void>> freed = fs.allocator.free_refused(*handle, *old);
            if (freed) inode_.places().keep_until_unused(std::move(*freed));
            if (!freed || !inode_.store(*handle)) return;
        }
        s.result = {};
    }

    // No block is named past the size on disk, which stays below the first one that failed.
    void hold_back_behind_failures() {
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
    std::uint64_t size_with(std::uint64_t unnamed) const {
        const std::uint64_t bound = std::min(reach_, unnamed > ~std::uint64_t{0} / bs_ ? reach_ : unnamed * bs_);
        return std::max(inode_.disk_size(), std::min(bound, stable_size(inode_, InFlight::arrived, swept())));
    }

    void mark_failed(const Segment& s) {
        if (s.result) return;
        const std::uint64_t per = fs_ / bs_;
        for (Item& item : items_) {
            const std::uint64_t base = item.folio->index * per;
            if (base < s.first + s.count && base + per > s.first) item.failed = true;
        }
    }

    Result<void> name() {
        bool change = false;
        unsigned credits = 0;
        {
            for (Item& item : items_)
                if (item.failed) pages_.fail_writeback(*item.folio, item.blocks);
            MutexLock guard(inode_.map_lock);
            for (const Segment& s : segments_) change = change || (s.result && s.place != Place::mapped);
            change = change || size_with(all_named) != inode_.disk_size();
            credits = inode_.places().credits() + Inode::store_credits();
        }
        if (!change) return {};
        const LogicalBlock reach = mark_written();
        Handle handle = TRY(inode_.fs().journal.start(credits));
        for (const Segment& s : segments_)
            if (s.result) TRY(name_segment(handle, s, reach, credits));
        MutexLock guard(inode_.map_lock);
        inode_.set_disk_size(size_with(all_named));
        return inode_.store(handle);
    }

    // Before the first is named: where space is short, one extent is converted with all that was written in it. Returns
    // where the last one ends.
    LogicalBlock mark_written() {
        LogicalBlock reach;
        MutexLock guard(inode_.map_lock);
        for (const Segment& s : segments_) {
            if (!s.result) continue;
            if (s.place == Place::unwritten) inode_.places().mark_written(LogicalBlock(s.first), s.count);
            reach = std::max(reach, LogicalBlock(s.first + s.count));
        }
        return reach;
    }

    Result<void> name_segment(Handle& handle, const Segment& s, LogicalBlock reach, unsigned credits) {
        if (s.place == Place::mapped) return {};
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

    Result<void> name_inline(Handle& handle, const Segment& s) {
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

    void finish(bool all_failed) {
        std::array<Folio*, 64> ended{};
        std::size_t count = 0;
        for (Item& item : items_) {
            if (item.failed) continue;  // fail_writeback() has ended it already
            if (all_failed) pages_.fail_writeback(*item.folio, item.blocks);
            else ended[count++] = item.folio;
            if (count == ended.size()) pages_.end_writeback(std::span(ended).first(std::exchange(count, 0)));
        }
        if (count != 0) pages_.end_writeback(std::span(ended).first(count));
    }

    Inode& inode_;
    FileCache& pages_;
    static constexpr std::uint64_t all_named = ~std::uint64_t{0};
    const std::uint64_t fs_, bs_;
    std::uint64_t next_, end_;
    bool left_inline_ = false;
    std::uint64_t swept_ = 0;
    // Where the file ended in a folio that was taken. What it has grown by since is in that folio as well, which this
    // pass does not see again: it ends there.
    std::uint64_t edge_ = ~std::uint64_t{0};
    // Where the first failure beyond the size on disk is: of this batch, or for want of space of any.
    std::uint64_t reach_ = ~std::uint64_t{0};
    std::optional<Error> lacking_;
    std::vector<Item> items_;
    std::vector<Segment> segments_;
};

}  // namespace

std::uint64_t stable_size(Inode& inode, InFlight in_flight, std::uint64_t swept) {
    const std::uint64_t bs = inode.fs().block_size(), fs = inode.pages().folio_size();
    const std::uint64_t on_disk = inode.disk_size(), size = inode.size();
    std::uint64_t bound = size;
    const std::uint64_t from = std::max(on_disk, swept);
    if (size > from) {
        if (auto pending = inode.places().first_pending(LogicalBlock(from / bs)))
            bound = std::min(bound, pending->value * bs);
        const auto waiting =
            in_flight == InFlight::arrived ? inode.pages().next_dirty(from / fs) : inode.pages().next_busy(from / fs);
        if (waiting) bound = std::min(bound, *waiting * fs);
        bound = std::max(bound, from);
    }
    // While the contents are in the inode, the size is what is stored there.
    return bound;
}

Result<void> store_stable_size(Handle& handle, Inode& inode, std::uint64_t swept) {
    if (!inode.is_inline() || inode.places().has_pending()) {
        inode.set_disk_size(stable_size(inode, InFlight::absent, swept));
        return inode.store(handle);
    }
    // The stored value has the size that the inode says.
    std::vector<std::byte> contents = TRY(read_inline(inode));
    inode.set_disk_size(stable_size(inode, InFlight::absent, swept));
    contents.resize(inode.disk_size());
    return write_inline(handle, inode, contents);
}

namespace {

// A file that grew while its last folio was on its way got its size on disk held back: nothing before `swept` holds it
// now. Nor does what a truncate took before it was written: where that ends in the hole before it, no pass names
// anything. One that is being deleted has lost what the size speaks of already. flush_lock held.
Result<void> settle_size(Inode& inode, std::uint64_t swept) {
    auto settled = [&] {
        const bool going = inode.deleted.load() || (inode.links() == 0 && !inode.unnamed.load());
        return going || stable_size(inode, InFlight::absent, swept) == inode.disk_size();
    };
    {
        MutexLock guard(inode.map_lock);
        if (settled()) return {};
    }
    Handle handle = TRY(inode.fs().journal.start(Inode::store_credits()));
    MutexLock guard(inode.map_lock);
    return settled() ? Result<void>() : store_stable_size(handle, inode, swept);
}

// Nothing of the file waits, is on its way, or was held back.
bool all_written(Inode& inode) {
    const std::uint64_t size = inode.size_hint();
    if (UEXT4_SEAM(syncs_await_others) ? inode.pages().next_busy(0) : inode.pages().next_dirty(0)) return false;
    MutexLock guard(inode.map_lock);
    return inode.disk_size() >= std::min(size, inode.size());
}

// One pass, and a second where inline contents left the inode during the first. flush_lock held.
Result<void> pass_over(Inode& inode, std::uint64_t first, std::uint64_t end) {
    for (;;) {
        Pass pass(inode, first, end);
        while (TRY(pass.batch())) {
        }
        if (pass.lacking()) return fail(*pass.lacking());
        if (!pass.left_inline()) return settle_size(inode, pass.swept());
    }
}

}  // namespace

Result<void> write_back(Inode& inode, std::uint64_t first, std::uint64_t end) {
    // What another pass has on its way is not there yet: flush_lock waits for it.
    const std::uint64_t fs = inode.pages().folio_size();
    if (!UEXT4_SEAM(commit_protects_by_itself)) {
        for (auto index = inode.pages().next_cached(0); index; index = inode.pages().next_cached(*index + 1)) {
            LockedFolio folio = TRY(inode.pages().lock(*index, false));
            if (folio) inode.pages().protect(folio);
        }
    }
    if (all_written(inode)) return {};
    MutexLock guard(inode.flush_lock);
    bool whole = false;
    {
        MutexLock map(inode.map_lock);
        whole = inode.is_inline();  // block 0 is named before any other
        // The size on disk stays below what is not there yet, and blocks are not named past it: what lies between goes
        // along.
        if (end > inode.disk_size()) first = std::min(first, inode.disk_size());
    }
    const std::uint64_t last = end == ~std::uint64_t{0} || whole ? ~std::uint64_t{0} : divide_up(end, fs);
    Result<void> written = pass_over(inode, whole ? 0 : first / fs, last);
    // What others have freed may be had once it is durable.
    if (!written && written.error().code == ENOSPC && inode.fs().allocator.has_space_later() &&
        inode.fs().journal.commit_all())
        written = pass_over(inode, whole ? 0 : first / fs, last);
    inode.last_writeback_failed.store(!written);
    if (written && first == 0 && end == ~std::uint64_t{0}) inode.kept_without_reserve.store(false);
    if (written) return {};
    // What has no space is still dirty, and its own sync tells as long as that is so.
    if (written.error().code == ENOSPC) return fail(ENOSPC, "inode {}: {}", inode.number(), written.error().what);
    inode.writeback_error.store(written.error().code);
    atomic_point("Inode::writeback_errors", &inode.writeback_errors);
    inode.writeback_errors.fetch_add(1);
    return fail(written.error().code, "inode {}: {}", inode.number(), written.error().what);
}

Result<void> make_room_for_dirty(Inode& inode) {
    constexpr int most_files = 64;
    PageCache& cache = inode.pages().cache();
    if (cache.dirty() > cache.background_limit()) cache.wake_flusher();
    if (cache.dirty() <= cache.dirty_limit()) return {};
    TRY(write_back(inode));
    for (int n = 0; n < most_files && cache.dirty() > cache.dirty_limit(); ++n) {
        const std::optional<std::uint64_t> number = cache.next_dirty_file();
        if (!number) return {};
        const InodeRef other = inode.table().find(InodeNr(*number));
        // What the device does not take is tried again in its time, and by who asks for it.
        if (other && !other->last_writeback_failed.load()) (void)write_back(*other);
    }
    return {};
}

}  // namespace uext4
