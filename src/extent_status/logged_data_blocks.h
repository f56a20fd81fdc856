// Blocks of files whose contents do not go through the log, but did once: the last block of one that has grown or was
// cut within it, where no other block was to be had for it (docs/adr/0010). As long as the log has such an image a
// recovery writes it, so whatever is written to the block meanwhile goes through the log as well, or waits until the
// image is home; who frees the block revokes it; and who reads it asks the journal first.
#pragma once

#include "base/numbers.h"
#include "base/result.h"
#include "journal/journal.h"
#include "sync/mutex.h"

#include <atomic>
#include <map>

namespace uext4 {

class LoggedDataBlocks {
public:
    explicit LoggedDataBlocks(Journal& journal) : journal_(journal) {}

    // The contents of the block, as the file has them, go into the handle's transaction; one credit when new.
    Result<void> log_block(Handle& handle, BlockNr block, ConstBytes contents);
    // Any at all; most often there is none.
    bool has_any() const;
    bool has(BlockNr first, std::uint64_t count);
    // How many from `first` on the log has no image of; at most `count`.
    std::uint64_t count_without_image(BlockNr first, std::uint64_t count);
    // The newest transaction that has an image of one of them; 0 if none has.
    Tid newest_tid(BlockNr first, std::uint64_t count);
    // They are being freed, or become unwritten, by this handle.
    Result<void> revoke(Handle& handle, BlockNr first, std::uint64_t count);

private:
    Journal& journal_;
    Mutex lock_{Rank::Leaf, "LoggedBlocks"};
    std::map<std::uint64_t, Tid> blocks_ UEXT4_GUARDED_BY(lock_);  // the newest transaction that has an image
    std::size_t prune_at_ UEXT4_GUARDED_BY(lock_) = 64;
    std::atomic<Tid> newest_{0};
};

}  // namespace uext4
