// Bringing a file's bytes into folios. Invalidate is held, shared at least.
#pragma once

#include "inode/inode.h"
#include "pagecache/file_cache.h"

#include <cstdint>

namespace uext4 {

// New folios from `index` on that are filled: as many of `most` (or LockedFolioRange::max_folios) as are not there, in
// as few requests as possible. None where there is one at `index`, or where it was read with an error: then
// fill_folio() has it. Of those behind the first that cannot be filled `filled` counts none.
struct FilledRange {
    LockedFolioRange run;
    std::size_t filled = 0;
};
Result<FilledRange> read_folio_range(Inode& inode, std::uint64_t index, std::uint64_t most);

// Fills the folio, and up to `most` - 1 behind it that are not cached, with the same requests; these are marked as read
// ahead. An error of one behind it is left to who asks for that.
Result<void> fill_with_next(Inode& inode, LockedFolio& folio, std::uint64_t most);

}  // namespace uext4
