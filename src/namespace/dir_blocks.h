// The blocks of a directory: read and validated, appended, their checksums set.
#pragma once

#include "inode/inode.h"

#include <unordered_set>

namespace uext4 {

// What a block of a directory must be.
enum class DirBlock : std::uint8_t {
    leaf,  // a list of entries
    root,  // block 0 of a hashed directory
    node,  // an inner block of its index
};

struct DirBuffer {
    BufferRef buffer;
    LogicalBlock logical;
    ConstBytes data() const { return buffer->data(); }
    explicit operator bool() const { return static_cast<bool>(buffer); }
};

// The directory's rw held in any mode. EUCLEAN for a hole, a block past the size, a bad checksum or a malformed block:
// names inode, block and offset.
Result<DirBuffer> read_dir_block(Inode& directory, LogicalBlock logical, DirBlock what);
// The number of blocks by the size. EUCLEAN when the size is not a multiple of the block size, or more than the file
// system has.
Result<std::uint64_t> dir_block_count(Inode& directory);

// What one walk over a directory has read: a block that comes again, by an index or a map that repeats itself, would
// give the same names for as long as the size says.
class VisitedDirBlocks {
public:
    Result<void> add(const Inode& directory, const DirBuffer& block);  // EUCLEAN: it is there already

private:
    std::unordered_set<std::uint64_t> blocks_;  // on the device
};

// What a walk over a directory has met that cannot be read, in which it goes on with the rest: the first of it is told
// behind that. But not for ever: in an image that lies there may be any number of blocks.
class DirErrors {
public:
    // False: that is enough.
    bool note(Error error);
    const Result<void>& first_error() const { return first_; }

private:
    Result<void> first_;
    unsigned count_ = 0;
};

// As dir_block_count(), for a walk that goes on: as many as the size reaches, the last of them in part, and as the file
// system has. What is wrong with the size is noted.
std::uint64_t readable_dir_blocks(Inode& directory, DirErrors& damage);

// rw held exclusively from here on.
// A zeroed block at the end of the file (of any kind of inode whose contents are metadata), size and blocks accounted
// and the inode stored. ENOSPC changes nothing.
Result<DirBuffer> append_block(Handle& handle, Inode& inode, bool privileged);
// Block 0 of an inode that had inline data until now: the data is gone afterwards. ENOSPC changes nothing.
Result<DirBuffer> append_first_block(Handle& handle, Inode& inode, bool privileged);
// Of `blocks` blocks appended one after the other.
unsigned append_credits(Inode& inode, unsigned blocks = 1);
// Makes the block's bytes writable; after the change set_dir_checksum().
Result<Bytes> get_dir_block_write_access(Handle& handle, const DirBuffer& block);
void set_dir_checksum(Inode& directory, const DirBuffer& block, DirBlock what);

// A list of entries that is not a whole block: records fill `bytes` exactly, names are sane. `start`: its place, for
// errors.
Result<void> check_entry_list(const Inode& directory, ConstBytes bytes, std::uint32_t start);

// Bytes of a leaf that entries may fill.
std::uint32_t leaf_capacity(const Inode& directory);

}  // namespace uext4
