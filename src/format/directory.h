// Directory blocks.
#pragma once

#include "format/superblock.h"

namespace uext4::format {

struct DirEntryDisk {
    Le32 inode;
    Le16 rec_len;
    std::uint8_t name_len, file_type;
};
static_assert(sizeof(DirEntryDisk) == 8);
// The fake last entry of a leaf block with metadata_csum.
struct DirTail {
    Le32 inode_zero;
    Le16 rec_len;
    std::uint8_t name_len_zero, file_type;  // FileType::checksum
    Le32 checksum;
};
static_assert(sizeof(DirTail) == 12);
struct IndexTail {
    Le32 reserved, checksum;
};

// Record lengths in blocks of 64 KiB do not fit in 16 bits as they are.
constexpr std::uint32_t decode_rec_len(std::uint16_t raw, std::uint32_t block_size) {
    if (block_size < 65536) return raw;
    if (raw == 65535 || raw == 0) return block_size;
    return (raw & 65532u) | (raw & 3u) << 16;
}
constexpr std::uint16_t encode_rec_len(std::uint32_t length, std::uint32_t block_size) {
    if (block_size < 65536) return static_cast<std::uint16_t>(length);
    if (length == 65536) return 65535;
    return static_cast<std::uint16_t>((length & 65532u) | (length >> 16 & 3u));
}

// Leaf blocks; `seed` is inode_seed(). Without metadata_csum: true, and nothing done.
bool dir_tail_present(ConstBytes block);
bool dir_leaf_checksum_ok(const Geometry& geometry, std::uint32_t seed, ConstBytes block);
void set_dir_leaf_checksum(const Geometry& geometry, std::uint32_t seed, Bytes block);  // writes the whole tail
// Index blocks (root and inner): pairs start at `pairs`, with limit and count in the first.
bool dir_index_checksum_ok(const Geometry& geometry, std::uint32_t seed, ConstBytes block, std::uint32_t pairs);
void set_dir_index_checksum(const Geometry& geometry, std::uint32_t seed, Bytes block, std::uint32_t pairs);

}  // namespace uext4::format
