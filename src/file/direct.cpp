#include "base/seam.h"
#include "file/file_io.h"
#include "inode/attributes.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace uext4 {

namespace {

constexpr std::uint64_t sector = 512;

template <typename Part>
bool in_sectors(std::uint64_t offset, std::span<const Part> parts) {
    if (std::ranges::all_of(parts, &Part::empty)) return true;
    return offset % sector == 0 &&
           std::ranges::all_of(parts, [](const Part& part) { return part.size() % sector == 0; });
}

std::unexpected<Error> not_in_sectors(const Inode& inode, std::uint64_t offset, std::uint64_t length) {
    return fail(EINVAL, "inode {}: a direct request of {} bytes at {}: not in units of {}", inode.number(), length,
                offset, sector);
}

// What the device has now goes into the folios that are cached. `again`: it is written once more from there, as a
// client map may have stored to the folio since, and its writeback have overtaken the write to the device.
Result<void> refresh_cache(Inode& inode, std::uint64_t offset, ConstBytes in, bool again = false) {
    FileCache& pages = inode.pages();
    const std::uint64_t fs = pages.folio_size();
    std::uint64_t at = offset;
    const std::uint64_t end = offset + in.size();
    while (at < end) {
        const auto next = pages.next_cached(at / fs);
        if (!next || *next * fs >= end) return {};
        at = std::max(at, *next * fs);
        const std::uint64_t n = std::min(end - at, fs - at % fs);
        LockedFolio folio = TRY(pages.lock_for_change(at / fs, false));
        if (folio) {
            std::memcpy(folio->data + at % fs, in.data() + (at - offset), n);
            if (again) {
                const std::uint64_t bs = pages.block_size(), blocks = n / bs;
                const BlockMask mask = (blocks == 64 ? ~BlockMask{0} : (BlockMask{1} << blocks) - 1) << (at % fs / bs);
                folio->uptodate |= mask;
                pages.mark_dirty(folio, mask);
            }
        }
        at += n;
    }
    return {};
}

// Of the blocks that the run lies in, perhaps in a part of them only.
bool is_logged(Inode& inode, const RangeIterator& range) {
    const std::uint64_t bs = inode.fs().block_size();
    return inode.fs().logged_data_blocks.has(range.block(), divide_up(range.at() % bs + range.length(), bs));
}

bool any_cached(Inode& inode, std::uint64_t offset, std::uint64_t end) {
    const std::uint64_t fs = inode.pages().folio_size();
    const auto first = inode.pages().next_cached(offset / fs);
    return first && *first * fs < end;
}

// After a cut the file may end within a block of these, which would show behind that end what it gets in its place:
// writeback finds another. Or the log has an image of one, which a recovery would put over it. map_lock held.
Result<bool> is_not_for_place(Inode& inode, std::uint64_t offset, std::uint64_t end) {
    const std::optional<std::uint64_t> after_cut = inode.size_after_crash(offset);
    if (UEXT4_SEAM(appends_move) && after_cut && *after_cut < end) return true;
    if (!inode.fs().logged_data_blocks.has_any()) return false;
    for (RangeIterator range(inode, offset, end); TRY(range.load_locked()); range.next())
        if (range.mapping().has_block() && is_logged(inode, range)) return true;
    return false;
}

// Nobody shall go on reading what is cached of [offset, end), as the device has, or gets, something else. What is dirty
// there stays: it is written in its time.
Result<void> forget_clean(Inode& inode, std::uint64_t offset, std::uint64_t end) {
    FileCache& pages = inode.pages();
    const std::uint64_t fs = pages.folio_size();
    for (std::uint64_t index = offset / fs; index * fs < end; ++index) {
        const auto next = pages.next_cached(index);
        if (!next || *next * fs >= end) return {};
        index = *next;
        LockedFolio folio = TRY(pages.lock_for_change(index, false));
        if (folio && !folio->dirty && !folio->owner && !folio->pins) pages.remove(std::move(folio));
    }
    return {};
}

// How far a direct write has come, in bytes of the file.
struct DirectProgress {
    std::uint64_t written;       // all before it is on the device
    std::uint64_t promised = 0;  // blocks of [written, promised) were promised for this write
    bool refused = false;        // by the device, at `written`, or what is there got no names
};

// Looks at the next run, which gets a block to write to if it has none.
Result<void> look_with_block(Inode& inode, RangeIterator& range, bool may_use_reserve, DirectProgress& progress) {
    const std::uint64_t bs = inode.fs().block_size();
    const LogicalBlock first(range.at() / bs);
    MutexLock guard(inode.map_lock);
    DelallocSpace& delalloc = inode.delalloc();
    (void)TRY(range.load_locked());
    if (range.mapping().state == BlockState::hole) {
        TRY(delalloc.reserve(first, range.length() / bs, may_use_reserve));
        progress.promised = range.run_end();
        (void)TRY(range.load_locked());
    }
    if (range.mapping().state == BlockState::delayed) {
        const DelallocSpace::AllocatedRun g = TRY(delalloc.allocate(first, range.length() / bs, may_use_reserve));
        // Others look into the file meanwhile, and must not see what the device has there.
        if (UEXT4_SEAM(new_blocks_expect_data)) inode.extent_status().set_data_pending(first, first + g.count);
        (void)TRY(range.load_locked());
    }
    return {};
}

// Block-aligned bytes of [progress.written, end) to wherever they live. Inode exclusive, and Flush.
Result<void> write_blocks(Inode& inode, std::uint64_t offset, ConstBytes in, const WriteRequest& request,
                          DirectProgress& progress) {
    const std::uint64_t bs = inode.fs().block_size();
    TRY(wait_for_older_images(inode));
    for (RangeIterator range(inode, progress.written, offset + in.size()); !range.done();) {
        TRY(look_with_block(inode, range, request.may_use_reserve, progress));
        const ConstBytes data = in.subspan(range.at() - offset, range.length());
        if (Result<void> written = inode.fs().device.write(range.device_offset(), data); !written) {
            progress.refused = true;
            TRY(forget_clean(inode, range.at(), range.run_end()));
            return written;
        }
        range.next();
        progress.written = range.at();
        const MutexLock guard(inode.map_lock);
        inode.extent_status().clear_data_pending(LogicalBlock(progress.written / bs));
    }
    return {};
}

// However a write ends: nothing is on its way any more.
class Arrival {
public:
    explicit Arrival(Inode& inode) : inode_(inode) {}
    Arrival(const Arrival&) = delete;
    Arrival& operator=(const Arrival&) = delete;
    ~Arrival() {
        const MutexLock guard(inode_.map_lock);
        inode_.extent_status().clear_data_pending(LogicalBlock(~std::uint64_t{0}));
    }

private:
    Inode& inode_;
};

// What was promised and not used is given back, but for blocks that a client map has stored to since. Inode exclusive.
Result<void> give_up_promised(Inode& inode, DirectProgress& progress) {
    if (progress.promised <= progress.written) return {};
    FileCache& pages = inode.pages();
    const std::uint64_t fs = pages.folio_size(), bs = inode.fs().block_size();
    const WriteLock no_faults(pages.invalidate);
    const MutexLock no_pass(inode.flush_lock);
    for (std::uint64_t at = progress.written; at < progress.promised;) {
        const std::uint64_t end = std::min(progress.promised, (at / fs + 1) * fs);
        LockedFolio folio = TRY(pages.lock_for_change(at / fs, false));
        const MutexLock map(inode.map_lock);
        for (; at < end; at += bs) {
            const bool stored_to = folio && folio->dirty >> at % fs / bs & 1;
            if (!stored_to) inode.delalloc().release(LogicalBlock(at / bs), LogicalBlock(at / bs + 1));
        }
    }
    progress.promised = 0;
    return {};
}

Result<void> name_blocks(Inode& inode, std::uint64_t offset, std::uint64_t end) {
    const std::uint64_t bs = inode.fs().block_size();
    unsigned credits = 0;
    bool change = false;
    {
        MutexLock guard(inode.map_lock);
        credits = inode.extent_mapper().credits() + Inode::store_credits();
        for (RangeIterator range(inode, offset, end); !change && TRY(range.load_locked()); range.next())
            change = range.mapping().state != BlockState::mapped;
        change = change || stable_size(inode, WritebackData::missing, end) != inode.disk_size();
    }
    if (!change) return {};
    Handle handle = TRY(inode.fs().journal.start(credits));
    LogicalBlock at(offset / bs);
    const LogicalBlock last(divide_up(end, bs));
    while (at < last) {
        {
            MutexLock guard(inode.map_lock);
            at = TRY(inode.extent_mapper().map_range(handle, at, last.value - at.value, last));
            // All before it has been written back, and a part without a name stays outside of the file.
            const std::uint64_t there = at < last ? at.value * bs : end;
            const std::uint64_t size = stable_size(inode, WritebackData::missing, there);
            inode.set_disk_size(at < last ? std::max(inode.disk_size(), std::min(size, there)) : size);
            TRY(inode.store(handle));
        }
        if (at < last) TRY(handle.restart(credits));
    }
    return {};
}

void take_times(Inode& inode, const WriteRequest& request) {
    if (request.keep_times) return;
    MutexLock map(inode.map_lock);
    update_mtime_ctime(inode);
}

// Bytes that are on the device become the file's, in all views. Inode exclusive, and Flush.
Result<void> take_into_file(Inode& inode, std::uint64_t offset, ConstBytes in, const WriteRequest& request) {
    const std::uint64_t end = offset + in.size();
    {
        LockedFolio straddle;
        if (end > inode.size_hint()) straddle = TRY(zero_eof_folio(inode));
        MutexLock map(inode.map_lock);
        if (end > inode.size()) inode.set_size(end);
    }
    take_times(inode, request);
    const Result<void> named = name_blocks(inode, offset, end);
    TRY(refresh_cache(inode, offset, in));
    return named;
}

// Into the caller's memory, from wherever the bytes live; what is only in the cache comes from there. Inode held.
Result<std::size_t> read_places(Inode& inode, std::uint64_t offset, Bytes out) {
    const std::uint64_t size = inode.size_hint();
    if (offset >= size) return std::size_t{0};
    if (inode.is_inline()) return read_file(inode, offset, out);
    const std::uint64_t end = std::min<std::uint64_t>(offset + out.size(), size);
    std::shared_ptr<const void> in_use;
    for (RangeIterator range(inode, offset, end); !range.done(); range.next()) {
        {
            MutexLock map(inode.map_lock);
            (void)TRY(range.load_locked());
            if (UEXT4_SEAM(reads_hold_blocks) && !in_use) in_use = inode.extent_status().begin_device_io();
        }
        const BlockState place = range.mapping().state;
        const Bytes into = out.subspan(range.at() - offset, range.length());
        const bool is_elsewhere = range.mapping().reads_device() && is_logged(inode, range);
        if (place == BlockState::delayed || place == BlockState::allocated || is_elsewhere) {
            const std::size_t got = TRY(read_file(inode, range.at(), into));
            if (got < into.size()) return range.at() + got - offset;
        } else if (range.mapping().reads_device()) {
            TRY(inode.fs().device.read(range.device_offset(), into));
        } else {
            std::memset(into.data(), 0, into.size());
        }
    }
    return static_cast<std::size_t>(end - offset);
}

// For the rest of a write: what was promised and not used, and what waits for being written back and committed.
Result<void> make_room(Inode& inode, DirectProgress& progress) {
    TRY(give_up_promised(inode, progress));
    TRY(write_back(inode));
    return inode.fs().journal.commit_all();
}

// Whole blocks, to the device before it returns; cached folios follow. Inode exclusive. What is on the device counts,
// as a short write, and whoever goes on meets the error.
Result<std::size_t> write_direct_blocks(Inode& inode, std::uint64_t offset, ConstBytes in, const WriteRequest& request,
                                        DirectProgress& progress) {
    if (offset > inode.size_hint()) TRY(zero_eof_block(inode));
    TRY(write_back(inode, offset, offset + in.size()));
    const auto is_elsewhere = [&](std::uint64_t from) -> Result<bool> {
        const MutexLock map(inode.map_lock);
        return is_not_for_place(inode, from, offset + in.size());
    };
    const auto through_cache = [&]() -> Result<std::size_t> {
        const std::size_t n = TRY(write_cached(inode, offset, in, request));
        TRY(write_back(inode, offset, offset + n));
        return n;
    };
    std::size_t taken = 0;
    const auto take_what_arrived = [&]() -> Result<void> {
        const std::size_t from = std::exchange(taken, progress.written - offset);
        if (from == taken) return {};
        Result<void> into = take_into_file(inode, offset + from, in.subspan(from, taken - from), request);
        if (!into)
            progress.refused = true;  // blocks without names: the cache has the bytes, until writeback names them
        return into;
    };
    if (TRY(is_elsewhere(offset))) return through_cache();
    TRY(commit_shift(inode));
    const Arrival ends(inode);
    Result<void> written;
    {
        // No pass may name these blocks, or start on them, before the data is there.
        MutexLock flush(inode.flush_lock);
        // A pass may have been here since.
        if (TRY(is_elsewhere(offset))) {
            flush.unlock();
            return through_cache();
        }
        written = write_blocks(inode, offset, in, request, progress);
        // All views show it before anybody may store to it, or write back what was stored.
        if (written || UEXT4_SEAM(parts_show_first)) TRY(take_what_arrived());
        if (!written && written.error().code == ENOSPC && !progress.refused) {
            flush.unlock();
            const Result<void> made = make_room(inode, progress);
            flush.lock();
            const Result<bool> elsewhere = made ? is_elsewhere(progress.written) : fail(made.error());
            if (elsewhere && *elsewhere && taken == 0) {
                flush.unlock();
                return through_cache();
            }
            if (!elsewhere) written = fail(elsewhere.error());
            else if (!*elsewhere) written = write_blocks(inode, offset, in, request, progress);
            TRY(take_what_arrived());
        }
    }
    // Of a short write whoever goes on meets what is wrong.
    if (!written)
        if (const Result<void> given = give_up_promised(inode, progress); taken == 0) TRY(given);
    if (taken == 0) TRY(written);
    return taken;
}

}  // namespace

