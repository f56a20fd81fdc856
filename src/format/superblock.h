// The superblock, and what follows from it.
#pragma once

#include "base/bytes.h"
#include "base/numbers.h"
#include "base/result.h"
#include "format/constants.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace uext4::format {

struct SuperBlock {
    Le32 inodes_count, blocks_count_lo, r_blocks_count_lo, free_blocks_count_lo, free_inodes_count, first_data_block,
        log_block_size, log_cluster_size, blocks_per_group, clusters_per_group, inodes_per_group, mtime, wtime;
    Le16 mnt_count, max_mnt_count, magic, state, errors, minor_rev_level;
    Le32 lastcheck, checkinterval, creator_os, rev_level;
    Le16 def_resuid, def_resgid;
    Le32 first_ino;
    Le16 inode_size, block_group_nr;
    Le32 feature_compat, feature_incompat, feature_ro_compat;
    std::uint8_t uuid[16];
    char volume_name[16];
    char last_mounted[64];
    Le32 algorithm_usage_bitmap;
    std::uint8_t prealloc_blocks, prealloc_dir_blocks;
    Le16 reserved_gdt_blocks;
    std::uint8_t journal_uuid[16];
    Le32 journal_inum, journal_dev, last_orphan;
    Le32 hash_seed[4];
    std::uint8_t def_hash_version, jnl_backup_type;
    Le16 desc_size;
    Le32 default_mount_opts, first_meta_bg, mkfs_time;
    Le32 jnl_blocks[17];
    Le32 blocks_count_hi, r_blocks_count_hi, free_blocks_count_hi;
    Le16 min_extra_isize, want_extra_isize;
    Le32 flags;
    Le16 raid_stride, mmp_update_interval;
    Le64 mmp_block;
    Le32 raid_stripe_width;
    std::uint8_t log_groups_per_flex, checksum_type, encryption_level, reserved_pad;
    Le64 kbytes_written;
    Le32 snapshot_inum, snapshot_id;
    Le64 snapshot_r_blocks_count;
    Le32 snapshot_list, error_count, first_error_time, first_error_ino;
    Le64 first_error_block;
    char first_error_func[32];
    Le32 first_error_line, last_error_time, last_error_ino, last_error_line;
    Le64 last_error_block;
    char last_error_func[32];
    char mount_opts[64];
    Le32 usr_quota_inum, grp_quota_inum, overhead_clusters;
    Le32 backup_bgs[2];
    std::uint8_t encrypt_algos[4];
    std::uint8_t encrypt_pw_salt[16];
    Le32 lpf_ino, prj_quota_inum, checksum_seed;
    std::uint8_t wtime_hi, mtime_hi, mkfs_time_hi, lastcheck_hi, first_error_time_hi, last_error_time_hi,
        first_error_errcode, last_error_errcode;
    Le16 encoding, encoding_flags;
    Le32 orphan_file_inum;
    Le32 reserved[94];
    Le32 checksum;

    std::uint64_t blocks_count() const { return blocks_count_lo.get() | std::uint64_t{blocks_count_hi.get()} << 32; }
    std::uint64_t reserved_blocks() const {
        return r_blocks_count_lo.get() | std::uint64_t{r_blocks_count_hi.get()} << 32;
    }
    std::uint64_t free_blocks() const {
        return free_blocks_count_lo.get() | std::uint64_t{free_blocks_count_hi.get()} << 32;
    }
    void set_free_blocks(std::uint64_t n) {
        free_blocks_count_lo = static_cast<std::uint32_t>(n);
        free_blocks_count_hi = static_cast<std::uint32_t>(n >> 32);
    }
    bool has_compat(std::uint32_t f) const { return (feature_compat & f) != 0; }
    bool has_incompat(std::uint32_t f) const { return (feature_incompat & f) != 0; }
    bool has_ro_compat(std::uint32_t f) const { return (feature_ro_compat & f) != 0; }
};
static_assert(sizeof(SuperBlock) == 1024);
static_assert(offsetof(SuperBlock, magic) == 0x38 && offsetof(SuperBlock, uuid) == 0x68);
static_assert(offsetof(SuperBlock, journal_inum) == 0xE0 && offsetof(SuperBlock, desc_size) == 0xFE);
static_assert(offsetof(SuperBlock, mmp_block) == 0x168 && offsetof(SuperBlock, error_count) == 0x194);
static_assert(offsetof(SuperBlock, checksum_seed) == 0x270 && offsetof(SuperBlock, orphan_file_inum) == 0x280);
static_assert(offsetof(SuperBlock, checksum) == 0x3FC);

// With metadata_csum. Verification is true where there is no checksum.
bool super_checksum_ok(const SuperBlock& super);
void set_super_checksum(SuperBlock& super);

// From now on the file system says how its names are hashed: by whoever writes it first.
void record_hash_sign(SuperBlock& super);

