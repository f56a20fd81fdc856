#include "format/group_desc.h"

#include "format/checksum.h"

#include <cstring>
#include <vector>

namespace uext4::format {

// Over the file system, the group's number, and the descriptor with its checksum taken as zero (left out by crc16).
std::uint16_t GroupDescView::compute(const Geometry& g, GroupNr group) const {
    const std::size_t at = offsetof(GroupDesc, checksum);
    const Le32 number(static_cast<std::uint32_t>(group.value));
    if (g.descriptor_checksum == DescriptorChecksum::crc32c) {
        std::uint32_t crc = crc32c(g.checksum_seed, bytes_of(number));
        const Le16 zero(0);
        crc = crc32c(crc, ConstBytes(bytes_).first(at));
        crc = crc32c(crc, bytes_of(zero));
        crc = crc32c(crc, ConstBytes(bytes_).subspan(at + 2));
        return static_cast<std::uint16_t>(crc);
    }
    std::uint16_t crc = crc16(0xFFFF, ConstBytes(reinterpret_cast<const std::byte*>(g.uuid.data()), 16));
    crc = crc16(crc, bytes_of(number));
    crc = crc16(crc, ConstBytes(bytes_).first(at));
    if (g.has_incompat(incompat::bit64) && bytes_.size() > at + 2) crc = crc16(crc, ConstBytes(bytes_).subspan(at + 2));
    return crc;
}

bool GroupDescView::checksum_ok(const Geometry& g, GroupNr group) const {
    return g.descriptor_checksum == DescriptorChecksum::none || checksum() == compute(g, group);
}

void GroupDescView::set_checksum(const Geometry& g, GroupNr group) {
    if (g.descriptor_checksum != DescriptorChecksum::none) d().checksum = compute(g, group);
}

namespace {

// Descriptors of 32 bytes hold the lower half only.
bool same(std::uint32_t stored, std::uint32_t computed, bool wide) {
    return wide ? stored == computed : stored == (computed & 0xFFFF);
}

std::uint32_t bitmap_checksum(const Geometry& g, ConstBytes bitmap, std::uint32_t bits) {
    return crc32c(g.checksum_seed, bitmap.first(bits / 8));
}

}  // namespace

bool GroupDescView::block_bitmap_ok(const Geometry& g, ConstBytes bitmap) const {
    return !g.metadata_csum() || same(block_bitmap_checksum(), bitmap_checksum(g, bitmap, g.clusters_per_group), wide_);
}
bool GroupDescView::inode_bitmap_ok(const Geometry& g, ConstBytes bitmap) const {
    return !g.metadata_csum() || same(inode_bitmap_checksum(), bitmap_checksum(g, bitmap, g.inodes_per_group), wide_);
}
void GroupDescView::sum_block_bitmap(const Geometry& g, ConstBytes bitmap) {
    if (g.metadata_csum()) set_block_bitmap_checksum(bitmap_checksum(g, bitmap, g.clusters_per_group));
}
void GroupDescView::sum_inode_bitmap(const Geometry& g, ConstBytes bitmap) {
    if (g.metadata_csum()) set_inode_bitmap_checksum(bitmap_checksum(g, bitmap, g.inodes_per_group));
}

}  // namespace uext4::format