Result<void> check_direct_read(Inode& inode, std::uint64_t offset, std::span<const Bytes> parts) {
    if (in_sectors(offset, parts) || inode.journals_data() || inode.is_inline()) return {};
    std::uint64_t end = offset;
    for (const Bytes& part : parts) end += part.size();
    if (offset >= inode.size_hint()) return {};
    TRY(write_back(inode, offset, end));
    ReadLock guard(inode.rw);
    for (const Bytes& part : parts) {
        // Also beyond the end of the file, as far as the last block goes.
        RangeIterator range(inode, offset, offset + part.size());
        for (; TRY(range.load()); range.next()) {
            const bool has_data =
                range.mapping().state != BlockState::hole && range.mapping().state != BlockState::unwritten;
            if (has_data && (range.at() | range.length()) % sector != 0)
                return not_in_sectors(inode, range.at(), range.length());
        }
        offset = range.end();
    }
    return {};
}

Result<void> check_direct_write(const Inode& inode, std::uint64_t offset, std::span<const ConstBytes> parts) {
    if (in_sectors(offset, parts) || inode.journals_data() || inode.is_inline()) return {};
    std::uint64_t length = 0;
    for (const ConstBytes& part : parts) length += part.size();
    return not_in_sectors(inode, offset, length);
}

