#include "base/seam.h"
#include "file/file_io.h"
#include "inode/attributes.h"
#include "inode/inline_area.h"
#include "inode/own_inode.h"
#include "sync/atomic_point.h"

#include <algorithm>
#include <cstring>

namespace uext4 {

namespace {

constexpr std::uint64_t largest_window = 256;  // folios read ahead at most
constexpr std::uint64_t first_window = 4;

struct Piece {
    std::uint64_t device_offset;
    Bytes into;
    BlockNr block;
};

// Splits the not up-to-date blocks of the folio into device reads and zeros.
Result<void> plan_folio(Inode& inode, LockedFolio& folio, std::vector<Piece>& pieces) {
    const std::uint64_t bs = inode.fs().block_size(), fs = folio->file->folio_size();
    const std::uint64_t start = folio->index * fs;
    MutexLock guard(inode.map_lock);
    for (RangeIterator range(inode, start, start + fs); !range.done();) {
        if (folio->uptodate >> ((range.at() - start) / bs) & 1) {
            range.go_to(range.at() + bs);
            continue;
        }
        (void)TRY(range.look_held());
        for (const std::uint64_t run_end = range.run_end(); range.at() < run_end; range.go_to(range.at() + bs)) {
            const std::uint64_t where = range.at() - start;
            if (folio->uptodate >> (where / bs) & 1) continue;
            Bytes into(folio->data + where, bs);
            if (range.run().place == Place::inline_data) {
                const std::vector<std::byte> contents = TRY(read_inline(inode));
                std::memset(into.data(), 0, bs);
                std::memcpy(into.data(), contents.data(), std::min<std::size_t>(contents.size(), bs));
            } else if (range.run().reads_device()) {
                pieces.push_back({range.device_offset(), into, range.block()});
            } else {
                std::memset(into.data(), 0, bs);
            }
        }
    }
    return {};
}

Result<void> read_pieces(Inode& inode, std::vector<Piece> pieces) {
    // Asked before the device is: what is not in the journal by now is home, but what is may get there, and out of the
    // journal, while the device is being read.
    if (inode.data_in_journal() || inode.fs().logged_blocks.any())
        std::erase_if(pieces, [&](const Piece& piece) { return read_from_journal(inode, piece.block, piece.into); });
    std::vector<Bytes> parts;
    for (std::size_t i = 0; i < pieces.size();) {
        parts.clear();
        std::uint64_t next = pieces[i].device_offset;
        std::size_t j = i;
        while (j < pieces.size() && pieces[j].device_offset == next) {
            parts.push_back(pieces[j].into);
            next += pieces[j].into.size();
            ++j;
        }
        if (Result<void> r = inode.fs().device.readv(pieces[i].device_offset, parts); !r)
            return fail(r.error().code, "inode {}: block {}: {}", inode.number(), pieces[i].block, r.error().what);
        i = j;
    }
    return {};
}

// What lies past the end of the file reads as zeros once the file grows, whatever the device holds there.
void finish_folio(Inode& inode, LockedFolio& folio) {
    const std::uint64_t fs = folio->file->folio_size(), start = folio->index * fs;
    const std::uint64_t blocks = fs / inode.fs().block_size();
    atomic_point("Inode::size", &inode);
    const std::uint64_t size = inode.size_hint();
    if (UEXT4_SEAM(zeroes_tails) && size > start && size < start + fs) {
        // Blocks that were up to date before have their zeros, and a commit may be copying them. The others are as the
        // device has them, also where blocks beside them are dirty or in a transaction.
        const std::uint64_t bs = fs / blocks;
        for (std::uint64_t block = (size - start) / bs; block < blocks; ++block) {
            if ((folio->uptodate >> block & 1) != 0) continue;
            const std::uint64_t from = std::max(block * bs, size - start);
            std::memset(folio->data + from, 0, (block + 1) * bs - from);
        }
    }
    folio->uptodate = blocks == 64 ? ~BlockMask{0} : (BlockMask{1} << blocks) - 1;
}

// Fills a folio, and up to count - 1 behind it that are not cached, in as few requests as possible. The error of one
// behind it is left to who asks for that. Invalidate held.
Result<void> fill_many(Inode& inode, LockedFolio& first, std::uint64_t count) {
    FileCache& pages = inode.pages();
    const std::uint64_t index = first->index;
    std::vector<Piece> pieces;
    const auto plan = [&](LockedFolio& folio) -> Result<void> {
        TRY(plan_folio(inode, folio, pieces));
        if (UEXT4_SEAM(mapping_is_fresh)) return {};
        const std::uint64_t again = folio->index;
        folio.unlock();
        folio = TRY(pages.lock(again, true));
        return {};
    };
    TRY(plan(first));
    std::vector<LockedFolio> behind;
    while (behind.size() + 1 < count) {
        Result<LockedFolio> folio = pages.lock(index + 1 + behind.size(), true);
        if (!folio || folio_is_full(*folio)) break;
        const std::size_t planned = pieces.size();
        if (!plan(*folio)) {
            pieces.erase(pieces.begin() + static_cast<std::ptrdiff_t>(planned), pieces.end());
            break;
        }
        behind.push_back(std::move(*folio));
    }
    if (const Result<void> read = read_pieces(inode, std::move(pieces)); read) {
        finish_folio(inode, first);
        for (LockedFolio& folio : behind) {
            finish_folio(inode, folio);
            inode.pages().mark_ahead(folio);
        }
        return {};
    } else if (behind.empty()) {
        return read;
    }
    TRY(fill_folio(inode, first));
    for (LockedFolio& folio : behind)
        if (!fill_folio(inode, folio)) break;
    return {};
}

// How many folios to read at a miss at `index`, in a request that begins at `first` and wants so many more: these, and
// more when the reader goes forward.
std::uint64_t window_for(Inode& inode, std::uint64_t first, std::uint64_t index, std::uint64_t wanted,
                         std::uint64_t end_index, ReadStreams::Reader reader) {
    std::uint64_t window = wanted;
    const std::uint64_t limit = std::max<std::uint64_t>(
        1, std::min(largest_window, inode.pages().cache().limit() / 8 / inode.pages().folio_size()));
    if (const std::optional<std::uint64_t> last = inode.readers.expected(first, reader)) {
        const std::uint64_t most = inode.readers.most(*last, largest_window, inode.pages().take_read_in_vain());
        window = std::max(wanted, std::min(std::max({*last, wanted, first_window / 2}) * 2, most));
    }
    return std::max<std::uint64_t>(1, std::min({window, limit, end_index - index}));
}

}  // namespace

bool folio_is_full(const LockedFolio& folio) {
    const std::uint64_t blocks = folio->file->folio_size() / folio->file->block_size();
    return folio->uptodate == (blocks == 64 ? ~BlockMask{0} : (BlockMask{1} << blocks) - 1);
}

Result<std::uint64_t> fill_ahead(Inode& inode, LockedFolio& folio) {
    if (folio_is_full(folio)) return std::uint64_t{0};
    const std::uint64_t index = folio->index, end = divide_up(inode.size_hint(), inode.pages().folio_size());
    const std::uint64_t window =
        window_for(inode, index, index, 1, std::max(end, index + 1), ReadStreams::Reader::of_pages);
    TRY(fill_many(inode, folio, window));
    return window;
}

Result<void> fill_folio(Inode& inode, LockedFolio& folio) {
    if (folio_is_full(folio)) return {};
    std::vector<Piece> pieces;
    TRY(plan_folio(inode, folio, pieces));
    TRY(read_pieces(inode, std::move(pieces)));
    finish_folio(inode, folio);
    return {};
}

Result<std::size_t> read_file(Inode& inode, std::uint64_t offset, Bytes out) {
    const std::uint64_t size = inode.size_hint();
    if (offset >= size || out.empty()) return std::size_t{0};
    const std::size_t total = std::min<std::uint64_t>(out.size(), size - offset);
    FileCache& pages = inode.pages();
    const std::uint64_t fs = pages.folio_size(), end_index = divide_up(size, fs);
    const std::uint64_t first = offset / fs;
    std::uint64_t window = 0;
    std::size_t done = 0;
    while (done < total) {
        const std::uint64_t at = offset + done, index = at / fs, inside = at % fs;
        const std::size_t n = std::min<std::uint64_t>(total - done, fs - inside);
        bool missing = false;
        {
            LockedFolio folio = TRY(pages.lock(index, false));
            if (folio && folio_is_full(folio)) std::memcpy(out.data() + done, folio->data + inside, n);
            else missing = true;
        }
        if (missing) {
            if (pages.cache().is_crowded()) pages.cache().reclaim();
            ReadLock guard(pages.invalidate);
            const std::uint64_t wanted = divide_up(inside + (total - done), fs);
            window =
                window_for(inode, first, index, wanted, std::max(end_index, index + 1), ReadStreams::Reader::of_bytes);
            LockedFolio folio = TRY(pages.lock(index, true));
            if (folio_is_full(folio)) continue;
            TRY(fill_many(inode, folio, window));
            continue;
        }
        done += n;
    }
    inode.readers.note(first, divide_up(offset + done, fs), window);
    return done;
}

namespace {

bool is_atime_due(const Inode& inode, const format::Timestamp& now) UEXT4_REQUIRES(inode.map_lock) {
    const FsContext& fs = inode.fs();
    if (fs.read_only.load() || fs.options.atime == AtimePolicy::never || inode.has_flag(format::inode_flag::noatime))
        return false;
    if (is_own(inode)) return false;
    if (inode.is_directory() && fs.options.nodiratime) return false;
    if (fs.options.atime == AtimePolicy::strict) return true;
    const format::Timestamp a = inode.atime();
    return a <= inode.mtime() || a <= inode.ctime() || now.sec - a.sec >= 24 * 3600;
}

}  // namespace

bool read_moves_atime(Inode& inode) {
    const format::Timestamp now = current_time(inode.fs());
    MutexLock guard(inode.map_lock);
    return is_atime_due(inode, now);
}

void touch_atime(Inode& inode) {
    const format::Timestamp now = current_time(inode.fs());
    MutexLock guard(inode.map_lock);
    if (!is_atime_due(inode, now) || inode.atime() == now) return;
    inode.set_atime(now);
    inode.note_times_pending();
}

}  // namespace uext4
