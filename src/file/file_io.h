// Contents of regular files (and of symlinks that have blocks): every way in and out of the page cache.
// Callers hold Freeze; the functions take Inode and what lies below, and open their own handles.
#pragma once

#include "base/bytes.h"
#include "extent_status/mapping.h"
#include "inode/access.h"
#include "inode/inode.h"
#include "inode/inode_table.h"
#include "inode/orphan_list.h"
#include "inode/range_iterator.h"

#include <functional>

namespace uext4 {

struct WriteRequest {
    bool append = false;  // at the end of the file; the offset is ignored
    bool direct = false;
    bool bypasses_cache = false;    // the kernel caches the file: large writes and overwrites are not cached here
    bool may_use_reserve = false;   // blocks reserved for root
    bool may_exceed_space = false;  // what finds no space is taken, within bounds, and has none until there is some
    bool keep_times = false;        // the caller owns the times (a mount's writeback cache)
    const Credentials* credentials = nullptr;  // clears set-id bits when given and not privileged
};

// ---- read.cpp
// Bytes read: short only at the end of the file.
Result<std::size_t> read_file(Inode& inode, std::uint64_t offset, Bytes out);
// Makes all blocks of the folio up to date. Folio locked, Invalidate held (shared will do) or Inode exclusive.
Result<void> fill_folio(Inode& inode, LockedFolio& folio);
bool folio_is_full(const LockedFolio& folio);  // all blocks are up to date
// The same, and as many folios behind it as a reader that goes forward will want. How many folios; 0: it was full.
Result<std::uint64_t> fill_with_readahead(Inode& inode, LockedFolio& folio);
// A read, by the rules of atime, relatime and noatime; and whether it would change anything.
void update_atime(Inode& inode);
bool needs_atime_update(Inode& inode);

// ---- direct.cpp
// EINVAL where a direct request is not in whole sectors: the offset, and each part's length. Of a read that counts only
// for what has blocks with data. Not for what goes through the cache (journaled, in the inode), and not for nothing.
Result<void> check_direct_read(Inode& inode, std::uint64_t offset, std::span<const Bytes> parts);
Result<void> check_direct_write(const Inode& inode, std::uint64_t offset, std::span<const ConstBytes> parts);
// What was checked; the memory may lie anywhere.
Result<std::size_t> read_direct(Inode& inode, std::uint64_t offset, Bytes out);
Result<std::size_t> write_direct(Inode& inode, std::uint64_t offset, ConstBytes in, const WriteRequest& request);
// For whoever has a cache of his own in front: large reads of what is not cached here stay out of this one.
Result<std::size_t> read_uncached(Inode& inode, std::uint64_t offset, Bytes out);
inline constexpr std::size_t min_uncached_read = 64 << 10;
// Through the cache; but once it is full, large reads of a file that is larger than the cache, and not cached there, go
// into the caller's memory at once, so that no part of the file throws out another.
Result<std::size_t> read_cached_or_uncached(Inode& inode, std::uint64_t offset, Bytes out);
// Whole blocks to the device, named in this call; neither inline nor journaled. Inode exclusive held.
Result<std::size_t> write_direct_blocks(Inode& inode, std::uint64_t offset, ConstBytes in, const WriteRequest& request);

// The same where the blocks have their names, are in the file and in no folio: they are overwritten in their place, and
// nothing else changes. False where it is not so.
Result<bool> overwrite_direct_blocks(Inode& inode, std::uint64_t offset, ConstBytes in);
// A direct write of that kind, beside others and beside reads: Inode shared. Folios that have nothing of their own
// leave the cache for it. False where write_direct() has to do it.
Result<bool> try_overwrite_direct(Inode& inode, std::uint64_t offset, ConstBytes in, const WriteRequest& request);

// ---- write.cpp
// Bytes written and where; an error only when nothing was written. EFBIG, ENOSPC.
struct Written {
    std::uint64_t offset = 0;
    std::size_t count = 0;
};
Result<void> check_write_allowed(const Inode& inode, const WriteRequest& request);  // EPERM
Result<Written> write_file(Inode& inode, std::uint64_t offset, ConstBytes in, const WriteRequest& request);
// Bytes that WriteRequest::may_exceed_space may take of this file now, more or less. Inode is not held.
std::uint64_t inode_unreserved_dirty_bytes(Inode& inode);
// With Inode exclusive held. Used by copies, too.
Result<std::size_t> write_cached(Inode& inode, std::uint64_t offset, ConstBytes in, const WriteRequest& request);
// Whoever makes the data no longer fit in the inode calls this first (Inode exclusive): block 0 becomes Reserved.
// `next`: the byte that is written next; an empty file gets no block for what was in its inode, unless that is in it.
// `may_exceed_space`: as in a WriteRequest.
Result<void> convert_inline_to_blocks(Inode& inode, bool may_use_reserve, std::uint64_t next = ~std::uint64_t{0},
                                      bool beyond_space = false);
// ---- tail.cpp
// An append into the last block in its place, and a crash before its commit, leave the new bytes behind the old end, on
// the device: the kernel's does, and ours where there is no journal (docs/adr/0010). Whoever makes the file grow
// without writing that block calls this first (Inode exclusive, no handle open).
Result<void> zero_eof_block(Inode& inode);
// Removes what a truncation that has failed, or was cut off by a crash, has left behind the end. Inode exclusive;
// has_map().
Result<void> finish_truncate(Inode& inode);
void zero_past_end(FileCache& pages, LockedFolio& folio, std::uint64_t size);  // in the folio of the file's last byte
// Zeroes from the old end of file to the end of its folio, in the cache, before the size grows (Inode exclusive). The
// folio, if there is one, stays locked until the new size is published: no store past the old end through a map comes
// between, and the next one faults and promises the blocks that are in the file by then.
Result<LockedFolio> zero_eof_folio(Inode& inode);

// ---- journaled.cpp (data=journal)
Result<void> journal_folio_blocks(Handle& handle, Inode& inode, LockedFolio& folio, BlockMask blocks);
// These blocks of a journaled folio are about to change without joining a transaction; what the running one needs of
// them is kept. The folio's other blocks stay the transaction's.
void release_journaled_blocks(LockedFolio& folio, BlockMask blocks);
// Contents that are committed and not at home yet: the device has older ones. False: it is the device that has them.
bool read_journaled_block(Inode& inode, BlockNr block, Bytes contents);

// ---- writeback.cpp
// Writes dirty folios of bytes [first, end) and names their blocks. All errors are noted for fsync as well.
Result<void> write_back(Inode& inode, std::uint64_t first = 0, std::uint64_t end = ~std::uint64_t{0});
// For who is about to make data of the file dirty, with Inode held at most: where too much is dirty, writes the file
// back, and then others. Whose turn fails notes it, and ends it.
Result<void> balance_dirty(Inode& inode);
// The size that may stand on disk now: never beyond data that is not there. map_lock held. Folios under writeback count
// as not there, except for the pass that has just written them. What lies before `swept` counts as there: whoever wrote
// it says so.
enum class WritebackData { missing, complete };
std::uint64_t stable_size(Inode& inode, WritebackData in_flight = WritebackData::missing, std::uint64_t swept = 0);

// Sets it, and stores the inode. map_lock held.
Result<void> store_stable_size(Handle& handle, Inode& inode, std::uint64_t swept = 0);

// ---- discard_unreserved.cpp
// For what goes with the file system: dirty blocks without a promise are forgotten, and the file ends with what is left
// of it. Bytes that are lost by it. Nobody else uses the file.
Result<std::uint64_t> discard_unreserved_data(Inode& inode);

// ---- commit_moves.cpp
// Before blocks are overwritten in place: what has shifted them within the file is durable, or a crash would show the
// new bytes in their old place.
Result<void> commit_shift(Inode& inode);
bool shift_is_durable(Inode& inode);
// Before a shift: what has emptied blocks in their place is durable.
Result<void> commit_unmaps(Inode& inode, LogicalBlock first = LogicalBlock(),
                           LogicalBlock end = LogicalBlock(~std::uint64_t{0}));
// Before blocks are emptied in their place: a shift is durable. With flush_lock held none comes behind that.
Result<void> prepare_to_zero(Inode& inode);
// Before they are unmapped: the same, if the file keeps some of them as a part of a cluster.
Result<void> prepare_to_unmap(Inode& inode, LogicalBlock first, LogicalBlock end);
// Before blocks that have been emptied in their place are written to there: no image of them, from before that, is on
// its way home, to be written over it. flush_lock held.
Result<void> wait_for_older_images(Inode& inode);

// ---- sync.cpp
// Dirty blocks leave the cache before a transaction has what takes them away, or there are zeros to be written in their
// place. A sync that this lives beside waits for it. Invalidate exclusive held.
class DirtyDataDiscard {
public:
    explicit DirtyDataDiscard(Inode& inode) : inode_(inode) { inode.discard_sequence.fetch_add(1); }
    ~DirtyDataDiscard() { inode_.discard_sequence.fetch_add(1); }
    DirtyDataDiscard(const DirtyDataDiscard&) = delete;
    DirtyDataDiscard& operator=(const DirtyDataDiscard&) = delete;

private:
    Inode& inode_;
};

// write_back() of all, for a sync: nothing that was dirty before is on the way out of the cache. Nothing held.
Result<void> write_back_for_sync(Inode& inode);
// Everything of the file that the call promises is durable when it returns.
Result<void> sync_file(Inode& inode, bool data_only);
Result<void> store_pending_times(Inode& inode);
// mtime and ctime are now; they go to the disk with whatever else changes, or at the next sync. map_lock is held.
void update_mtime_ctime(Inode& inode);

// ---- truncate.cpp
Result<void> truncate_file(Inode& inode, std::uint64_t size, OrphanList& orphans, const Credentials* who);
// Unmaps blocks from `first` on, over as many transactions as it takes. Inode exclusive; the caller protects it by the
// orphan list. `handle` is open when called and open afterwards.
Result<void> remove_blocks(Inode& inode, Handle& handle, LogicalBlock first, LogicalBlock end);
// Of a handle that takes blocks from a file, one step at a time.
unsigned truncate_credits(Inode& inode);
// The inode's block: while it is held, storing the inode reads nothing.
Result<BufferRef> pin_inode_table_block(Inode& inode);
// Asked before the first change: what freeing the contents of [first, end) reads, for as long as it is held; of many
// groups only that it can be read. EUCLEAN, EIO: without it they cannot be freed.
Result<std::vector<BufferRef>> pin_for_free(Inode& inode, LogicalBlock first, LogicalBlock end);
// Frees everything the inode has, and the inode; links are 0 and it is an orphan.
Result<void> delete_inode(Inode& inode, InodeTable& inodes, OrphanList& orphans);

// ---- fallocate.cpp, shift_range.cpp
// mode: FALLOC_FL_* of <linux/falloc.h>.
// `who` takes set-id bits by it; nullptr: nobody. `keep_times`: as in a WriteRequest. Where a punch finds no block for
// a split of the tree, what it cannot free reads as zeros and stays allocated. Whoever gives `only_zeroed` is told: it
// is true then, with ENOSPC, and done again the punch may find a block.
Result<void> fallocate_file(Inode& inode, int mode, std::uint64_t offset, std::uint64_t length, bool may_use_reserve,
                            const Credentials* who, bool keep_times = false, bool* only_zeroed = nullptr);
Result<void> check_fallocate_mode(int mode);  // EOPNOTSUPP
Result<void> collapse_range(Inode& inode, std::uint64_t offset, std::uint64_t length);
Result<void> insert_range(Inode& inode, std::uint64_t offset, std::uint64_t length);
// Inode exclusive held; `only_zeroed` as in fallocate_file.
Result<void> punch_range(Inode& inode, std::uint64_t offset, std::uint64_t length, bool* only_zeroed = nullptr);

// ---- seek.cpp
Result<std::uint64_t> seek_file(Inode& inode, std::uint64_t offset, bool data);  // ENXIO past the end
// `visit` may use the file: it is called with nothing held, for some hundreds of runs that were looked up together.
Result<void> for_each_extent(Inode& inode, std::uint64_t offset, std::uint64_t length,
                             const std::function<bool(const Mapping&)>& visit);

// ---- journal_flag.cpp
// Switches flag `j` of a live file: flushed, committed and checkpointed first.
Result<void> set_journal_flag(Inode& inode, bool on);

// ---- extents_flag.cpp
// Converts the map between extents and indirect blocks. EOPNOTSUPP where the file, its kind or the file system cannot
// have the other form, ENOSPC; then nothing has changed.
Result<void> set_extents_flag(Inode& inode, bool on, bool may_use_reserve);

// Largest size that this file may have.
std::uint64_t max_file_size(const Inode& inode);

}  // namespace uext4