Result<std::size_t> read_direct(Inode& inode, std::uint64_t offset, Bytes out) {
    if (inode.journals_data()) return read_file(inode, offset, out);
    if (UEXT4_SEAM(direct_reads_write_back)) TRY(write_back(inode, offset, offset + out.size()));
    // It may have become a journaled file meanwhile, and does not from here on.
    ReadLock guard(inode.rw);
    return inode.journals_data() ? read_file(inode, offset, out) : read_places(inode, offset, out);
}

Result<std::size_t> read_uncached(Inode& inode, std::uint64_t offset, Bytes out) {
    if (out.size() >= min_uncached_read && offset % inode.fs().block_size() == 0) {
        // Writers are kept out, so what is not cached now stays so; and so is who makes it a journaled file.
        UniqueReadLock guard;
        if (UEXT4_SEAM(reads_around_are_locked)) guard = UniqueReadLock(inode.rw);
        if (!inode.journals_data() && !any_cached(inode, offset, offset + out.size()))
            return read_places(inode, offset, out);
    }
    return read_file(inode, offset, out);
}

Result<std::size_t> read_cached_or_uncached(Inode& inode, std::uint64_t offset, Bytes out) {
    if (out.size() < min_uncached_read) return read_file(inode, offset, out);
    const PageCache& cache = inode.pages().cache();
    const std::uint64_t most = cache.limit();
    const bool fits = inode.size_hint() <= most || cache.used_bytes() + out.size() <= most;
    return fits ? read_file(inode, offset, out) : read_uncached(inode, offset, out);
}

