// Block group descriptors.
#pragma once

#include "format/superblock.h"

namespace uext4::format {

struct GroupDesc {
    Le32 block_bitmap_lo, inode_bitmap_lo, inode_table_lo;
    Le16 free_blocks_lo, free_inodes_lo, used_dirs_lo, flags;
    Le32 exclude_bitmap_lo;
    Le16 block_bitmap_csum_lo, inode_bitmap_csum_lo, itable_unused_lo, checksum;
    Le32 block_bitmap_hi, inode_bitmap_hi, inode_table_hi;
    Le16 free_blocks_hi, free_inodes_hi, used_dirs_hi, itable_unused_hi;
    Le32 exclude_bitmap_hi;
    Le16 block_bitmap_csum_hi, inode_bitmap_csum_hi;
    Le32 reserved;
};
static_assert(sizeof(GroupDesc) == 64);

// A descriptor of 32 bytes (upper halves absent) or more, inside a block.
class GroupDescView {
public:
    GroupDescView(Bytes bytes, std::uint32_t desc_size) : bytes_(bytes.first(desc_size)), wide_(desc_size >= 64) {}

    BlockNr block_bitmap() const { return BlockNr(join(&GroupDesc::block_bitmap_lo, &GroupDesc::block_bitmap_hi)); }
    BlockNr inode_bitmap() const { return BlockNr(join(&GroupDesc::inode_bitmap_lo, &GroupDesc::inode_bitmap_hi)); }
    BlockNr inode_table() const { return BlockNr(join(&GroupDesc::inode_table_lo, &GroupDesc::inode_table_hi)); }
    std::uint32_t free_clusters() const { return join16(&GroupDesc::free_blocks_lo, &GroupDesc::free_blocks_hi); }
    std::uint32_t free_inodes() const { return join16(&GroupDesc::free_inodes_lo, &GroupDesc::free_inodes_hi); }
    std::uint32_t used_dirs() const { return join16(&GroupDesc::used_dirs_lo, &GroupDesc::used_dirs_hi); }
    std::uint32_t itable_unused() const { return join16(&GroupDesc::itable_unused_lo, &GroupDesc::itable_unused_hi); }
    std::uint16_t flags() const { return d().flags; }
    std::uint32_t block_bitmap_checksum() const {
        return join16(&GroupDesc::block_bitmap_csum_lo, &GroupDesc::block_bitmap_csum_hi);
    }
    std::uint32_t inode_bitmap_checksum() const {
        return join16(&GroupDesc::inode_bitmap_csum_lo, &GroupDesc::inode_bitmap_csum_hi);
    }
    std::uint16_t checksum() const { return d().checksum; }

    void set_free_clusters(std::uint32_t n) { split16(&GroupDesc::free_blocks_lo, &GroupDesc::free_blocks_hi, n); }
    void set_free_inodes(std::uint32_t n) { split16(&GroupDesc::free_inodes_lo, &GroupDesc::free_inodes_hi, n); }
    void set_used_dirs(std::uint32_t n) { split16(&GroupDesc::used_dirs_lo, &GroupDesc::used_dirs_hi, n); }
    void set_itable_unused(std::uint32_t n) { split16(&GroupDesc::itable_unused_lo, &GroupDesc::itable_unused_hi, n); }
    void set_flags(std::uint16_t f) { d().flags = f; }
    void set_block_bitmap_checksum(std::uint32_t n) {
        split16(&GroupDesc::block_bitmap_csum_lo, &GroupDesc::block_bitmap_csum_hi, n);
    }
    void set_inode_bitmap_checksum(std::uint32_t n) {
        split16(&GroupDesc::inode_bitmap_csum_lo, &GroupDesc::inode_bitmap_csum_hi, n);
    }

    // Of the descriptor itself; always good, and nothing to set, where the file system has none.
    bool checksum_ok(const Geometry& geometry, GroupNr group) const;
    void set_checksum(const Geometry& geometry, GroupNr group);
    // Of the bitmap blocks (crc32c only).
    bool block_bitmap_ok(const Geometry& geometry, ConstBytes bitmap) const;
    bool inode_bitmap_ok(const Geometry& geometry, ConstBytes bitmap) const;
    void sum_block_bitmap(const Geometry& geometry, ConstBytes bitmap);
    void sum_inode_bitmap(const Geometry& geometry, ConstBytes bitmap);

private:
    GroupDesc& d() { return *reinterpret_cast<GroupDesc*>(bytes_.data()); }
    const GroupDesc& d() const { return *reinterpret_cast<const GroupDesc*>(bytes_.data()); }
    std::uint64_t join(Le32 GroupDesc::* lo, Le32 GroupDesc::* hi) const {
        return (d().*lo).get() | (wide_ ? std::uint64_t{(d().*hi).get()} << 32 : 0);
    }
    std::uint32_t join16(Le16 GroupDesc::* lo, Le16 GroupDesc::* hi) const {
        return (d().*lo).get() | (wide_ ? std::uint32_t{(d().*hi).get()} << 16 : 0);
    }
    void split16(Le16 GroupDesc::* lo, Le16 GroupDesc::* hi, std::uint32_t n) {
        d().*lo = static_cast<std::uint16_t>(n);
        if (wide_) d().*hi = static_cast<std::uint16_t>(n >> 16);
    }
    std::uint16_t compute(const Geometry& geometry, GroupNr group) const;

    Bytes bytes_;
    bool wide_;
};

}  // namespace uext4::format
