#include "format/journal.h"

#include "format/checksum.h"

#include <algorithm>

namespace uext4::format {

namespace {

std::unexpected<Error> absurd_field(const char* field, std::uint64_t value, const std::string& expected) {
    return fail(EUCLEAN, "journal superblock: {} is {}, expected {}", field, value, expected);
}

// Over all bytes with one big-endian field of 4 bytes at `hole` taken as zero.
std::uint32_t checksum_without(std::uint32_t seed, ConstBytes bytes, std::size_t hole) {
    const Be32 zero(0);
    std::uint32_t crc = crc32c(seed, bytes.first(hole));
    crc = crc32c(crc, bytes_of(zero));
    return crc32c(crc, bytes.subspan(hole + 4));
}

std::uint32_t fast_commit_area(const JournalSuper& s) {
    return s.num_fc_blocks ? s.num_fc_blocks.get() : journal::default_fast_commit_blocks;
}

}  // namespace

std::uint32_t journal_super_checksum(const JournalSuper& super) {
    return checksum_without(~0u, bytes_of(super), offsetof(JournalSuper, checksum));
}

int JournalLayout::error_code() const {
    if (error == 0) return 0;
    const std::uint32_t code = 0u - error;
    return code < 4096 ? static_cast<int>(code) : EIO;
}

Result<JournalLayout> parse_journal_super(const JournalSuper& s, std::uint32_t block_size, std::uint64_t log_blocks) {
    if (s.header.magic != journal::magic)
        return fail(EUCLEAN, "journal superblock: h_magic is {:#010x}, expected {:#010x}", s.header.magic.get(),
                    journal::magic);
    if (s.header.blocktype != journal::super_v1 && s.header.blocktype != journal::super_v2)
        return absurd_field("h_blocktype", s.header.blocktype, "3 or 4");
    JournalLayout out;
    out.block_size = s.blocksize;
    if (out.block_size != block_size)
        return absurd_field("s_blocksize", out.block_size, fmt::format("{}, as the file system", block_size));
    out.length = s.maxlen;
    if (out.length > log_blocks || out.length < 8)
        return absurd_field("s_maxlen", out.length, fmt::format("8 to {}, the blocks of the journal", log_blocks));
    out.first = s.first;
    if (out.first == 0 || out.first >= out.length)
        return absurd_field("s_first", out.first, fmt::format("1 to {}", out.length - 1));
    out.sequence = s.sequence;
    out.start = s.start;
    out.error = s.error;
    std::copy_n(s.uuid, 16, out.uuid.begin());
    if (s.header.blocktype == journal::super_v2) {
        out.compat = s.feature_compat;
        out.incompat = s.feature_incompat;
        if (const std::uint32_t unknown = out.incompat & ~journal::known_incompat)
            return fail(EOPNOTSUPP, "journal superblock: unknown incompatible features {:#x}", unknown);
        if (s.feature_ro_compat)
            return fail(EOPNOTSUPP, "journal superblock: unknown read-only features {:#x}", s.feature_ro_compat.get());
        if (out.csum_v3() && out.has(journal::incompat_csum_v2))
            return absurd_field("s_feature_incompat", out.incompat, "one of csum_v2 and csum_v3, not both");
        if (s.checksum_v2or3()) {
            if (s.checksum_type != journal::checksum_crc32c)
                return absurd_field("s_checksum_type", s.checksum_type, "4 (CRC32c)");
            if (const std::uint32_t sum = journal_super_checksum(s); s.checksum != sum)
                return fail(EUCLEAN, "journal superblock: s_checksum is {:#010x}, expected {:#010x}", s.checksum.get(),
                            sum);
            out.checksum_seed = crc32c(~0u, ConstBytes(reinterpret_cast<const std::byte*>(s.uuid), 16));
        }
        if (out.has(journal::incompat_fast_commit)) {
            out.fast_commit_blocks = fast_commit_area(s);
            if (std::uint64_t{out.fast_commit_blocks} + 8 > out.length - out.first)
                return absurd_field(
                    "s_num_fc_blks", out.fast_commit_blocks,
                    fmt::format("at most {} in a log of {} blocks",
                                std::max<std::int64_t>(0, std::int64_t{out.length} - out.first - 8), out.length));
        }
    }
    if (out.start && (out.start < out.first || out.start >= out.ring_end()))
        return absurd_field("s_start", out.start, fmt::format("0, or {} to {}", out.first, out.ring_end() - 1));
    return out;
}

bool has_room_for_fast_commits(const JournalSuper& super) {
    constexpr std::uint64_t least_log = 1024;  // the kernel's JBD2_MIN_JOURNAL_BLOCKS
    return std::uint64_t{fast_commit_area(super)} + least_log <= super.maxlen;
}

std::uint32_t journal_block_checksum(const JournalLayout& layout, ConstBytes block) {
    return checksum_without(layout.checksum_seed, block, block.size() - sizeof(JournalBlockTail));
}

bool journal_block_checksum_ok(const JournalLayout& layout, ConstBytes block) {
    if (!layout.tail_bytes()) return true;
    const auto& tail = view_as<JournalBlockTail>(block, block.size() - sizeof(JournalBlockTail));
    return tail.checksum == journal_block_checksum(layout, block);
}

void set_journal_block_checksum(const JournalLayout& layout, Bytes block) {
    if (!layout.tail_bytes()) return;
    view_as<JournalBlockTail>(block, block.size() - sizeof(JournalBlockTail)).checksum =
        journal_block_checksum(layout, block);
}

std::uint32_t journal_data_checksum(const JournalLayout& layout, std::uint32_t sequence, ConstBytes contents) {
    const Be32 number(sequence);
    return crc32c(crc32c(layout.checksum_seed, bytes_of(number)), contents);
}

std::uint32_t journal_commit_checksum(const JournalLayout& layout, ConstBytes block) {
    return checksum_without(layout.checksum_seed, block, offsetof(JournalCommit, checksum));
}

}  // namespace uext4::format