Result<std::size_t> write_direct_blocks(Inode& inode, std::uint64_t offset, ConstBytes in,
                                        const WriteRequest& request) {
    DirectProgress progress{offset};
    return write_direct_blocks(inode, offset, in, request, progress);
}

Result<bool> overwrite_direct_blocks(Inode& inode, std::uint64_t offset, ConstBytes in) {
    const std::uint64_t end = offset + in.size();
    if (end > inode.size_hint()) return false;
    if (!UEXT4_SEAM(overwrites_look_last) && any_cached(inode, offset, end)) return false;
    TRY(commit_shift(inode));
    // A client map may bring a folio while the data is on its way, and the folio be gone again: written back over the
    // data with what was there before, or to other blocks, as the device did not take these.
    std::shared_ptr<const void> in_use;
    std::uint64_t overwrites = 0;
    RangeIterator range(inode, offset, end);
    {
        MutexLock map(inode.map_lock);
        (void)TRY(range.load_locked());
        if (range.mapping().state != BlockState::mapped || range.run_end() < end || end > inode.disk_size())
            return false;
        if (TRY(is_not_for_place(inode, offset, end))) return false;
        in_use = inode.extent_status().begin_device_io();
        overwrites = inode.extent_status().overwrite_count();
    }
    // Asked after that: a folio whose data has begun on its way before it is still there, or its data has arrived.
    if (UEXT4_SEAM(overwrites_look_last) && any_cached(inode, offset, end)) return false;
    TRY(inode.fs().device.write(range.device_offset(), in));
    // A reader or a client map may have begun before.
    if (UEXT4_SEAM(overwrites_refresh)) TRY(refresh_cache(inode, offset, in, true));
    MutexLock map(inode.map_lock);
    const bool moved = TRY(range.has_moved_locked())
    || inode.extent_status().overwrite_count() != overwrites;
    return !(UEXT4_SEAM(overwrites_compare) && moved) && end <= inode.disk_size();
}

