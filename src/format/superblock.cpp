#include "format/superblock.h"

#include "format/checksum.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace uext4::format {

bool super_checksum_ok(const SuperBlock& super) {
    if (!super.has_ro_compat(ro_compat::metadata_csum)) return true;
    return super.checksum == crc32c(~0u, bytes_of(super).first(offsetof(SuperBlock, checksum)));
}

void set_super_checksum(SuperBlock& super) {
    if (!super.has_ro_compat(ro_compat::metadata_csum)) return;
    super.checksum = crc32c(~0u, bytes_of(super).first(offsetof(SuperBlock, checksum)));
}

void record_hash_sign(SuperBlock& super) {
    constexpr std::uint32_t known = super_flag::signed_hash | super_flag::unsigned_hash;
    if (!(super.flags & known)) super.flags = super.flags | super_flag::unsigned_hash;
}

Support support_for(std::uint32_t c, std::uint32_t i, std::uint32_t r) {
    (void)c;
    Support out;
    constexpr std::uint32_t read_write = incompat::filetype | incompat::recover | incompat::meta_bg |
                                         incompat::extents | incompat::bit64 | incompat::mmp | incompat::flex_bg |
                                         incompat::ea_inode | incompat::csum_seed | incompat::large_dir |
                                         incompat::inline_data | incompat::encrypt | incompat::casefold;
    if (const std::uint32_t unknown = i & ~read_write) {
        out.readable = out.writable = false;
        out.why = feature_names(FeatureSet::incompat, unknown);
        return out;
    }
    constexpr std::uint32_t ro_write = ro_compat::sparse_super | ro_compat::large_file | ro_compat::huge_file |
                                       ro_compat::gdt_csum | ro_compat::dir_nlink | ro_compat::extra_isize |
                                       ro_compat::bigalloc | ro_compat::metadata_csum | ro_compat::orphan_present |
                                       ro_compat::verity;
    if (const std::uint32_t limits = r & ~ro_write) {
        out.writable = false;
        out.why = feature_names(FeatureSet::ro_compat, limits);
    }
    return out;
}

namespace {

std::unexpected<Error> absurd(const char* field, std::uint64_t value, const std::string& expected) {
    return fail(EUCLEAN, "superblock: {} is {}, expected {}", field, value, expected);
}

bool is_power_of(std::uint64_t n, std::uint64_t base) {
    while (n > 1 && n % base == 0) n /= base;
    return n == 1;
}

std::uint64_t indirect_span(std::uint64_t per) { return 12 + per + per * per + per * per * per; }

// Blocks of pointers that the first `blocks` blocks of a file need.
std::uint64_t pointer_blocks(std::uint64_t blocks, std::uint64_t per) {
    std::uint64_t out = 0, left = blocks - std::min<std::uint64_t>(blocks, 12), reach = per;
    for (int level = 1; level <= 3 && left > 0; ++level, reach *= per) {
        const std::uint64_t here = std::min(left, reach);
        for (std::uint64_t below = per; below <= reach; below *= per) out += divide_up(here, below);
        left -= here;
    }
    return out;
}

std::uint64_t largest_indirect(std::uint32_t block_size, bool huge) {
    const std::uint64_t per = block_size / 4;
    const std::uint64_t by_shape = indirect_span(per);
    // i_blocks counts 512-byte sectors in 32 bits, or 48 with huge_file; the blocks of pointers count as well. Linux
    // takes off those of a file of that many blocks, which is a little too much, and what it refuses, we refuse.
    const std::uint64_t counted = ((std::uint64_t{1} << (huge ? 48 : 32)) - 1) / (block_size / 512);
    const std::uint64_t by_count = counted - pointer_blocks(counted, per);
    const std::uint64_t blocks = by_shape <= counted ? by_shape : by_count;
    return std::min<std::uint64_t>(blocks, 0xFFFFFFFF) * block_size;
}

}  // namespace

