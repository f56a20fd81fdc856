#include "file/file_io.h"
#include "file/fill.h"
#include "inode/attributes.h"
#include "inode/system_inode.h"

#include <algorithm>
#include <cstring>

namespace uext4 {

namespace {

constexpr std::uint64_t largest_window = 256;  // folios read ahead at most
constexpr std::uint64_t first_window = 4;

// How many folios to read at a miss at `index`, in a request that begins at `first` and wants so many more: these, and
// more when the reader goes forward.
std::uint64_t window_for(Inode& inode, std::uint64_t first, std::uint64_t index, std::uint64_t wanted,
                         std::uint64_t end_index, ReadaheadState::AccessKind reader) {
    std::uint64_t window = wanted;
    const std::uint64_t limit = std::max<std::uint64_t>(
        1, std::min(largest_window, inode.pages().cache().limit() / 8 / inode.pages().folio_size()));
    if (const std::optional<std::uint64_t> last = inode.readahead.window_at(first, reader)) {
        const std::uint64_t most =
            inode.readahead.max_window(*last, largest_window, inode.pages().take_wasted_readahead());
        window = std::max(wanted, std::min(std::max({*last, wanted, first_window / 2}) * 2, most));
    }
    return std::max<std::uint64_t>(1, std::min({window, limit, end_index - index}));
}

}  // namespace

Result<std::uint64_t> fill_with_readahead(Inode& inode, LockedFolio& folio) {
    if (folio_is_full(folio)) return std::uint64_t{0};
    const std::uint64_t index = folio->index, end = divide_up(inode.size_hint(), inode.pages().folio_size());
    const std::uint64_t window =
        window_for(inode, index, index, 1, std::max(end, index + 1), ReadaheadState::AccessKind::of_pages);
    TRY(fill_with_next(inode, folio, window));
    return window;
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
        const std::uint64_t wanted = divide_up(inside + (total - done), fs);
        const auto take = [&](const Folio& folio) {
            const std::uint64_t from = (offset + done) % fs;
            const std::size_t part = std::min<std::uint64_t>(total - done, fs - from);
            std::memcpy(out.data() + done, folio.data + from, part);
            done += part;
        };
        if (const LockedFolioRange there = pages.lock_uptodate_range(index, wanted); there.size() != 0) {
            for (Folio* folio : there.folios()) take(*folio);
            continue;
        }
        if (LockedFolio folio = TRY(pages.lock(index, false)); folio && folio_is_full(folio)) {
            take(*folio);
            continue;
        }
        if (pages.cache().needs_reclaim()) pages.cache().reclaim();
        ReadLock guard(pages.invalidate);
        window = window_for(inode, first, index, wanted, std::max(end_index, index + 1),
                            ReadaheadState::AccessKind::of_bytes);
        const FilledRange brought = TRY(read_folio_range(inode, index, window));
        if (brought.run.size() == 0) {
            LockedFolio folio = TRY(pages.lock(index, true));
            TRY(fill_folio(inode, folio));
            continue;
        }
        for (Folio* folio : brought.run.folios().first(brought.filled)) {
            if (done == total) pages.mark_readahead(*folio);
            else take(*folio);
        }
    }
    inode.readahead.record_read(first, divide_up(offset + done, fs), window);
    return done;
}

namespace {

bool is_atime_due(const Inode& inode, const format::Timestamp& now) UEXT4_REQUIRES(inode.map_lock) {
    const FsContext& fs = inode.fs();
    if (fs.read_only.load() || fs.options.atime == AtimePolicy::never || inode.has_flag(format::inode_flag::noatime))
        return false;
    if (is_system_inode(inode)) return false;
    if (inode.is_directory() && fs.options.nodiratime) return false;
    if (fs.options.atime == AtimePolicy::strict) return true;
    const format::Timestamp a = inode.atime();
    return a <= inode.mtime() || a <= inode.ctime() || now.sec - a.sec >= 24 * 3600;
}

}  // namespace

bool needs_atime_update(Inode& inode) {
    const format::Timestamp now = current_time(inode.fs());
    MutexLock guard(inode.map_lock);
    return is_atime_due(inode, now);
}

void update_atime(Inode& inode) {
    const format::Timestamp now = current_time(inode.fs());
    MutexLock guard(inode.map_lock);
    if (!is_atime_due(inode, now) || inode.atime() == now) return;
    inode.set_atime(now);
    inode.note_times_pending();
}

}  // namespace uext4
