#include "journal/log_reader.h"

namespace uext4 {

namespace j = format::journal;

Result<void> LogReader::read(std::uint32_t index, Bytes out) const {
    const BlockNr block = TRY(map_.block_at(index));
    return device_->read(block.value * block_size_, out);
}

Result<bool> LogReader::image_ok(const LogRecord& record, const LogTag& tag) const {
    if (!layout_.tail_bytes()) return true;
    std::vector<std::byte> block(block_size_);
    TRY(read(tag.log_block, block));
    const std::uint32_t sum = format::journal_data_checksum(layout_, record.sequence, block);
    return tag.checksum == (layout_.csum_v3() ? sum : sum & 0xFFFF);
}

std::uint32_t LogReader::next(std::uint32_t index, std::uint32_t steps) const {
    const std::uint32_t ring = layout_.ring_end() - layout_.first;
    return layout_.first + (index - layout_.first + steps) % ring;
}

Result<LogReader> LogReader::open(BlockDevice& device, std::uint32_t block_size, const std::vector<BlockRun>& log) {
    LogReader r;
    r.device_ = &device;
    r.block_size_ = block_size;
    r.map_ = LogMap(log);
    std::vector<std::byte> bytes(block_size);
    TRY(r.read(0, bytes));
    r.layout_ =
        TRY(format::parse_journal_super(view_as<format::JournalSuper>(ConstBytes(bytes)), block_size, r.map_.blocks()));
    return r;
}

Result<LogRecord> LogReader::parse(std::uint32_t index, ConstBytes block) const {
    LogRecord out;
    out.log_block = index;
    const auto& header = view_as<format::JournalHeader>(block);
    out.type = header.blocktype;
    out.sequence = header.sequence;
    const std::size_t limit = block_size_ - layout_.tail_bytes();
    if (out.type == j::descriptor) {
        if (!format::journal_block_checksum_ok(layout_, block))
            return fail(EUCLEAN, "journal: block {}: descriptor of transaction {}: bad checksum", index, out.sequence);
        std::size_t at = sizeof(format::JournalHeader);
        for (;;) {
            if (at + layout_.tag_bytes() > limit) break;
            LogTag tag;
            if (layout_.csum_v3()) {
                const auto& t = view_as<format::JournalTag3>(block, at);
                tag.block = BlockNr(t.blocknr.get() | (layout_.wide() ? std::uint64_t{t.blocknr_high.get()} << 32 : 0));
                tag.flags = t.flags;
                tag.checksum = t.checksum;
            } else {
                tag.block = BlockNr(view_as<Be32>(block, at).get() |
                                    (layout_.wide() ? std::uint64_t{view_as<Be32>(block, at + 8).get()} << 32 : 0));
                tag.checksum = view_as<Be16>(block, at + 4);
                tag.flags = view_as<Be16>(block, at + 6);
            }
            at += layout_.tag_bytes();
            if (!(tag.flags & j::tag_same_uuid)) at += 16;
            tag.log_block = next(index, static_cast<std::uint32_t>(out.tags.size()) + 1);
            out.tags.push_back(tag);
            if (tag.flags & j::tag_last) break;
        }
    } else if (out.type == j::revoke) {
        if (!format::journal_block_checksum_ok(layout_, block))
            return fail(EUCLEAN, "journal: block {}: revoke block of transaction {}: bad checksum", index,
                        out.sequence);
        const std::size_t count = view_as<format::JournalRevokeHeader>(block).count;
        if (count < sizeof(format::JournalRevokeHeader) || count > limit)
            return fail(EUCLEAN, "journal: block {}: r_count is {}", index, count);
        const std::size_t width = layout_.wide() ? 8 : 4;
        for (std::size_t at = sizeof(format::JournalRevokeHeader); at + width <= count; at += width)
            out.revoked.emplace_back(layout_.wide() ? view_as<Be64>(block, at).get() : view_as<Be32>(block, at).get());
    } else if (out.type == j::commit) {
        const auto& c = view_as<format::JournalCommit>(block);
        out.commit_seconds = c.seconds;
        if (layout_.csum_v1() && c.checksum_type == j::checksum_crc32 && c.checksum_size == 4) {
            out.has_v1 = true;
            out.v1_checksum = c.checksum[0];
        }
    }
    return out;
}

Result<void> LogReader::walk(const std::function<Result<bool>(const LogRecord&)>& visit) const {
    if (layout_.start == 0) return {};
    std::uint32_t index = layout_.start, sequence = layout_.sequence;
    std::vector<std::byte> block(block_size_);
    const std::uint32_t ring = layout_.ring_end() - layout_.first;
    std::uint64_t walked = 0;
    while (walked < ring) {
        TRY(read(index, block));
        const auto& header = view_as<format::JournalHeader>(ConstBytes(block));
        if (header.magic != j::magic || header.sequence != sequence) return {};
        if (header.blocktype == j::commit && layout_.tail_bytes()) {
            // One that was not written whole is where the log ends, unless another transaction is committed behind it.
            const auto& c = view_as<format::JournalCommit>(ConstBytes(block));
            if (c.checksum[0] != format::journal_commit_checksum(layout_, block)) {
                LogRecord torn;
                torn.log_block = index;
                torn.sequence = sequence;
                torn.torn_commit = true;
                (void)TRY(visit(torn));
                return {};
            }
        }
        Result<LogRecord> parsed = parse(index, block);
        if (!parsed) {
            // A block of the last, unfinished transaction may be half written; what makes it matter is a commit record
            // behind it, which recovery looks for.
            LogRecord broken;
            broken.log_block = index;
            broken.sequence = sequence;
            (void)TRY(visit(broken));
            return {};
        }
        if (parsed->type != j::descriptor && parsed->type != j::commit && parsed->type != j::revoke) return {};
        if (!TRY(visit(*parsed))) return {};
        const std::uint32_t steps = 1 + static_cast<std::uint32_t>(parsed->tags.size());
        walked += steps;
        index = next(index, steps);
        if (parsed->type == j::commit) ++sequence;
    }
    return {};
}

}  // namespace uext4