Result<Geometry> Geometry::parse(const SuperBlock& s, std::uint64_t device_bytes) {
    if (s.magic != super_magic)
        return fail(EINVAL, "superblock: s_magic is {:#06x}, expected 0xef53: no ext2, ext3 or ext4 file system",
                    s.magic.get());
    Geometry g;
    if (s.rev_level > 1) return absurd("s_rev_level", s.rev_level, "0 or 1");
    const bool dynamic = s.rev_level >= 1;
    // What revision 0 should not have counts nevertheless, as for Linux and e2fsck.
    g.compat = s.feature_compat;
    g.incompat = s.feature_incompat;
    g.ro_compat = s.feature_ro_compat;
    if (s.log_block_size > 6) return absurd("s_log_block_size", s.log_block_size, "0 to 6");
    g.block_bits = 10 + s.log_block_size;
    g.block_size = 1u << g.block_bits;
    const bool big = g.has_ro_compat(ro_compat::bigalloc);
    if (big) {
        if (s.log_cluster_size < s.log_block_size || s.log_cluster_size > 19)
            return absurd("s_log_cluster_size", s.log_cluster_size,
                          fmt::format("{} (s_log_block_size) to 19", s.log_block_size.get()));
        if (!g.has_incompat(incompat::extents))
            return fail(EUCLEAN, "superblock: feature bigalloc without extent, expected both");
        g.cluster_bits = s.log_cluster_size - s.log_block_size;
        g.cluster_ratio = 1u << g.cluster_bits;
        g.overhead_clusters = s.overhead_clusters;
    } else if (s.log_cluster_size != s.log_block_size) {
        return absurd("s_log_cluster_size", s.log_cluster_size,
                      fmt::format("{} (s_log_block_size), as without bigalloc", s.log_block_size.get()));
    }
    g.blocks_count = s.blocks_count_lo;
    g.reserved_blocks = s.r_blocks_count_lo;
    if (g.has_incompat(incompat::bit64)) {
        g.blocks_count = s.blocks_count();
        g.reserved_blocks = s.reserved_blocks();
    }
    if (g.blocks_count == 0 || g.blocks_count >> 48) return absurd("s_blocks_count", g.blocks_count, "1 to 2^48 - 1");
    if (device_bytes && g.blocks_count > device_bytes / g.block_size)
        return fail(
            EUCLEAN,
            "superblock: s_blocks_count is {}, expected at most {}: the device holds no more blocks of {} bytes",
            g.blocks_count, device_bytes / g.block_size, g.block_size);
    if (g.reserved_blocks > g.blocks_count)
        return absurd("s_r_blocks_count", g.reserved_blocks,
                      fmt::format("at most {} (s_blocks_count)", g.blocks_count));
    g.first_data_block = s.first_data_block;
    // The first KiB is for boot code. With bigalloc, clusters count from block 0 whatever the block size.
    const bool block_0_is_boot = g.block_size == 1024 && g.cluster_ratio == 1;
    if (block_0_is_boot ? g.first_data_block != 1 : g.first_data_block > (g.block_size == 1024 ? 1u : 0u))
        return absurd("s_first_data_block", g.first_data_block, block_0_is_boot ? "1" : "0");
    if (g.first_data_block >= g.blocks_count)
        return absurd("s_first_data_block", g.first_data_block,
                      fmt::format("below {} (s_blocks_count)", g.blocks_count));
    g.blocks_per_group = s.blocks_per_group;
    g.clusters_per_group = s.clusters_per_group;
    const auto fits_bitmap = [&](std::uint32_t n) { return n != 0 && n <= 8 * g.block_size && n % 8 == 0; };
    const std::string bitmap = fmt::format("a multiple of 8 from 8 to {}", 8 * g.block_size);
    if (!big && !fits_bitmap(g.blocks_per_group)) return absurd("s_blocks_per_group", g.blocks_per_group, bitmap);
    if (!fits_bitmap(g.clusters_per_group)) return absurd("s_clusters_per_group", g.clusters_per_group, bitmap);
    if (!big && g.clusters_per_group != g.blocks_per_group)
        return absurd("s_clusters_per_group", g.clusters_per_group,
                      fmt::format("{} (s_blocks_per_group), as without bigalloc", g.blocks_per_group));
    if (const std::uint64_t blocks = std::uint64_t{g.clusters_per_group} * g.cluster_ratio;
        g.blocks_per_group != blocks)
        return absurd("s_blocks_per_group", g.blocks_per_group,
                      fmt::format("{}: {} clusters of {} blocks", blocks, g.clusters_per_group, g.cluster_ratio));
    g.hurd = s.creator_os == creator_os::hurd;
    g.inode_size = dynamic ? s.inode_size.get() : 128u;
    if (g.inode_size < 128 || g.inode_size > g.block_size || !std::has_single_bit(g.inode_size))
        return absurd("s_inode_size", g.inode_size, fmt::format("a power of two from 128 to {}", g.block_size));
    g.inodes_per_group = s.inodes_per_group;
    const std::uint32_t per_block = g.block_size / g.inode_size;
    if (g.inodes_per_group < per_block || g.inodes_per_group > 8 * g.block_size || g.inodes_per_group % 8 != 0)
        return absurd("s_inodes_per_group", g.inodes_per_group,
                      fmt::format("a multiple of 8 from {} to {}", per_block, 8 * g.block_size));
    g.inode_table_blocks = static_cast<std::uint32_t>(divide_up(g.inodes_per_group, per_block));
    if (g.has_incompat(incompat::bit64)) {
        g.desc_size = s.desc_size;
        if (g.desc_size < 64 || g.desc_size > g.block_size || g.desc_size > 1024 || !std::has_single_bit(g.desc_size))
            return absurd("s_desc_size", g.desc_size,
                          fmt::format("a power of two from 64 to {}", std::min(g.block_size, 1024u)));
    }
    const std::uint64_t groups = divide_up(g.blocks_count - g.first_data_block, g.blocks_per_group);
    if (groups > 0xFFFFFFFFu / 2)
        return absurd("s_blocks_count", g.blocks_count,
                      fmt::format("at most 2^31 - 1 groups of {} blocks", g.blocks_per_group));
    g.group_count = static_cast<std::uint32_t>(groups);
    g.descs_per_block = g.block_size / g.desc_size;
    if (const std::uint64_t inodes = std::uint64_t{g.inodes_per_group} * groups; inodes != s.inodes_count)
        return absurd("s_inodes_count", s.inodes_count,
                      fmt::format("{}: {} groups of {} inodes", inodes, groups, g.inodes_per_group));
    g.inodes_count = s.inodes_count;
    g.first_inode = dynamic ? s.first_ino.get() : 11u;
    if (g.first_inode < 11 || g.first_inode > g.inodes_count)
        return absurd("s_first_ino", g.first_inode, fmt::format("11 to {} (s_inodes_count)", g.inodes_count));
    g.want_extra_isize = 0;
    if (g.inode_size > 128) {
        // Without the feature nobody looks at them, and with it nobody has room for more.
        if (g.has_ro_compat(ro_compat::extra_isize)) {
            const std::uint32_t room = g.inode_size - 128;
            const std::string at_most = fmt::format("at most {}, for inodes of {} bytes", room, g.inode_size);
            if (s.want_extra_isize > room) return absurd("s_want_extra_isize", s.want_extra_isize, at_most);
            if (s.min_extra_isize > room) return absurd("s_min_extra_isize", s.min_extra_isize, at_most);
        }
        g.want_extra_isize = std::clamp<std::uint32_t>(s.want_extra_isize, 32, g.inode_size - 128) & ~3u;
    }
    std::copy_n(s.uuid, 16, g.uuid.begin());
    for (int k = 0; k < 4; ++k) g.hash_seed[static_cast<unsigned>(k)] = s.hash_seed[k];
    g.default_hash = s.def_hash_version;
    if (g.default_hash > 2) g.default_hash = g.default_hash > 5 ? 1 : static_cast<std::uint8_t>(g.default_hash - 3);
    // Where nothing says how names are hashed, as Linux does since its char has no sign.
    g.hash_unsigned = (s.flags & super_flag::unsigned_hash) || !(s.flags & super_flag::signed_hash);
    g.checksum_seed = g.has_incompat(incompat::csum_seed)
                          ? s.checksum_seed.get()
                          : crc32c(~0u, ConstBytes(reinterpret_cast<const std::byte*>(s.uuid), 16));
    if (g.metadata_csum()) {
        if (s.checksum_type != 1) return absurd("s_checksum_type", s.checksum_type, "1 (CRC32c)");
        g.descriptor_checksum = DescriptorChecksum::crc32c;
    } else if (g.has_ro_compat(ro_compat::gdt_csum)) {
        g.descriptor_checksum = DescriptorChecksum::crc16;
    }
    g.log_groups_per_flex = g.has_incompat(incompat::flex_bg) ? s.log_groups_per_flex : 0;
    if (g.log_groups_per_flex > 31) return absurd("s_log_groups_per_flex", g.log_groups_per_flex, "at most 31");
    g.first_meta_bg = g.has_incompat(incompat::meta_bg) ? s.first_meta_bg.get() : 0;
    const std::uint64_t desc_blocks = divide_up(groups, g.descs_per_block);
    if (g.first_meta_bg > desc_blocks)
        return absurd("s_first_meta_bg", g.first_meta_bg, fmt::format("at most {} descriptor blocks", desc_blocks));
    g.reserved_gdt_blocks = s.reserved_gdt_blocks;
    if (g.reserved_gdt_blocks > g.block_size / 4)
        return absurd("s_reserved_gdt_blocks", g.reserved_gdt_blocks, fmt::format("at most {}", g.block_size / 4));
    if (g.has_compat(compat::sparse_super2)) g.backup_groups = {s.backup_bgs[0], s.backup_bgs[1]};
    if (const BlockNr last = g.descriptor_place(GroupNr(groups - 1)).block; last.value >= g.blocks_count)
        return fail(EUCLEAN,
                    "superblock: the last group descriptors lie at block {}, expected below {} (s_blocks_count)", last,
                    g.blocks_count);
    const bool huge = g.has_ro_compat(ro_compat::huge_file);
    g.max_extent_file_size = std::uint64_t{0xFFFFFFFFu} << g.block_bits;
    if (!huge)
        g.max_extent_file_size =
            std::min<std::uint64_t>(g.max_extent_file_size, round_down(std::uint64_t{0xFFFFFFFFu} * 512, g.block_size));
    g.max_indirect_file_size = largest_indirect(g.block_size, huge);
    g.journal_inode = g.has_compat(compat::has_journal) ? s.journal_inum.get() : 0;
    g.orphan_file_inode = g.has_compat(compat::orphan_file) ? s.orphan_file_inum.get() : 0;
    if (g.has_ro_compat(ro_compat::quota)) {
        g.user_quota_inode = s.usr_quota_inum;
        g.group_quota_inode = s.grp_quota_inum;
        g.project_quota_inode = s.prj_quota_inum;
    }
    g.mmp_block = g.has_incompat(incompat::mmp) ? s.mmp_block.get() : 0;
    return g;
}

