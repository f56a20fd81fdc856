// Extent trees: nodes of a header and sorted entries; the root is i_block, other nodes are blocks.
#pragma once

#include "format/superblock.h"

namespace uext4::format {

struct ExtentHeader {
    Le16 magic, entries, max, depth;
    Le32 generation;
};
struct ExtentIndex {
    Le32 block;  // first logical block below it
    Le32 leaf_lo;
    Le16 leaf_hi, unused;
    BlockNr leaf() const { return BlockNr(leaf_lo.get() | std::uint64_t{leaf_hi.get()} << 32); }
    void set_leaf(BlockNr b) {
        leaf_lo = static_cast<std::uint32_t>(b.value);
        leaf_hi = static_cast<std::uint16_t>(b.value >> 32);
    }
};
struct ExtentLeaf {
    Le32 block;  // first logical block
    Le16 len, start_hi;
    Le32 start_lo;
    bool unwritten() const { return len > 32768; }
    std::uint32_t count() const { return len > 32768 ? len - 32768 : len.get(); }
    BlockNr start() const { return BlockNr(start_lo.get() | std::uint64_t{start_hi.get()} << 32); }
    void set(std::uint32_t logical, std::uint32_t n, BlockNr physical, bool is_unwritten) {
        block = logical;
        len = static_cast<std::uint16_t>(is_unwritten ? n + 32768 : n);
        start_hi = static_cast<std::uint16_t>(physical.value >> 32);
        start_lo = static_cast<std::uint32_t>(physical.value);
    }
};
struct ExtentTail {
    Le32 checksum;
};
static_assert(sizeof(ExtentHeader) == 12 && sizeof(ExtentIndex) == 12 && sizeof(ExtentLeaf) == 12);
inline constexpr std::uint16_t extent_magic = 0xF30A;
inline constexpr unsigned max_extent_depth = 5;
inline constexpr std::uint32_t max_written_length = 32768, max_unwritten_length = 32767;

// Entries that fit in a node of `bytes` (60 for the root; a block leaves room for its tail by division).
constexpr std::uint16_t extent_capacity(std::size_t bytes) {
    return static_cast<std::uint16_t>((bytes - sizeof(ExtentHeader)) / 12);
}

// Magic, depth (expected_depth; the root passes its own, at most max_extent_depth), entries within max, max within the
// node, entries ascending without overlap within [first, end) logical blocks, physical ranges within the file system,
// lengths not 0. EUCLEAN names `where` (e.g. "inode 12: extent block 345") and the field.
Result<void> validate_extent_node(const Geometry& geometry, ConstBytes node, unsigned expected_depth,
                                  std::uint64_t first, std::uint64_t end, const std::string& where);

// Of node blocks (metadata_csum); `seed` is inode_seed(). True, and nothing done, where there is none.
bool extent_checksum_ok(const Geometry& geometry, std::uint32_t seed, ConstBytes block);
void set_extent_checksum(const Geometry& geometry, std::uint32_t seed, Bytes block);

}  // namespace uext4::format
