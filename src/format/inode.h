// Inodes on disk.
#pragma once

#include "format/superblock.h"

#include <compare>

namespace uext4::format {

struct InodeDisk {
    Le16 mode, uid_lo;
    Le32 size_lo, atime, ctime, mtime, dtime;
    Le16 gid_lo, links_count;
    Le32 blocks_lo, flags, version_lo;
    std::byte block[60];
    Le32 generation, file_acl_lo, size_hi, obso_faddr;
    Le16 blocks_hi, file_acl_hi, uid_hi, gid_hi, checksum_lo, reserved;
    // Beyond 128 bytes, as far as extra_isize says:
    Le16 extra_isize, checksum_hi;
    Le32 ctime_extra, mtime_extra, atime_extra, crtime, crtime_extra, version_hi, projid;
};
static_assert(sizeof(InodeDisk) == 160 && offsetof(InodeDisk, block) == 0x28 &&
              offsetof(InodeDisk, extra_isize) == 0x80);
inline constexpr std::uint32_t classic_inode_size = 128;

struct Timestamp {
    std::int64_t sec = 0;
    std::uint32_t nsec = 0;
    auto operator<=>(const Timestamp&) const = default;
};

// `extra` null: 32-bit seconds only. 34-bit seconds and nanoseconds otherwise; out-of-range times are clamped, and
// the first and last second have no nanoseconds.
Timestamp decode_time(std::uint32_t seconds, const Le32* extra);
void encode_time(Timestamp time, Le32& seconds, Le32* extra);

// A raw inode of the file system's inode size.
bool inode_has_field(ConstBytes raw, std::size_t offset_of_field, std::size_t size_of_field);
#define UEXT4_INODE_HAS(raw, field)                                                    \
    ::uext4::format::inode_has_field(raw, offsetof(::uext4::format::InodeDisk, field), \
                                     sizeof(::uext4::format::InodeDisk::field))

std::uint32_t inode_checksum(const Geometry& geometry, InodeNr ino, ConstBytes raw);
bool inode_checksum_ok(const Geometry& geometry, InodeNr ino, ConstBytes raw);
void set_inode_checksum(const Geometry& geometry, InodeNr ino, Bytes raw);
// Seed of checksums of blocks that belong to the inode (extent nodes, directory blocks).
std::uint32_t inode_seed(const Geometry& geometry, InodeNr ino, std::uint32_t generation);

// Extra size, mode, size and attribute block make sense. EUCLEAN names inode and field.
Result<void> validate_inode(const Geometry& geometry, InodeNr ino, ConstBytes raw);

std::uint64_t inode_size_bytes(const Geometry& geometry, const InodeDisk& inode);
void set_inode_size_bytes(InodeDisk& inode, std::uint64_t size);
// Block of extended attributes; 0 when there is none.
BlockNr inode_attribute_block(const Geometry& geometry, const InodeDisk& inode);
// i_blocks in units of 512 bytes.
std::uint64_t inode_sectors(const Geometry& geometry, const InodeDisk& inode);
void set_inode_sectors(const Geometry& geometry, InodeDisk& inode, std::uint64_t sectors);

// Device numbers live in i_block[0] (old, 16 bits) or [1] (new).
std::uint64_t decode_device(const InodeDisk& inode);
void encode_device(InodeDisk& inode, std::uint64_t dev);

}  // namespace uext4::format
