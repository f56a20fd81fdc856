// Blocks of the orphan file, and the multiple-mount protection block.
#pragma once

#include "format/superblock.h"

namespace uext4::format {

inline constexpr std::uint32_t orphan_magic = 0x0B10CA04;
struct OrphanTail {
    Le32 magic, checksum;
};
constexpr std::uint32_t orphans_per_block(std::uint32_t block_size) {
    return (block_size - static_cast<std::uint32_t>(sizeof(OrphanTail))) / 4;
}
// `seed` is inode_seed() of the orphan file; the block's number is part of the sum.
bool orphan_block_ok(const Geometry& geometry, std::uint32_t seed, BlockNr block, ConstBytes contents);
void set_orphan_checksum(const Geometry& geometry, std::uint32_t seed, BlockNr block, Bytes contents);

inline constexpr std::uint32_t mmp_magic = 0x004D4D50, mmp_clean = 0xFF4D4D50, mmp_fsck = 0xE24D4D50,
                               mmp_highest_sequence = 0xE24D4D4F;
struct MmpBlock {
    Le32 magic, sequence;
    Le64 time;
    char node[64];
    char device[32];
    Le16 check_interval, padding1;
    Le32 padding2[226];
    Le32 checksum;
};
static_assert(sizeof(MmpBlock) == 1024);
bool mmp_checksum_ok(const Geometry& geometry, const MmpBlock& mmp);
void set_mmp_checksum(const Geometry& geometry, MmpBlock& mmp);

}  // namespace uext4::format
