// The one way over a range of a file's bytes, from one run that lives alike (a Mapping) to the next. Reads, faults,
// writes, writeback, zeroing, seeks, listings and direct requests all go on by it. What they hold around a look, and
// what they do with a run, is their own (docs/adr/0011-one-iterator.md).
//
//     for (RangeIterator range(inode, offset, end); TRY(range.look()); range.next())
//         ... range.length() bytes at range.at() live in range.run().place ...
#pragma once

#include "extent_status/mapping.h"
#include "inode/inode.h"

#include <algorithm>
#include <cstdint>

namespace uext4 {

class RangeIterator {
public:
    // Bytes [offset, end) of the file; none where `end` is not behind `offset`.
    RangeIterator(Inode& inode, std::uint64_t offset, std::uint64_t end) : inode_(inode), at_(offset), end_(end) {}

    // The run at at(), as it is now; `most` bytes of it will do. False where the range is done. load() takes map_lock,
    // load_locked() is for who has it. Errors: those of reading the map's blocks from the device (EIO, EUCLEAN).
    Result<bool> load(std::uint64_t most = ~std::uint64_t{0});
    Result<bool> load_locked(std::uint64_t most = ~std::uint64_t{0});
    // For who looked without what keeps the run where it is: true where it lives elsewhere by now, and all that was
    // done with it begins anew. Nothing is read while the sequence number is the same. map_lock held.
    Result<bool> has_moved_locked();

    // What the last look saw: aligned outward to blocks.
    const Mapping& mapping() const { return mapping_; }
    // The part of it that the range has from at() on, in bytes of the file and of the device.
    std::uint64_t at() const { return at_; }
    std::uint64_t run_end() const { return std::min(mapping_.end(), end_); }
    std::uint64_t length() const { return run_end() - at_; }
    std::uint64_t device_offset() const {
        return mapping_.block.value * inode_.fs().block_size() + (at_ - mapping_.offset);
    }
    BlockNr block() const { return mapping_.block + (at_ - mapping_.offset) / inode_.fs().block_size(); }

    // Goes on behind the run; or at a byte further on, where something came in between.
    void next() { at_ = run_end(); }
    void advance_to(std::uint64_t at) { at_ = at; }
    void set_end(std::uint64_t end) { end_ = end; }

    bool done() const { return at_ >= end_; }
    std::uint64_t end() const { return end_; }
    std::uint64_t left() const { return done() ? 0 : end_ - at_; }

private:
    Inode& inode_;
    std::uint64_t at_, end_;
    Mapping mapping_;
};

}  // namespace uext4