enum class DescriptorChecksum : std::uint8_t { none, crc16, crc32c };
enum class HashVersion : std::uint8_t {
    legacy,
    half_md4,
    tea,
    legacy_unsigned,
    half_md4_unsigned,
    tea_unsigned,
    siphash
};

// What the features of a file system permit; `why` names the feature that limits it.
struct Support {
    bool readable = true, writable = true;
    std::string why;
};
Support support_for(std::uint32_t compat, std::uint32_t incompat, std::uint32_t ro_compat);

// Facts of a file system that do not change while it is in use, validated.
struct Geometry {
    std::uint32_t block_size = 0, block_bits = 0;
    std::uint64_t blocks_count = 0, reserved_blocks = 0, first_data_block = 0;
    std::uint64_t inodes_count = 0;
    std::uint32_t inodes_per_group = 0, blocks_per_group = 0, clusters_per_group = 0;
    std::uint32_t cluster_ratio = 1, cluster_bits = 0;  // blocks a cluster
    std::uint64_t overhead_clusters = 0;                // that no file can have, as the superblock says; 0: not told
    std::uint32_t inode_size = 0, desc_size = 32, group_count = 0, descs_per_block = 0, inode_table_blocks = 0;
    std::uint32_t first_inode = 11, want_extra_isize = 0;
    std::uint32_t compat = 0, incompat = 0, ro_compat = 0;
    std::uint32_t checksum_seed = 0;  // of metadata_csum, and of the values in ea_inodes
    DescriptorChecksum descriptor_checksum = DescriptorChecksum::none;
    std::array<std::uint32_t, 4> hash_seed{};
    std::uint8_t default_hash = 1;  // HashVersion of new directories, without the signedness
    bool hash_unsigned = false;
    bool hurd = false;  // made for the Hurd, which has other fields in some places of an inode
    std::array<std::uint8_t, 16> uuid{};
    std::uint32_t log_groups_per_flex = 0, first_meta_bg = 0, reserved_gdt_blocks = 0;
    std::array<std::uint32_t, 2> backup_groups{};
    std::uint64_t max_extent_file_size = 0, max_indirect_file_size = 0;  // bytes; what may be written
    std::uint32_t journal_inode = 0, orphan_file_inode = 0;
    std::uint32_t user_quota_inode = 0, group_quota_inode = 0, project_quota_inode = 0;
    std::uint64_t mmp_block = 0;

    // EINVAL when it is no ext4; EUCLEAN names the absurd field. Blocks beyond `device_bytes` are refused unless it is
    // 0.
    static Result<Geometry> parse(const SuperBlock& super, std::uint64_t device_bytes);

    bool has_compat(std::uint32_t f) const { return (compat & f) != 0; }
    bool has_incompat(std::uint32_t f) const { return (incompat & f) != 0; }
    bool has_ro_compat(std::uint32_t f) const { return (ro_compat & f) != 0; }
    bool metadata_csum() const { return has_ro_compat(ro_compat::metadata_csum); }
    bool has_filetype() const { return has_incompat(incompat::filetype); }

    // Bytes that extents, or indirect blocks, can name, however few of them i_blocks can count: files with holes, and
    // the inode that keeps descriptor blocks, may be larger than what may be written.
    std::uint64_t nameable_bytes(bool by_extents) const;
    bool valid_block(BlockNr block) const { return block.value >= first_data_block && block.value < blocks_count; }
    bool valid_inode(InodeNr ino) const { return ino.value >= 1 && ino.value <= inodes_count; }
    // Where the file system keeps its own records: all before the first inode but the root, and those it names.
    bool is_own_inode(InodeNr ino) const {
        const std::uint64_t n = ino.value;
        return (n < first_inode && n != special_inode::root) || n == journal_inode || n == orphan_file_inode ||
               n == user_quota_inode || n == group_quota_inode || n == project_quota_inode;
    }
    GroupNr group_of(BlockNr block) const { return GroupNr((block.value - first_data_block) / blocks_per_group); }
    GroupNr group_of(InodeNr ino) const { return GroupNr((ino.value - 1) / inodes_per_group); }
    std::uint32_t index_in_group(InodeNr ino) const {
        return static_cast<std::uint32_t>((ino.value - 1) % inodes_per_group);
    }
    BlockNr first_block(GroupNr group) const { return BlockNr(first_data_block + group.value * blocks_per_group); }
    std::uint32_t blocks_in_group(GroupNr group) const;
    std::uint32_t clusters_in_group(GroupNr group) const {
        return (blocks_in_group(group) + cluster_ratio - 1) / cluster_ratio;
    }
    bool has_super_backup(GroupNr group) const;  // group 0 has the primary
    // Superblock, descriptors and reserved descriptor blocks at the group's start.
    std::uint32_t base_meta_blocks(GroupNr group) const;
    struct DescriptorPlace {
        BlockNr block;
        std::uint32_t offset;
    };
    DescriptorPlace descriptor_place(GroupNr group) const;
};

}  // namespace uext4::format
