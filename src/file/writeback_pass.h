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
// or through the log, not behind its name; any other such block is written where it lies (moves.cpp).
//
// A block that is dirty without a promise, and for which there is no space, stays dirty, and the pass goes on: the
// file's other blocks have theirs. What lies behind the size on disk waits with it.
#pragma once

#include "base/result.h"
#include "file/block_swap.h"
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
    std::uint64_t swept() const { return swept_; }
    // Inline contents had to leave the inode: they are dirty, and another pass writes them.
    bool left_inline() const { return left_inline_; }
    // What was left is dirty, and may be written to its place after await_left(), by another pass.
    bool left_some() const { return left_some_; }
    Result<void> await_left();
    // Why some blocks are as dirty as they were, if that is for want of space.
    const std::optional<Error>& lacking() const { return lacking_; }

    // True when there was something to do.
    Result<bool> batch();

private:
    struct Item {
        Folio* folio;
        BlockMask blocks;
        BlockMask left = 0;
        bool failed = false;
    };
    struct Segment {
        std::uint64_t first;  // logical block
        std::uint64_t count;
        Place place;
        BlockNr block;
        std::size_t item;  // of its first block
        Result<void> result{};
        BlockSwap* swap = nullptr;          // one block, which goes there
        bool logged = false;                // one block, which goes through the log
        bool left = false;                  // for the next sweep
        std::vector<std::byte> contents{};  // of that
    };
    // Where memory runs out on the way, nobody waits for ever for what was to be written: it is dirty again.
    struct FailsUnlessFinished;
    static constexpr std::uint64_t all_named = ~std::uint64_t{0};

    void collect();
    std::optional<std::uint64_t> next_end(std::uint64_t from) const;
    bool leaves_its_place(Place place, std::uint64_t end) const;
    bool was_emptied(LogicalBlock at) const UEXT4_REQUIRES(inode_.map_lock);
    Result<void> prepare_swaps();
    Result<bool> goes_on_at(LogicalBlock at) const;
    Result<Places::Goal> goal_for(LogicalBlock at);
    Result<void> choose();
    Result<void> choose_from(std::uint64_t logical, std::uint64_t count, std::size_t item)
        UEXT4_REQUIRES(inode_.map_lock);
    Result<void> choose_granted(Segment& s);
    void choose_swap(Segment& s);
    void choose_logged(Segment& s) UEXT4_REQUIRES(inode_.map_lock);
    void choose_home() UEXT4_REQUIRES(inode_.map_lock);
    bool is_in_its_place(const Segment& s) const;
    bool may_leave(const Segment& s) const UEXT4_REQUIRES(inode_.map_lock);
    Result<void> leave_shifted();
    Result<void> await_images_of_emptied();
    void note_left(const Segment& s);
    Result<void> leave_without_space(Segment s, const Error& why);
    Result<void> promise_some(std::uint64_t logical, std::uint64_t count);
    bool is_dirty(std::uint64_t logical) const;
    bool extends_last(std::uint64_t logical) const;
    std::uint64_t run_length(std::size_t item, std::uint64_t slot) const;
    std::byte* data_of(std::uint64_t logical, std::size_t item) const;

    void write(Segment& s);
    void write_swap(Segment& s);
    Result<void> write_at(const Segment& s, BlockNr block);
    void retry_elsewhere();
    void retry_grant(Segment& s, std::vector<Segment>& again);
    void retry_moved(Segment& s);
    void hold_back_behind_failures();
    void mark_failed(const Segment& s);

    std::uint64_t size_with(std::uint64_t unnamed) const;
    Result<void> name();
    LogicalBlock mark_written();
    Result<void> name_segment(Handle& handle, const Segment& s, LogicalBlock reach, unsigned credits);
    Result<void> name_run(Handle& handle, const Segment& s, LogicalBlock reach, unsigned credits);
    Result<void> make_room(Handle& handle, unsigned credits);
    Result<void> swap_unwritten(Handle& handle, const Segment& s, unsigned credits);
    Result<void> name_swap(Handle& handle, const Segment& s, unsigned credits);
    static bool is_converted(const Segment& s);
    Result<void> log(Handle& handle, const Segment& s, unsigned credits);
    void forget_logged(Handle& handle, const Segment& s);
    Result<void> set_size_with(Handle& handle, const Segment& s) UEXT4_REQUIRES(inode_.map_lock);
    Result<void> name_inline(Handle& handle, const Segment& s);
    void finish(bool all_failed);

    Inode& inode_;
    FileCache& pages_;
    const std::uint64_t fs_, bs_;
    std::uint64_t next_, end_;
    const Sweep sweep_;
    bool left_inline_ = false;
    bool left_some_ = false;
    Tid left_for_home_ = 0;  // the newest transaction that has an image of any of it
    std::uint64_t swept_ = 0;
    // Where the file ended in a folio that was taken. What it has grown by since is in that folio as well, which this
    // pass does not see again: it ends there.
    std::uint64_t edge_ = ~std::uint64_t{0};
    // Where the first failure beyond the size on disk is: of this batch, or for want of space of any.
    std::uint64_t reach_ = ~std::uint64_t{0};
    std::optional<Error> lacking_;
    std::vector<Item> items_;
    std::vector<BlockSwap> swaps_;
    std::vector<LogicalBlock> ends_;  // which have to leave their place, and find no other
    unsigned logged_ = 0;             // segments that go through the log
    bool waits_for_home_ = false;     // what is written in its place may have an image in the log
    Tid home_ = 0;                    // or has one of a durable transaction, this one or an older
    std::vector<Segment> segments_;
};

}  // namespace uext4
