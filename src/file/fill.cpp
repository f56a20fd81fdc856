#include "file/fill.h"

#include "base/seam.h"
#include "file/file_io.h"
#include "inode/inline_data.h"
#include "inode/range_iterator.h"
#include "sync/atomic_point.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <span>
#include <utility>
#include <vector>

namespace uext4 {

namespace {

using Folios = std::span<Folio* const>;  // one after the other in the file, locked

BlockMask all_blocks(const Inode& inode) {
    const std::uint64_t blocks = inode.fs().pages.folio_size() / inode.fs().block_size();
    return blocks == 64 ? ~BlockMask{0} : (BlockMask{1} << blocks) - 1;
}

// A part of the range that lives in one place: on the device, in the inode, or nowhere (zeros).
struct Piece {
    std::uint64_t at, length;
    bool on_device = false;
    std::uint64_t device_offset = 0;
    BlockNr block;
    std::vector<std::byte> contents;  // from the inode, whose bytes begin at `at`
};

// What the range [at, end) is read from. Where the map cannot be read, what lies before that, and the error.
Result<void> plan(Inode& inode, std::uint64_t at, std::uint64_t end, std::vector<Piece>& pieces) {
    MutexLock guard(inode.map_lock);
    for (RangeIterator range(inode, at, end); TRY(range.load_locked()); range.next()) {
        Piece piece{range.at(), range.length(), false, 0, BlockNr(), {}};
        if (range.mapping().state == BlockState::inline_data) {
            piece.contents = TRY(read_inline_data(inode));
        } else if (range.mapping().reads_device()) {
            piece.on_device = true;
            piece.device_offset = range.device_offset();
            piece.block = range.block();
        }
        pieces.push_back(std::move(piece));
    }
    return {};
}

// The blocks of the folio that are not up to date.
Result<void> plan_folio(Inode& inode, const Folio& folio, std::vector<Piece>& pieces) {
    const std::uint64_t bs = inode.fs().block_size(), fs = inode.pages().folio_size(), start = folio.index * fs;
    const auto is_there = [&](std::uint64_t at) {
        return at < start + fs && (folio.uptodate >> ((at - start) / bs) & 1);
    };
    for (std::uint64_t at = start; at < start + fs;) {
        std::uint64_t end = at + bs;
        if (!is_there(at)) {
            while (end < start + fs && !is_there(end)) end += bs;
            TRY(plan(inode, at, end, pieces));
        }
        at = end;
    }
    return {};
}

// Memory of the folios, by bytes of the file.
class Memory {
public:
    Memory(Folios folios, std::uint64_t folio_size)
        : folios_(folios), fs_(folio_size), start_(folios.front()->index * folio_size) {}
    std::uint64_t end() const { return start_ + folios_.size() * fs_; }
    // Calls `use` for each part of [at, at + length) that lies together.
    template <class Use>
    void each(std::uint64_t at, std::uint64_t length, Use use) const {
        for (const std::uint64_t last = at + length; at < last;) {
            const std::size_t first = (at - start_) / fs_;
            std::byte* const from = folios_[first]->data + at % fs_;
            std::uint64_t n = fs_ - at % fs_;
            for (std::size_t next = first + 1; at + n < last && folios_[next]->data == from + n; ++next) n += fs_;
            n = std::min(n, last - at);
            use(at, Bytes(from, n));
            at += n;
        }
    }

private:
    Folios folios_;
    std::uint64_t fs_, start_;
};

// Into memory what comes from the log, block by block; the rest stays in `pieces`. Asked before the device is: what is
// not in the journal by now is home, but what is may get there, and out of the journal, while the device is being read.
void take_from_journal(Inode& inode, const Memory& memory, std::vector<Piece>& pieces) {
    const std::uint64_t bs = inode.fs().block_size();
    std::vector<Piece> left;
    for (Piece& piece : pieces) {
        if (!piece.on_device) {
            left.push_back(std::move(piece));
            continue;
        }
        for (std::uint64_t done = 0; done < piece.length; done += bs) {
            const BlockNr block = piece.block + done / bs;
            bool taken = false;
            memory.each(piece.at + done, bs, [&](std::uint64_t, Bytes into) {
                taken = into.size() == bs && read_journaled_block(inode, block, into);
            });
            if (!taken) left.push_back({piece.at + done, bs, true, piece.device_offset + done, block, {}});
        }
    }
    pieces = std::move(left);
}

Result<void> read_pieces(Inode& inode, Folios folios, std::vector<Piece> pieces) {
    const Memory memory(folios, inode.pages().folio_size());
    if (inode.journals_data() || inode.fs().logged_data_blocks.has_any()) take_from_journal(inode, memory, pieces);
    std::vector<Bytes> parts;
    for (std::size_t i = 0; i < pieces.size();) {
        const Piece& piece = pieces[i];
        if (!piece.on_device) {
            memory.each(piece.at, piece.length, [&](std::uint64_t at, Bytes into) {
                const std::size_t skip = std::min<std::uint64_t>(at - piece.at, piece.contents.size());
                const std::size_t n = std::min(piece.contents.size() - skip, into.size());
                if (n) std::memcpy(into.data(), piece.contents.data() + skip, n);
                std::memset(into.data() + n, 0, into.size() - n);
            });
            ++i;
            continue;
        }
        parts.clear();
        std::uint64_t next = piece.device_offset;
        for (; i < pieces.size() && pieces[i].on_device && pieces[i].device_offset == next; ++i) {
            memory.each(pieces[i].at, pieces[i].length, [&](std::uint64_t, Bytes into) { parts.push_back(into); });
            next += pieces[i].length;
        }
        if (Result<void> r = inode.fs().device.readv(piece.device_offset, parts); !r)
            return fail(r.error().code, "inode {}: block {}: {}", inode.number(), piece.block, r.error().what);
    }
    return {};
}

// What lies past the end of the file reads as zeros once the file grows, whatever the device holds there.
void finish_folio(Inode& inode, Folio& folio) {
    const std::uint64_t fs = inode.pages().folio_size(), start = folio.index * fs;
    atomic_point("Inode::size", &inode);
    const std::uint64_t size = inode.size_hint();
    if (UEXT4_SEAM(zeroes_tails) && size > start && size < start + fs) {
        // Blocks that were up to date before have their zeros, and a commit may be copying them. The others are as the
        // device has them, also where blocks beside them are dirty or in a transaction.
        const std::uint64_t bs = inode.fs().block_size();
        for (std::uint64_t block = (size - start) / bs; block < fs / bs; ++block) {
            if ((folio.uptodate >> block & 1) != 0) continue;
            const std::uint64_t from = std::max(block * bs, size - start);
            std::memset(folio.data + from, 0, (block + 1) * bs - from);
        }
    }
    folio.uptodate = all_blocks(inode);
}

Result<void> fill_one(Inode& inode, Folio& folio) {
    std::vector<Piece> pieces;
    TRY(plan_folio(inode, folio, pieces));
    Folio* const one = &folio;
    TRY(read_pieces(inode, {&one, 1}, std::move(pieces)));
    finish_folio(inode, folio);
    return {};
}

// Fills the folios with what was planned for them; how many. An error is that of the first one.
Result<std::size_t> fill_all(Inode& inode, Folios folios, std::vector<Piece> pieces) {
    const Result<void> read = read_pieces(inode, folios, std::move(pieces));
    if (read) {
        for (Folio* folio : folios) finish_folio(inode, *folio);
        return folios.size();
    }
    if (folios.size() == 1) return fail(read.error());
    // Some of them can be read perhaps.
    TRY(fill_one(inode, *folios.front()));
    std::size_t filled = 1;
    while (filled < folios.size() && fill_one(inode, *folios[filled])) ++filled;
    return filled;
}

// Of the pieces what lies before `end`.
void clip(std::vector<Piece>& pieces, std::uint64_t end) {
    std::erase_if(pieces, [end](const Piece& piece) { return piece.at >= end; });
    for (Piece& piece : pieces) piece.length = std::min(piece.length, end - piece.at);
}

// How many of `count` folios from `start` on are planned as a whole.
std::size_t planned(const std::vector<Piece>& pieces, std::uint64_t start, std::size_t count, std::uint64_t fs) {
    const std::uint64_t end = pieces.empty() ? start : pieces.back().at + pieces.back().length;
    return std::min<std::uint64_t>(count, end > start ? (end - start) / fs : 0);
}

}  // namespace

bool folio_is_full(const LockedFolio& folio) {
    const std::uint64_t blocks = folio->file->folio_size() / folio->file->block_size();
    return folio->uptodate == (blocks == 64 ? ~BlockMask{0} : (BlockMask{1} << blocks) - 1);
}

Result<void> fill_folio(Inode& inode, LockedFolio& folio) {
    return folio_is_full(folio) ? Result<void>() : fill_one(inode, *folio);
}

Result<FilledRange> read_folio_range(Inode& inode, std::uint64_t index, std::uint64_t most) {
    FileCache& pages = inode.pages();
    const std::uint64_t fs = pages.folio_size(), start = index * fs;
    Result<LockedFolioRange> made = pages.add_locked_range(index, most);
    if (!made) return fail(made.error());
    FilledRange out{std::move(*made), 0};
    if (out.run.size() == 0) return out;
    std::vector<Piece> pieces;
    Result<void> found = plan(inode, start, start + out.run.size() * fs, pieces);
    std::size_t count = planned(pieces, start, out.run.size(), fs);
    if (count == 0) TRY(std::move(found));
    LockedFolio again;  // only of the wrong design
    if (!UEXT4_SEAM(mapping_is_fresh)) {
        out.run.unlock();
        again = TRY(pages.lock(index, true));
        count = 1;
    }
    clip(pieces, start + count * fs);
    Folio* const first = again ? &*again : nullptr;
    out.filled = TRY(fill_all(inode, again ? Folios(&first, 1) : out.run.folios().first(count), std::move(pieces)));
    return out;
}

Result<void> fill_with_next(Inode& inode, LockedFolio& folio, std::uint64_t most) {
    FileCache& pages = inode.pages();
    const std::uint64_t fs = pages.folio_size(), index = folio->index;
    std::vector<Piece> pieces;
    most = std::min<std::uint64_t>(most, LockedFolioRange::max_folios);
    TRY(plan_folio(inode, *folio, pieces));
    if (!UEXT4_SEAM(mapping_is_fresh)) {
        folio.unlock();
        folio = TRY(pages.lock(index, true));
    }
    std::array<Folio*, LockedFolioRange::max_folios> all;
    all[0] = &*folio;
    const Result<LockedFolioRange> behind =
        most > 1 ? pages.add_locked_range(index + 1, most - 1) : Result<LockedFolioRange>(LockedFolioRange());
    std::size_t count = 0;
    if (behind) {
        std::vector<Piece> more;
        (void)plan(inode, (index + 1) * fs, (index + 1 + behind->size()) * fs, more);
        count = planned(more, (index + 1) * fs, behind->size(), fs);
        clip(more, (index + 1 + count) * fs);
        std::ranges::move(more, std::back_inserter(pieces));
        std::ranges::copy(behind->folios().first(count), all.begin() + 1);
    }
    const std::size_t filled = TRY(fill_all(inode, std::span(all).first(count + 1), std::move(pieces)));
    for (Folio* one : std::span(all).first(filled).subspan(1)) pages.mark_readahead(*one);
    return {};
}

}  // namespace uext4
