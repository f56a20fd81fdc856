// One pass of writeback over a range of a file, in batches: folios to the device, then one short handle that names
// their blocks.
//
// Its folios are under writeback from before their blocks are chosen until after the blocks are named, so nobody
// changes them meanwhile and what is named is what was written.
//
// Blocks are named in their order, and the size on disk grows with each step, so that no block is ever named past it.
// It is held back by what failed and by what the pass has not looked at; not by what was clean when the pass came by
// and is dirty since: those bytes were zeros, or are on the device, in a file that was as large.
//
// The block in which a file ends on disk, or may after a cut, is not written over with what the file has grown by: it
// goes to another place, in the handle that sets the size (docs/adr/0010). An unwritten one in which the file will end
// goes there before it has a name. Where no other place is to be had, it goes through the log in that handle, and so
// does what is written to it as long as the log has that. (Unless all of a batch is overwritten in its place, which is
// to commit nothing: then what the log has is taken home first, if it is durable, before a second sweep as a rule.)
//
// What is written over in its place and has been shifted there waits until that is durable. A first sweep over the file
// leaves it, and names all else: so the commit that is waited for has the names, and it is the only one. The same is
// done with what the log has images of, where these are too many.
//
// A block that was emptied in its place, and in which the file ends or may after a cut, goes to another place as well,
// or through the log, not behind its name; any other such block is written where it lies (commit_moves.cpp).
//
// A block that is dirty without a promise, and for which there is no space, stays dirty, and the pass goes on: the
// file's other blocks have theirs. What lies behind the size on disk waits with it.
#pragma once

#include "base/result.h"
#include "file/out_of_place_write.h"
#include "inode/inode.h"

#include <optional>
#include <vector>

namespace uext4 {

class WritebackPass {
public:
    enum class Sweep { first, last };
    // Folios [first, end). `inode.flush_lock` is held as long as it lives.
    WritebackPass(Inode& inode, std::uint64_t first, std::uint64_t end, Sweep sweep);

    // Bytes before this are on their way or there, as they were in some moment since the pass began.
    std::uint64_t scanned_bytes() const { return scanned_bytes_; }
    // Inline contents had to leave the inode: they are dirty, and another pass writes them.
    bool converted_inline() const { return converted_inline_; }
    // What was left is dirty, and may be written to its place after wait_for_deferred(), by another pass.
    bool has_deferred() const { return has_deferred_; }
    Result<void> wait_for_deferred();
    // Why some blocks are as dirty as they were, if that is for want of space.
    const std::optional<Error>& space_error() const { return space_error_; }

    // True when there was something to do.
    Result<bool> write_batch();

private:
    struct Item {
        Folio* folio;
        BlockMask blocks;
        BlockMask deferred = 0;
        bool failed = false;
    };
    struct Segment {
        std::uint64_t first;  // logical block
        std::uint64_t count;
        BlockState state;
        BlockNr block;
        std::size_t item;  // of its first block
        Result<void> result{};
        OutOfPlaceWrite* relocation = nullptr;  // one block, which goes there
        bool logged = false;                    // one block, which goes through the log
        bool deferred = false;                  // for the next sweep
        std::vector<std::byte> contents{};      // of that
    };
    // Where memory runs out on the way, nobody waits for ever for what was to be written: it is dirty again.
    struct FailsUnlessFinished;
    static constexpr std::uint64_t all_mapped = ~std::uint64_t{0};

    void collect();
    std::optional<std::uint64_t> next_end(std::uint64_t from) const;
    bool needs_relocation(BlockState place, std::uint64_t end) const;
    bool has_uncommitted_unmap(LogicalBlock at) const UEXT4_REQUIRES(inode_.map_lock);
    Result<void> prepare_relocations();
    Result<bool> is_followed_by_data(LogicalBlock at) const;
    Result<DelallocSpace::AllocationGoal> goal_for(LogicalBlock at);
    Result<void> plan();
    Result<void> plan_range(std::uint64_t logical, std::uint64_t count, std::size_t item)
        UEXT4_REQUIRES(inode_.map_lock);
    Result<void> plan_allocated(Segment& s);
    void plan_out_of_place(Segment& s);
    void plan_logged(Segment& s) UEXT4_REQUIRES(inode_.map_lock);
    void plan_in_place() UEXT4_REQUIRES(inode_.map_lock);
    bool is_in_place(const Segment& s) const;
    bool may_defer(const Segment& s) const UEXT4_REQUIRES(inode_.map_lock);
    Result<void> defer_shifted();
    Result<void> wait_for_images_of_unmapped();
    void note_deferred(const Segment& s);
    Result<void> defer_for_space(Segment s, const Error& why);
    Result<void> reserve_some(std::uint64_t logical, std::uint64_t count);
    bool is_dirty(std::uint64_t logical) const;
    bool extends_last(std::uint64_t logical) const;
    std::uint64_t run_length(std::size_t item, std::uint64_t slot) const;
    std::byte* data_of(std::uint64_t logical, std::size_t item) const;

    void write(Segment& s);
    void write_out_of_place(Segment& s);
    Result<void> write_at(const Segment& s, BlockNr block);
    void retry_elsewhere();
    void retry_allocation(Segment& s, std::vector<Segment>& again);
    void retry_out_of_place(Segment& s);
    void limit_size_to_written();
    void mark_failed(const Segment& s);

    std::uint64_t size_before(std::uint64_t unnamed) const;
    Result<void> map();
    LogicalBlock mark_written();
    Result<void> map_segment(Handle& handle, const Segment& s, LogicalBlock reach, unsigned credits);
    Result<void> map_run(Handle& handle, const Segment& s, LogicalBlock reach, unsigned credits);
    Result<void> ensure_credits(Handle& handle, unsigned credits);
    Result<void> relocate_unwritten(Handle& handle, const Segment& s, unsigned credits);
    Result<void> map_out_of_place(Handle& handle, const Segment& s, unsigned credits);
    static bool is_converted(const Segment& s);
    Result<void> log_segment(Handle& handle, const Segment& s, unsigned credits);
    void revoke_logged(Handle& handle, const Segment& s);
    Result<void> store_size_after(Handle& handle, const Segment& s) UEXT4_REQUIRES(inode_.map_lock);
    Result<void> store_inline(Handle& handle, const Segment& s);
    void finish(bool all_failed);

    Inode& inode_;
    FileCache& pages_;
    const std::uint64_t fs_, bs_;
    std::uint64_t next_, end_;
    const Sweep sweep_;
    bool converted_inline_ = false;
    bool has_deferred_ = false;
    Tid deferred_image_tid_ = 0;  // the newest transaction that has an image of any of it
    std::uint64_t scanned_bytes_ = 0;
    // Where the file ended in a folio that was taken. What it has grown by since is in that folio as well, which this
    // pass does not see again: it ends there.
    std::uint64_t end_at_scan_ = ~std::uint64_t{0};
    // Where the first failure beyond the size on disk is: of this batch, or for want of space of any.
    std::uint64_t first_failure_ = ~std::uint64_t{0};
    std::optional<Error> space_error_;
    std::vector<Item> items_;
    std::vector<OutOfPlaceWrite> relocations_;
    std::vector<LogicalBlock> eof_blocks_to_log_;  // which have to leave their place, and find no other
    unsigned logged_ = 0;                          // segments that go through the log
    bool waits_for_checkpoint_ = false;            // what is written in its place may have an image in the log
    Tid image_tid_ = 0;                            // or has one of a durable transaction, this one or an older
    std::vector<Segment> segments_;
};

}  // namespace uext4
