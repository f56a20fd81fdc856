#include "base/seam.h"
#include "file/file_io.h"
#include "inode/attributes.h"
#include "inode/inline_data.h"

#include <algorithm>
#include <cstring>
#include <ctime>

namespace uext4 {

namespace {

constexpr int space_attempts = 3;

BlockMask blocks_of(std::uint64_t from, std::uint64_t to, std::uint64_t bs) {
    const std::uint64_t first = from / bs, last = (to - 1) / bs;
    BlockMask mask = 0;
    for (std::uint64_t b = first; b <= last; ++b) mask |= BlockMask{1} << b;
    return mask;
}

// What frees space that is only pending: data out, then a commit. Inode is held, nothing below it. False where nothing
// came back since `given_back`, and nothing will; what the whole file system has is the caller's caller's to wait for.
bool make_room(Inode& inode, std::uint64_t given_back) {
    const Allocator& space = inode.fs().allocator;
    // What was freed and is in the file again may be zeroed when that is durable.
    const bool waits = inode.journals_data() && inode.fs().journal.has_uncommitted_frees();
    if (!space.has_pending_free() && !waits) return space.free_count_generation() != given_back;
    (void)write_back(inode);
    return inode.fs().journal.commit_all().has_value();
}

std::uint64_t less(std::uint64_t from, std::uint64_t taken) { return from - std::min(from, taken); }

// What has no space must leave the cache to what has some; and one file that takes much, a little to others. Bytes.
std::uint64_t room_beyond(const FileCache& pages) {
    constexpr std::uint64_t little = 256 << 10;
    // What is being written back may find no space and be dirty again.
    const std::uint64_t most = pages.cache().dirty_limit() / 2,
                        now = pages.cache().dirty_bytes() + pages.cache().writeback_bytes(),
                        of_this = pages.dirty_or_writeback_folios() * pages.folio_size();
    return std::max(std::min(less(most + most / 2, now), less(std::min(little, most / 8), of_this)),
                    std::min(less(most, now), less(most / 4, of_this)));
}

bool may_go_beyond_space(const FileCache& pages) { return room_beyond(pages) != 0; }

// The part of a cached write that holds the folio. `inside`..`inside + n` in the folio.
Result<void> write_in_folio(Inode& inode, std::uint64_t index, std::uint64_t inside, ConstBytes in,
                            const WriteRequest& request) {
    FileCache& pages = inode.pages();
    const std::uint64_t fs = pages.folio_size(), bs = pages.block_size();
    const std::uint64_t start = index * fs, end = start + inside + in.size();
    // The folio in which the file ends stays locked until the file has grown; it may be this one.
    const std::uint64_t old_size = inode.size_hint();
    const bool grows = end > old_size && old_size % fs != 0;
    LockedFolio straddle;
    if (grows && old_size / fs != index) straddle = TRY(zero_eof_folio(inode));
    LockedFolio folio = TRY(pages.lock_for_change(index, true));
    if (grows && old_size / fs == index) zero_past_end(pages, folio, old_size);
    const BlockMask touched = blocks_of(inside, inside + in.size(), bs);
    // Blocks written in part need their old contents first.
    const bool head = inside % bs != 0, tail = (inside + in.size()) % bs != 0 && end < inode.size_hint();
    const BlockMask head_bit = BlockMask{1} << (inside / bs),
                    tail_bit = BlockMask{1} << ((inside + in.size() - 1) / bs);
    if ((head && !(folio->uptodate & head_bit)) || (tail && !(folio->uptodate & tail_bit))) {
        TRY(fill_folio(inode, folio));
    } else {
        // A block that is written from its start and past the end of the file: zeros behind.
        if ((inside + in.size()) % bs != 0 && !(folio->uptodate & tail_bit)) {
            const std::uint64_t block_end = round_up(inside + in.size(), bs);
            std::memset(folio->data + inside + in.size(), 0, block_end - (inside + in.size()));
        }
    }
    const bool journaled = inode.journals_data();
    Handle handle;
    if (journaled) {
        unsigned credits = 0;
        {
            MutexLock guard(inode.map_lock);
            credits = inode.extent_mapper().credits();
        }
        handle = TRY(
            inode.fs().journal.start(credits * static_cast<unsigned>(fs / bs) + static_cast<unsigned>(fs / bs) + 4));
    }
    const std::uint64_t first = (start + inside) / bs, count = divide_up(end, bs) - first;
    {
        MutexLock guard(inode.map_lock);
        if (journaled) TRY(inode.get_write_access(handle));  // what cannot be stored is met before the contents change
        const bool stays_inline =
            inode.is_inline() && !inode.extent_status().has_pending() && end <= max_inline_size(inode);
        if (!stays_inline) {
            if (journaled) {
                TRY(inode.extent_mapper().allocate_for_journaled_data(handle, LogicalBlock(first), count,
                                                                      request.may_use_reserve));
            } else {
                Result<void> promised = inode.delalloc().reserve(LogicalBlock(first), count, request.may_use_reserve);
                const bool taken_anyway = !promised && promised.error().code == ENOSPC && request.may_exceed_space &&
                                          may_go_beyond_space(pages);
                if (!taken_anyway) TRY(promised);
                else if (!request.may_use_reserve) inode.has_unreserved_data.store(true);
            }
        }
        std::memcpy(folio->data + inside, in.data(), in.size());
        folio->uptodate |= touched;
        if (!request.keep_times) update_mtime_ctime(inode);
        // Dirty before the file grows: an fsync in between would let the size on disk run ahead of the bytes.
        if (!journaled) pages.mark_dirty(folio, touched);
        if (end > inode.size()) inode.set_size(end);
        if (journaled) {
            if (inode.is_inline()) {
                // Inline contents are metadata: they go with this handle.
                TRY(write_inline_data(handle, inode, ConstBytes(folio->data, inode.size())));
            }
            inode.set_disk_size(stable_size(inode));
            TRY(inode.store(handle));
        }
    }
    if (journaled) {
        if (!UEXT4_SEAM(joins_under_folio)) {
            folio.unlock();
            folio = TRY(pages.lock(index, true));
        }
        if (!inode.is_inline()) return journal_folio_blocks(handle, inode, folio, touched);
    }
    return {};
}

// Whole folios that follow each other are locked, promised and marked together. How many bytes were written: none where
// each folio is to be taken alone, as the contents are journaled or in the inode, or space is short.
Result<std::size_t> write_run(Inode& inode, std::uint64_t index, ConstBytes in, const WriteRequest& request) {
    if (inode.journals_data()) return std::size_t{0};
    FileCache& pages = inode.pages();
    const std::uint64_t fs = pages.folio_size(), bs = pages.block_size();
    const std::uint64_t start = index * fs, old_size = inode.size_hint();
    // The folio in which the file ends stays locked until the file has grown. In the run, it is written as a whole.
    LockedFolio straddle;
    if (start > old_size && old_size % fs != 0) straddle = TRY(zero_eof_folio(inode));
    LockedFolioRange run = TRY(pages.lock_range_for_change(index, in.size() / fs));
    const std::size_t bytes = run.size() * fs;
    MutexLock guard(inode.map_lock);
    if (inode.is_inline() || !inode.delalloc().reserve(LogicalBlock(start / bs), bytes / bs, request.may_use_reserve))
        return std::size_t{0};
    const BlockMask all = blocks_of(0, fs, bs);
    for (std::size_t i = 0; i < run.size(); ++i) {
        Folio& folio = *run.folios()[i];
        std::memcpy(folio.data, in.data() + i * fs, fs);
        folio.uptodate |= all;
    }
    if (!request.keep_times) update_mtime_ctime(inode);
    // Dirty before the file grows, as above.
    pages.mark_dirty(run, all);
    if (start + bytes > inode.size()) inode.set_size(start + bytes);
    return bytes;
}

}  // namespace

std::uint64_t inode_unreserved_dirty_bytes(Inode& inode) {
    if (inode.journals_data()) return 0;
    if (const std::uint64_t room = room_beyond(inode.pages())) return room;
    (void)write_back(inode);  // what has space does not count
    return room_beyond(inode.pages());
}

std::uint64_t max_file_size(const Inode& inode) {
    const auto& g = inode.fs().geometry;
    return inode.will_use_extents() ? g.max_extent_file_size : g.max_indirect_file_size;
}

Result<void> convert_inline_to_blocks(Inode& inode, bool may_use_reserve, std::uint64_t next, bool beyond_space) {
    bool empty = false;
    {
        MutexLock guard(inode.map_lock);
        if (!inode.is_inline()) return {};
        empty = inode.size() == 0 && !inode.extent_status().has_pending();
    }
    if (empty && next >= inode.fs().block_size()) {
        Handle handle = TRY(inode.fs().journal.start(Inode::store_credits()));
        MutexLock guard(inode.map_lock);
        return clear_inline_data(handle, inode);
    }
    LockedFolio folio = TRY(inode.pages().lock_for_change(0, true));
    TRY(fill_folio(inode, folio));
    if (inode.journals_data()) {
        unsigned credits = 0;
        {
            MutexLock guard(inode.map_lock);
            credits = inode.extent_mapper().credits();
        }
        Handle handle = TRY(inode.fs().journal.start(credits + 4));
        {
            MutexLock guard(inode.map_lock);
            if (!inode.is_inline()) return {};
            TRY(inode.extent_mapper().allocate_for_journaled_data(handle, LogicalBlock(0), 1, may_use_reserve));
            TRY(inode.store(handle));
        }
        TRY(journal_folio_blocks(handle, inode, folio, 1));
        // Stores through a map to contents in the inode had made it dirty: from now on they are the transaction's.
        inode.pages().clear_dirty(folio, ~BlockMask{0});
        return {};
    }
    {
        MutexLock guard(inode.map_lock);
        if (!inode.is_inline()) return {};
        const bool may_lack = beyond_space && may_go_beyond_space(inode.pages());
        TRY(inode.delalloc().reserve_inline_block(may_use_reserve, may_lack));
    }
    inode.pages().mark_dirty(folio, 1);
    return {};
}

Result<std::size_t> write_cached(Inode& inode, std::uint64_t offset, ConstBytes in, const WriteRequest& request) {
    FileCache& pages = inode.pages();
    PageCache& cache = pages.cache();
    const std::uint64_t fs = pages.folio_size();
    bool inline_now = false;
    std::uint64_t capacity = 0;
    {
        MutexLock guard(inode.map_lock);
        inline_now = inode.is_inline();
        if (inline_now) capacity = max_inline_size(inode);
    }
    if (inline_now && offset + in.size() > capacity)
        // Its first block would be looked for without regard to the reserve.
        TRY(convert_inline_to_blocks(inode, request.may_use_reserve, offset,
                                     request.may_exceed_space && request.may_use_reserve));
    // A write that begins in the last block writes all of it.
    const std::uint64_t bs = pages.block_size(), size = inode.size_hint();
    if (offset > size && offset / bs != size / bs) TRY(zero_eof_block(inode));
    std::size_t done = 0;
    int attempts = 0;
    while (done < in.size()) {
        if (Result<void> room = balance_dirty(inode); !room) {
            if (done) return done;
            return fail(room.error());
        }
        if (cache.needs_reclaim()) cache.reclaim();
        const std::uint64_t at = offset + done, inside = at % fs;
        const std::size_t n = std::min<std::uint64_t>(in.size() - done, fs - inside);
        if (inside == 0 && in.size() - done >= 2 * fs) {
            const std::size_t whole =
                std::min<std::uint64_t>((in.size() - done) / fs, LockedFolioRange::max_folios_for_change) * fs;
            const Result<std::size_t> written = write_run(inode, at / fs, in.subspan(done, whole), request);
            if (!written) {
                if (done) return done;
                return fail(written.error());
            }
            done += *written;
            if (*written != 0) continue;
        }
        const std::uint64_t given_back = inode.fs().allocator.free_count_generation();
        Result<void> r = write_in_folio(inode, at / fs, inside, in.subspan(done, n), request);
        if (!r && r.error().code == ENOSPC && attempts++ < space_attempts && make_room(inode, given_back)) continue;
        if (!r) {
            if (done) return done;
            return fail(r.error());
        }
        done += n;
    }
    return done;
}

// Also by a descriptor that was open when the flag was set. What a mount's kernel writes back was written before.
Result<void> check_write_allowed(const Inode& inode, const WriteRequest& request) {
    if (!request.keep_times && inode.has_flag(format::inode_flag::immutable))
        return fail(EPERM, "inode {} is immutable", inode.number());
    return {};
}

namespace {

// Who caches the file lets everybody write who has it open, at any place (through a map, say). So of a file that only
// grows the bytes that are there stay. But zeros: what is written back out of order fills them later.
Result<void> check_only_appends(Inode& inode, std::uint64_t offset, ConstBytes in) {
    constexpr std::size_t piece = std::size_t{64} << 10;
    const std::uint64_t size = inode.size_hint();
    std::vector<std::byte> there(std::min(piece, in.size()));
    for (std::uint64_t at = offset; at < std::min(size, offset + in.size());) {
        const std::size_t n = std::min<std::uint64_t>(there.size(), offset + in.size() - at);
        const std::size_t count = TRY(read_file(inode, at, Bytes(there).first(n)));
        if (count == 0) break;
        for (std::size_t i = 0; i < count; ++i)
            if (there[i] != in[at + i - offset] && there[i] != std::byte{0})
                return fail(EPERM, "inode {} is append-only: byte {} would change", inode.number(), at + i);
        at += count;
    }
    return {};
}

}  // namespace

Result<Written> write_file(Inode& inode, std::uint64_t offset, ConstBytes in, const WriteRequest& request) {
    WriteLock guard(inode.rw);
    TRY(check_write_allowed(inode, request));
    if (request.append) offset = inode.size_hint();
    const std::uint64_t limit = max_file_size(inode);
    if (in.empty()) return Written{offset, 0};
    if (offset >= limit)
        return fail(EFBIG, "inode {}: offset {} is beyond the largest file of {} bytes", inode.number(), offset, limit);
    in = in.first(std::min<std::uint64_t>(in.size(), limit - offset));
    if (request.bypasses_cache && inode.has_flag(format::inode_flag::append)) {
        if (Result<void> grows = check_only_appends(inode, offset, in); !grows) {
            // What others have appended comes in the same piece.
            const std::uint64_t size = inode.size_hint();
            if (grows.error().code == EPERM && offset + in.size() > size)
                (void)TRY(write_cached(inode, size, in.subspan(size - offset), request));
            return fail(grows.error());
        }
    }
    if (request.credentials) TRY(file_remove_privs(inode, *request.credentials));
    const std::uint64_t bs = inode.fs().block_size();
    std::size_t around = 0;
    // Where a commit would be waited for, the cache has it until a sync needs that one.
    if (request.bypasses_cache && offset % bs == 0 && in.size() % bs == 0 && !inode.journals_data() &&
        !inode.is_inline() && shift_is_durable(inode)) {
        // What fails goes through the cache, which tries other blocks and takes what there is room for.
        if (in.size() >= min_uncached_read) {
            if (Result<std::size_t> count = write_direct_blocks(inode, offset, in, request)) around = *count;
        } else if (const Result<bool> done = overwrite_direct_blocks(inode, offset, in); done && *done) {
            around = in.size();
        }
    }
    if (around == in.size()) return Written{offset, around};
    const Result<std::size_t> count = write_cached(inode, offset + around, in.subspan(around), request);
    if (!count && around == 0) return fail(count.error());
    return Written{offset, around + count.value_or(0)};
}

}  // namespace uext4