Result<bool> try_overwrite_direct(Inode& inode, std::uint64_t offset, ConstBytes in, const WriteRequest& request) {
    const std::uint64_t bs = inode.fs().block_size();
    if (in.empty() || offset % bs != 0 || in.size() % bs != 0) return false;
    ReadLock guard(inode.rw);
    // Whoever has bits to lose goes the long way, which finds out.
    if (request.credentials && !inode.nosec.load(std::memory_order_relaxed)) return false;
    if (inode.journals_data() || inode.is_inline()) return false;
    TRY(check_write_allowed(inode, request));
    TRY(forget_clean(inode, offset, offset + in.size()));
    // What fails goes the long way, which finds other blocks.
    if (const Result<bool> done = overwrite_direct_blocks(inode, offset, in); !done || !*done) return false;
    take_times(inode, request);
    return true;
}

Result<std::size_t> write_direct(Inode& inode, std::uint64_t offset, ConstBytes in, const WriteRequest& request) {
    WriteLock guard(inode.rw);
    TRY(check_write_allowed(inode, request));
    const std::uint64_t limit = max_file_size(inode), bs = inode.fs().block_size();
    if (offset >= limit) return fail(EFBIG, "inode {}: offset {} is beyond {} bytes", inode.number(), offset, limit);
    in = in.first(std::min<std::uint64_t>(in.size(), limit - offset));
    if (in.empty()) return std::size_t{0};
    if (request.credentials) TRY(file_remove_privs(inode, *request.credentials));
    if (!inode.journals_data() && !inode.is_inline() && offset % bs == 0 && in.size() % bs == 0) {
        DirectProgress progress{offset};
        Result<std::size_t> written = write_direct_blocks(inode, offset, in, request, progress);
        if (written || !progress.refused) return written;
        // Writeback tries other blocks.
    }
    const std::size_t n = TRY(write_cached(inode, offset, in, request));
    TRY(write_back(inode, offset, offset + n));
    return n;
}

}  // namespace uext4
