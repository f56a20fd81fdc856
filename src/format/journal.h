// The journal's format (jbd2): big-endian, blocks of the file system's size.
#pragma once

#include "base/bytes.h"
#include "base/result.h"

#include <array>
#include <cstddef>
#include <cstdint>

namespace uext4::format {

namespace journal {
inline constexpr std::uint32_t magic = 0xC03B3998;
enum BlockType : std::uint32_t { descriptor = 1, commit = 2, super_v1 = 3, super_v2 = 4, revoke = 5 };
inline constexpr std::uint32_t compat_checksum = 0x1;
inline constexpr std::uint32_t incompat_revoke = 0x1, incompat_64bit = 0x2, incompat_async_commit = 0x4,
                               incompat_csum_v2 = 0x8, incompat_csum_v3 = 0x10, incompat_fast_commit = 0x20;
inline constexpr std::uint32_t known_incompat = 0x3F;
inline constexpr std::uint32_t tag_escape = 1, tag_same_uuid = 2, tag_deleted = 4, tag_last = 8;
inline constexpr std::uint8_t checksum_crc32 = 1, checksum_crc32c = 4;
inline constexpr std::uint32_t default_fast_commit_blocks = 256;
}  // namespace journal

struct JournalHeader {
    Be32 magic, blocktype, sequence;
};
static_assert(sizeof(JournalHeader) == 12);

struct JournalSuper {
    JournalHeader header;
    Be32 blocksize, maxlen, first;
    Be32 sequence, start;
    Be32 error;
    Be32 feature_compat, feature_incompat, feature_ro_compat;
    std::uint8_t uuid[16];
    Be32 nr_users, dynsuper, max_transaction, max_trans_data;
    std::uint8_t checksum_type;
    std::uint8_t padding2[3];
    Be32 num_fc_blocks, head;
    Be32 padding[40];
    Be32 checksum;
    std::uint8_t users[16 * 48];

    bool has_incompat(std::uint32_t f) const {
        return header.blocktype == journal::super_v2 && (feature_incompat & f) != 0;
    }
    bool has_compat(std::uint32_t f) const {
        return header.blocktype == journal::super_v2 && (feature_compat & f) != 0;
    }
    bool checksum_v2or3() const { return has_incompat(journal::incompat_csum_v2 | journal::incompat_csum_v3); }
};
static_assert(sizeof(JournalSuper) == 1024 && offsetof(JournalSuper, checksum) == 0xFC);

// Tags of a descriptor block. Without csum_v3: 8 bytes, 12 with 64bit (the checksum is 16 bits); with csum_v2 two
// unused bytes follow. A uuid of 16 bytes follows each tag without tag_same_uuid.
struct JournalTag {
    Be32 blocknr;
    Be16 checksum, flags;
    Be32 blocknr_high;  // 64bit only
};
static_assert(sizeof(JournalTag) == 12);
struct JournalTag3 {
    Be32 blocknr, flags, blocknr_high, checksum;
};
static_assert(sizeof(JournalTag3) == 16);

// At the end of descriptor and revoke blocks with csum v2 or v3.
struct JournalBlockTail {
    Be32 checksum;
};
struct JournalRevokeHeader {
    JournalHeader header;
    Be32 count;  // bytes used in the block, this header included; then block numbers of 4 or 8 bytes
};
static_assert(sizeof(JournalRevokeHeader) == 16);
struct JournalCommit {
    JournalHeader header;
    std::uint8_t checksum_type, checksum_size;
    std::uint8_t padding[2];
    Be32 checksum[8];  // [0]: v1: of the transaction's blocks; v2 and v3: of this block
    Be64 seconds;
    Be32 nanoseconds;
};
static_assert(sizeof(JournalCommit) == 60);

// Fast commits: tags of the area at the log's end (little-endian).
struct FastCommitTag {
    Le16 tag, length;
};
struct FastCommitHead {
    Le32 features, tid;
};
enum FastCommitTagType : std::uint16_t {
    fc_add_range = 1,
    fc_delete_range,
    fc_create,
    fc_link,
    fc_unlink,
    fc_inode,
    fc_pad,
    fc_tail,
    fc_head
};
inline constexpr std::uint16_t fast_commit_head_tag = fc_head;

// What a validated journal superblock says.
struct JournalLayout {
    std::uint32_t block_size = 0, length = 0, first = 0;  // blocks of the log, all counted from its start
    std::uint32_t sequence = 0, start = 0;                // start 0: nothing to recover
    std::uint32_t fast_commit_blocks = 0;                 // at the end, not part of the ring
    std::uint32_t error = 0;                              // s_errno as it is: a negative errno, 0 when all was well
    std::uint32_t compat = 0, incompat = 0;
    std::uint32_t checksum_seed = 0;  // csum v2 and v3
    std::array<std::uint8_t, 16> uuid{};
    int error_code() const;  // a positive errno; EIO for what is none
    std::uint32_t ring_end() const { return length - fast_commit_blocks; }
    bool has(std::uint32_t f) const { return (incompat & f) != 0; }
    bool csum_v3() const { return has(journal::incompat_csum_v3); }
    bool csum_v2() const { return !csum_v3() && has(journal::incompat_csum_v2); }
    bool csum_v1() const { return !csum_v3() && !csum_v2() && (compat & journal::compat_checksum); }
    bool wide() const { return has(journal::incompat_64bit); }
    std::uint32_t tag_bytes() const { return csum_v3() ? 16 : (wide() ? 12 : 8) + (csum_v2() ? 2 : 0); }
    std::uint32_t tail_bytes() const { return csum_v3() || csum_v2() ? 4 : 0; }
};
// EUCLEAN names the field. `log_blocks`: how many blocks the journal inode has.
Result<JournalLayout> parse_journal_super(const JournalSuper& super, std::uint32_t block_size,
                                          std::uint64_t log_blocks);
// Whether the kernel would set an area for fast commits apart at the end of a log that has none yet.
bool has_room_for_fast_commits(const JournalSuper& super);
std::uint32_t journal_super_checksum(const JournalSuper& super);  // for csum v2 and v3

// csum v2 and v3. Of a whole descriptor or revoke block, its tail taken as zero.
std::uint32_t journal_block_checksum(const JournalLayout& layout, ConstBytes block);
bool journal_block_checksum_ok(const JournalLayout& layout, ConstBytes block);  // true where there is none
void set_journal_block_checksum(const JournalLayout& layout, Bytes block);
// Of a logged block as it goes into its tag (v2: the low 16 bits are stored). `contents` as the log has them: escaped.
std::uint32_t journal_data_checksum(const JournalLayout& layout, std::uint32_t sequence, ConstBytes contents);
// Of a commit block (v2, v3): the field taken as zero.
std::uint32_t journal_commit_checksum(const JournalLayout& layout, ConstBytes block);

}  // namespace uext4::format
