#include "format/describe.h"

#include "format/directory.h"
#include "format/extent.h"
#include "format/group_desc.h"
#include "format/inode.h"
#include "format/journal.h"
#include "format/orphan.h"
#include "format/xattr.h"

namespace uext4::format {

namespace {

using F = FieldDescription;

// Offsets and sizes are taken from the structures themselves, so that the table cannot disagree with the code.
#define UEXT4_FIELD(type, prefix, field, kind)                               \
    F {                                                                      \
        prefix #field, static_cast<std::uint32_t>(offsetof(type, field)),    \
            static_cast<std::uint32_t>(sizeof(type::field)), FieldKind::kind \
    }
#define S(field) UEXT4_FIELD(SuperBlock, "s_", field, little)
#define S_BYTES(field) UEXT4_FIELD(SuperBlock, "s_", field, bytes)
#define S_ELEMENT(field, index)                                                                             \
    F {                                                                                                     \
        "s_" #field "[" #index "]", static_cast<std::uint32_t>(offsetof(SuperBlock, field) + index * 4), 4, \
            FieldKind::little                                                                               \
    }

constexpr F superblock[] = {S(inodes_count),
                            S(blocks_count_lo),
                            S(r_blocks_count_lo),
                            S(free_blocks_count_lo),
                            S(free_inodes_count),
                            S(first_data_block),
                            S(log_block_size),
                            S(log_cluster_size),
                            S(blocks_per_group),
                            S(clusters_per_group),
                            S(inodes_per_group),
                            S(mtime),
                            S(wtime),
                            S(mnt_count),
                            S(max_mnt_count),
                            S(magic),
                            S(state),
                            S(errors),
                            S(minor_rev_level),
                            S(lastcheck),
                            S(checkinterval),
                            S(creator_os),
                            S(rev_level),
                            S(def_resuid),
                            S(def_resgid),
                            S(first_ino),
                            S(inode_size),
                            S(block_group_nr),
                            S(feature_compat),
                            S(feature_incompat),
                            S(feature_ro_compat),
                            S_BYTES(uuid),
                            S_BYTES(volume_name),
                            S_BYTES(last_mounted),
                            S(algorithm_usage_bitmap),
                            S(prealloc_blocks),
                            S(prealloc_dir_blocks),
                            S(reserved_gdt_blocks),
                            S_BYTES(journal_uuid),
                            S(journal_inum),
                            S(journal_dev),
                            S(last_orphan),
                            S_ELEMENT(hash_seed, 0),
                            S_ELEMENT(hash_seed, 1),
                            S_ELEMENT(hash_seed, 2),
                            S_ELEMENT(hash_seed, 3),
                            S(def_hash_version),
                            S(jnl_backup_type),
                            S(desc_size),
                            S(default_mount_opts),
                            S(first_meta_bg),
                            S(mkfs_time),
                            S_BYTES(jnl_blocks),
                            S(blocks_count_hi),
                            S(r_blocks_count_hi),
                            S(free_blocks_count_hi),
                            S(min_extra_isize),
                            S(want_extra_isize),
                            S(flags),
                            S(raid_stride),
                            S(mmp_update_interval),
                            S(mmp_block),
                            S(raid_stripe_width),
                            S(log_groups_per_flex),
                            S(checksum_type),
                            S(encryption_level),
                            S(reserved_pad),
                            S(kbytes_written),
                            S(snapshot_inum),
                            S(snapshot_id),
                            S(snapshot_r_blocks_count),
                            S(snapshot_list),
                            S(error_count),
                            S(first_error_time),
                            S(first_error_ino),
                            S(first_error_block),
                            S_BYTES(first_error_func),
                            S(first_error_line),
                            S(last_error_time),
                            S(last_error_ino),
                            S(last_error_line),
                            S(last_error_block),
                            S_BYTES(last_error_func),
                            S_BYTES(mount_opts),
                            S(usr_quota_inum),
                            S(grp_quota_inum),
                            S(overhead_clusters),
                            S_ELEMENT(backup_bgs, 0),
                            S_ELEMENT(backup_bgs, 1),
                            S_BYTES(encrypt_algos),
                            S_BYTES(encrypt_pw_salt),
                            S(lpf_ino),
                            S(prj_quota_inum),
                            S(checksum_seed),
                            S(wtime_hi),
                            S(mtime_hi),
                            S(mkfs_time_hi),
                            S(lastcheck_hi),
                            S(first_error_time_hi),
                            S(last_error_time_hi),
                            S(first_error_errcode),
                            S(last_error_errcode),
                            S(encoding),
                            S(encoding_flags),
                            S(orphan_file_inum),
                            S_BYTES(reserved),
                            S(checksum)};

#define G(field) UEXT4_FIELD(GroupDesc, "bg_", field, little)
constexpr F group_desc[] = {G(block_bitmap_lo),
                            G(inode_bitmap_lo),
                            G(inode_table_lo),
                            G(free_blocks_lo),
                            G(free_inodes_lo),
                            G(used_dirs_lo),
                            G(flags),
                            G(exclude_bitmap_lo),
                            G(block_bitmap_csum_lo),
                            G(inode_bitmap_csum_lo),
                            G(itable_unused_lo),
                            G(checksum),
                            G(block_bitmap_hi),
                            G(inode_bitmap_hi),
                            G(inode_table_hi),
                            G(free_blocks_hi),
                            G(free_inodes_hi),
                            G(used_dirs_hi),
                            G(itable_unused_hi),
                            G(exclude_bitmap_hi),
                            G(block_bitmap_csum_hi),
                            G(inode_bitmap_csum_hi),
                            G(reserved)};

#define I(field) UEXT4_FIELD(InodeDisk, "i_", field, little)
constexpr F inode[] = {I(mode),
                       I(uid_lo),
                       I(size_lo),
                       I(atime),
                       I(ctime),
                       I(mtime),
                       I(dtime),
                       I(gid_lo),
                       I(links_count),
                       I(blocks_lo),
                       I(flags),
                       I(version_lo),
                       UEXT4_FIELD(InodeDisk, "i_", block, bytes),
                       I(generation),
                       I(file_acl_lo),
                       I(size_hi),
                       I(obso_faddr),
                       I(blocks_hi),
                       I(file_acl_hi),
                       I(uid_hi),
                       I(gid_hi),
                       I(checksum_lo),
                       I(reserved),
                       I(extra_isize),
                       I(checksum_hi),
                       I(ctime_extra),
                       I(mtime_extra),
                       I(atime_extra),
                       I(crtime),
                       I(crtime_extra),
                       I(version_hi),
                       I(projid)};

#define H(field) UEXT4_FIELD(ExtentHeader, "eh_", field, little)
constexpr F extent_header[] = {H(magic), H(entries), H(max), H(depth), H(generation)};
#define X(field) UEXT4_FIELD(ExtentIndex, "ei_", field, little)
constexpr F extent_index[] = {X(block), X(leaf_lo), X(leaf_hi), X(unused)};
#define E(field) UEXT4_FIELD(ExtentLeaf, "ee_", field, little)
constexpr F extent_leaf[] = {E(block), E(len), E(start_hi), E(start_lo)};
constexpr F extent_tail[] = {UEXT4_FIELD(ExtentTail, "et_", checksum, little)};

#define D(field) UEXT4_FIELD(DirEntryDisk, "", field, little)
constexpr F dir_entry[] = {D(inode), D(rec_len), D(name_len), D(file_type)};
#define T(field) UEXT4_FIELD(DirTail, "det_", field, little)
constexpr F dir_tail[] = {T(inode_zero), T(rec_len), T(name_len_zero), T(file_type), T(checksum)};
// The index's root lies behind the records of "." and "..", the second of which covers the rest of the block.
constexpr F index_root[] = {{"dot.inode", 0, 4},
                            {"dot.rec_len", 4, 2},
                            {"dot.name_len", 6, 1},
                            {"dot.file_type", 7, 1},
                            {"dot.name", 8, 4, FieldKind::bytes},
                            {"dotdot.inode", 12, 4},
                            {"dotdot.rec_len", 16, 2},
                            {"dotdot.name_len", 18, 1},
                            {"dotdot.file_type", 19, 1},
                            {"dotdot.name", 20, 4, FieldKind::bytes},
                            {"reserved_zero", 24, 4},
                            {"hash_version", 28, 1},
                            {"info_length", 29, 1},
                            {"indirect_levels", 30, 1},
                            {"unused_flags", 31, 1},
                            {"limit", 32, 2},
                            {"count", 34, 2},
                            {"block", 36, 4}};
constexpr F index_node[] = {{"fake.inode", 0, 4},     {"fake.rec_len", 4, 2}, {"fake.name_len", 6, 1},
                            {"fake.file_type", 7, 1}, {"limit", 8, 2},        {"count", 10, 2},
                            {"block", 12, 4}};
constexpr F index_pair[] = {{"hash", 0, 4}, {"block", 4, 4}};
constexpr F index_tail[] = {UEXT4_FIELD(IndexTail, "dt_", reserved, little),
                            UEXT4_FIELD(IndexTail, "dt_", checksum, little)};

#define B(field) UEXT4_FIELD(XattrBlockHeader, "h_", field, little)
constexpr F xattr_block_header[] = {B(magic), B(refcount), B(blocks),
                                    B(hash),  B(checksum), UEXT4_FIELD(XattrBlockHeader, "h_", reserved, bytes)};
constexpr F xattr_inode_header[] = {UEXT4_FIELD(XattrInodeHeader, "h_", magic, little)};
#define A(field) UEXT4_FIELD(XattrEntry, "e_", field, little)
constexpr F xattr_entry[] = {A(name_len), A(name_index), A(value_offset), A(value_inode), A(value_size), A(hash)};

#define J(type, prefix, field) UEXT4_FIELD(type, prefix, field, big)
constexpr F journal_header[] = {J(JournalHeader, "h_", magic), J(JournalHeader, "h_", blocktype),
                                J(JournalHeader, "h_", sequence)};
#define JS(field) UEXT4_FIELD(JournalSuper, "s_", field, big)
constexpr F journal_super[] = {{"h_magic", 0, 4, FieldKind::big},
                               {"h_blocktype", 4, 4, FieldKind::big},
                               {"h_sequence", 8, 4, FieldKind::big},
                               JS(blocksize),
                               JS(maxlen),
                               JS(first),
                               JS(sequence),
                               JS(start),
                               JS(error),
                               JS(feature_compat),
                               JS(feature_incompat),
                               JS(feature_ro_compat),
                               UEXT4_FIELD(JournalSuper, "s_", uuid, bytes),
                               JS(nr_users),
                               JS(dynsuper),
                               JS(max_transaction),
                               JS(max_trans_data),
                               JS(checksum_type),
                               JS(num_fc_blocks),
                               JS(head),
                               UEXT4_FIELD(JournalSuper, "s_", padding, bytes),
                               JS(checksum),
                               UEXT4_FIELD(JournalSuper, "s_", users, bytes)};
constexpr F journal_tag[] = {J(JournalTag, "t_", blocknr), J(JournalTag, "t_", checksum), J(JournalTag, "t_", flags),
                             J(JournalTag, "t_", blocknr_high)};
constexpr F journal_tag3[] = {J(JournalTag3, "t_", blocknr), J(JournalTag3, "t_", flags),
                              J(JournalTag3, "t_", blocknr_high), J(JournalTag3, "t_", checksum)};
constexpr F journal_commit[] = {
    {"h_magic", 0, 4, FieldKind::big},
    {"h_blocktype", 4, 4, FieldKind::big},
    {"h_sequence", 8, 4, FieldKind::big},
    J(JournalCommit, "h_", checksum_type),
    J(JournalCommit, "h_", checksum_size),
    {"h_checksum[0]", static_cast<std::uint32_t>(offsetof(JournalCommit, checksum)), 4, FieldKind::big},
    J(JournalCommit, "h_commit_", seconds),
    J(JournalCommit, "h_commit_", nanoseconds)};
constexpr F journal_revoke[] = {{"h_magic", 0, 4, FieldKind::big},
                                {"h_blocktype", 4, 4, FieldKind::big},
                                {"h_sequence", 8, 4, FieldKind::big},
                                J(JournalRevokeHeader, "r_", count)};
constexpr F journal_tail[] = {J(JournalBlockTail, "t_", checksum)};
constexpr F fast_commit_tag[] = {UEXT4_FIELD(FastCommitTag, "fc_", tag, little),
                                 UEXT4_FIELD(FastCommitTag, "fc_", length, little)};
constexpr F fast_commit_head[] = {UEXT4_FIELD(FastCommitHead, "fc_", features, little),
                                  UEXT4_FIELD(FastCommitHead, "fc_", tid, little)};

constexpr F orphan_tail[] = {UEXT4_FIELD(OrphanTail, "ob_", magic, little),
                             UEXT4_FIELD(OrphanTail, "ob_", checksum, little)};
#define M(field, kind) UEXT4_FIELD(MmpBlock, "mmp_", field, kind)
constexpr F mmp[] = {M(magic, little), M(sequence, little),       M(time, little),    M(node, bytes),
                     M(device, bytes), M(check_interval, little), M(checksum, little)};

struct Table {
    std::string_view name;
    std::uint32_t size;
    std::span<const F> fields;
};
#define UEXT4_TABLE(table, size) \
    Table { #table, static_cast<std::uint32_t>(size), table }
// In the order of the enumeration.
constexpr Table tables[] = {UEXT4_TABLE(superblock, sizeof(SuperBlock)),
                            UEXT4_TABLE(group_desc, sizeof(GroupDesc)),
                            UEXT4_TABLE(inode, sizeof(InodeDisk)),
                            UEXT4_TABLE(extent_header, sizeof(ExtentHeader)),
                            UEXT4_TABLE(extent_index, sizeof(ExtentIndex)),
                            UEXT4_TABLE(extent_leaf, sizeof(ExtentLeaf)),
                            UEXT4_TABLE(extent_tail, sizeof(ExtentTail)),
                            UEXT4_TABLE(dir_entry, sizeof(DirEntryDisk)),
                            UEXT4_TABLE(dir_tail, sizeof(DirTail)),
                            UEXT4_TABLE(index_root, 40),
                            UEXT4_TABLE(index_node, 16),
                            UEXT4_TABLE(index_pair, 8),
                            UEXT4_TABLE(index_tail, sizeof(IndexTail)),
                            UEXT4_TABLE(xattr_block_header, sizeof(XattrBlockHeader)),
                            UEXT4_TABLE(xattr_inode_header, sizeof(XattrInodeHeader)),
                            UEXT4_TABLE(xattr_entry, sizeof(XattrEntry)),
                            UEXT4_TABLE(journal_header, sizeof(JournalHeader)),
                            UEXT4_TABLE(journal_super, sizeof(JournalSuper)),
                            UEXT4_TABLE(journal_tag, sizeof(JournalTag)),
                            UEXT4_TABLE(journal_tag3, sizeof(JournalTag3)),
                            UEXT4_TABLE(journal_commit, sizeof(JournalCommit)),
                            UEXT4_TABLE(journal_revoke, sizeof(JournalRevokeHeader)),
                            UEXT4_TABLE(journal_tail, sizeof(JournalBlockTail)),
                            UEXT4_TABLE(fast_commit_tag, sizeof(FastCommitTag)),
                            UEXT4_TABLE(fast_commit_head, sizeof(FastCommitHead)),
                            UEXT4_TABLE(orphan_tail, sizeof(OrphanTail)),
                            UEXT4_TABLE(mmp, sizeof(MmpBlock))};
static_assert(std::size(tables) == structure_count);

const Table& table_of(Structure structure) {
    const auto index = static_cast<std::size_t>(structure);
    if (index >= structure_count) __builtin_trap();
    return tables[index];
}

}  // namespace

std::span<const FieldDescription> fields_of(Structure structure) { return table_of(structure).fields; }
std::string_view structure_name(Structure structure) { return table_of(structure).name; }
std::uint32_t structure_size(Structure structure) { return table_of(structure).size; }

const FieldDescription* find_field(Structure structure, std::string_view name) {
    for (const FieldDescription& field : fields_of(structure))
        if (field.name == name) return &field;
    return nullptr;
}

}  // namespace uext4::format
