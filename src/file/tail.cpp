// The last block of a file, behind the file's end: zeros before the file grows over it.
#include "base/seam.h"
#include "file/file_io.h"
#include "sync/atomic_point.h"

#include <algorithm>
#include <cstring>

namespace uext4 {

void zero_past_end(FileCache& pages, LockedFolio& folio, std::uint64_t size) {
    const std::uint64_t fs = pages.folio_size();
    pages.write_protect(folio);
    if (UEXT4_SEAM(zeroes_tails) && UEXT4_SEAM(growth_zeroes)) std::memset(folio->data + size % fs, 0, fs - size % fs);
}

Result<LockedFolio> zero_eof_folio(Inode& inode) {
    FileCache& pages = inode.pages();
    const std::uint64_t fs = pages.folio_size(), size = inode.size_hint();
    if (size % fs == 0) return LockedFolio();
    // Where there are maps also one that is not cached: a fault would bring it in, and store behind the end, before the
    // file has grown.
    atomic_point("FileCache::client_maps", &pages);
    LockedFolio folio = TRY(pages.lock_for_change(size / fs, pages.client_maps() != nullptr));
    if (folio) zero_past_end(pages, folio, size);
    return folio;
}

namespace {

// Where the device has the last block, if the file ends within it.
Result<BlockNr> last_block(Inode& inode) {
    const std::uint64_t bs = inode.fs().block_size();
    MutexLock guard(inode.map_lock);
    if (inode.size() % bs == 0) return BlockNr();
    RangeIterator last(inode, inode.size(), inode.size() + 1);
    (void)TRY(last.load_locked());
    return last.mapping().state == BlockState::mapped ? last.block() : BlockNr();
}

}  // namespace

Result<void> finish_truncate(Inode& inode) {
    MutexLock flush(inode.flush_lock);
    const LogicalBlock first(divide_up(inode.size_hint(), inode.fs().block_size()));
    TRY(prepare_to_unmap(inode, first, LogicalBlock(~std::uint64_t{0})));
    const std::vector<BufferRef> held = TRY(pin_for_free(inode, first, LogicalBlock(~std::uint64_t{0})));
    Handle handle = TRY(inode.fs().journal.start(truncate_credits(inode)));
    TRY(remove_blocks(inode, handle, first, LogicalBlock(~std::uint64_t{0})));
    inode.truncate_incomplete.store(false);
    return {};
}

Result<void> zero_eof_block(Inode& inode) {
    if (inode.truncate_incomplete.load()) TRY(finish_truncate(inode));
    if (inode.eof_block_is_zeroed.load()) return {};
    const std::uint64_t bs = inode.fs().block_size(), size = inode.size_hint();
    const BlockNr block = TRY(last_block(inode));
    if (block) {
        FileCache& pages = inode.pages();
        std::vector<std::byte> stored(bs);
        if (!read_journaled_block(inode, block, stored)) TRY(inode.fs().device.read(block.value * bs, stored));
        const auto behind = stored.begin() + static_cast<std::ptrdiff_t>(size % bs);
        if (std::any_of(behind, stored.end(), [](std::byte b) { return b != std::byte{0}; })) {
            LockedFolio folio = TRY(pages.lock_for_change(size / pages.folio_size(), true));
            TRY(fill_folio(inode, folio));
            zero_past_end(pages, folio, size);
            const BlockMask mask = BlockMask{1} << (size % pages.folio_size() / bs);
            if (inode.journals_data()) {
                Handle handle = TRY(inode.fs().journal.start(4));
                TRY(journal_folio_blocks(handle, inode, folio, mask));
            } else {
                pages.mark_dirty(folio, mask);
            }
        }
    }
    atomic_point("Inode::tail_is_clear", &inode.eof_block_is_zeroed);
    inode.eof_block_is_zeroed.store(true);
    return {};
}

}  // namespace uext4