std::uint64_t Geometry::nameable_bytes(bool by_extents) const {
    constexpr std::uint64_t numbers = 0xFFFFFFFF;  // of logical blocks
    return (by_extents ? numbers : std::min(numbers, indirect_span(block_size / 4))) << block_bits;
}

std::uint32_t Geometry::blocks_in_group(GroupNr group) const {
    const std::uint64_t left = blocks_count - first_block(group).value;
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(left, blocks_per_group));
}

bool Geometry::has_super_backup(GroupNr group) const {
    const std::uint64_t n = group.value;
    if (n == 0) return true;
    if (has_compat(compat::sparse_super2)) return n == backup_groups[0] || n == backup_groups[1];
    if (n == 1 || !has_ro_compat(ro_compat::sparse_super)) return true;
    if (n % 2 == 0) return false;
    return is_power_of(n, 3) || is_power_of(n, 5) || is_power_of(n, 7);
}

std::uint32_t Geometry::base_meta_blocks(GroupNr group) const {
    std::uint32_t blocks = has_super_backup(group) ? 1 : 0;
    const std::uint32_t desc_blocks = static_cast<std::uint32_t>(divide_up(group_count, descs_per_block));
    const std::uint64_t meta_group = group.value / descs_per_block;
    if (!has_incompat(incompat::meta_bg) || meta_group < first_meta_bg) {
        if (blocks) blocks += (has_incompat(incompat::meta_bg) ? first_meta_bg : desc_blocks) + reserved_gdt_blocks;
    } else {
        const std::uint64_t inside = group.value % descs_per_block;
        if (inside == 0 || inside == 1 || inside == descs_per_block - 1) ++blocks;
    }
    return blocks;
}

Geometry::DescriptorPlace Geometry::descriptor_place(GroupNr group) const {
    const std::uint64_t meta_group = group.value / descs_per_block;
    const std::uint32_t offset = static_cast<std::uint32_t>(group.value % descs_per_block) * desc_size;
    // The superblock lies in the first data block, but with 1 KiB blocks and bigalloc in block 1 while counting from 0.
    const std::uint64_t super_block = block_size == 1024 ? 1 : 0;
    if (!has_incompat(incompat::meta_bg) || meta_group < first_meta_bg)
        return {BlockNr(super_block + 1 + meta_group), offset};
    const GroupNr first(meta_group * descs_per_block);
    std::uint64_t block = first_block(first).value + (has_super_backup(first) ? 1 : 0);
    if (block_size == 1024 && first.value == 0 && first_data_block == 0) ++block;
    return {BlockNr(block), offset};
}

}  // namespace uext4::format
