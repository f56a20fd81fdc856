// Recovery: scan for the end of the log, collect revokes, check, replay.
#include "format/checksum.h"
#include "format/superblock.h"
#include "journal/log_reader.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <unordered_map>

namespace uext4 {

namespace {

namespace j = format::journal;

// Sequence numbers wrap.
bool later(std::uint32_t a, std::uint32_t b) { return static_cast<std::int32_t>(a - b) > 0; }
bool later_or_same(std::uint32_t a, std::uint32_t b) { return static_cast<std::int32_t>(a - b) >= 0; }

struct Scan {
    std::uint32_t end = 0;   // the first sequence that was not committed
    std::uint32_t next = 0;  // where in the log it would begin
};

// Is there a sound commit record of this sequence anywhere behind `from`? Images cannot look like one: they are
// escaped.
Result<bool> committed_behind(const LogReader& log, std::uint32_t from, std::uint32_t sequence,
                              std::uint32_t block_size) {
    const format::JournalLayout& layout = log.layout();
    std::vector<std::byte> block(block_size);
    for (std::uint32_t step = 1; step < layout.ring_end() - layout.first; ++step) {
        TRY(log.read(log.next(from, step), block));
        const auto& c = view_as<format::JournalCommit>(ConstBytes(block));
        if (c.header.magic != j::magic || c.header.blocktype != j::commit || c.header.sequence != sequence) continue;
        if (!layout.tail_bytes() || c.checksum[0] == format::journal_commit_checksum(layout, block)) return true;
    }
    return false;
}

// Finds the end. A damaged record ends the log in a transaction that was never committed; in one that was, it is an
// error, and so are a damaged commit record and a mismatch of the old checksum over a whole transaction, if another
// transaction follows.
Result<Scan> scan(const LogReader& log, std::uint32_t block_size) {
    Scan out{log.layout().sequence, log.layout().start};
    std::uint32_t v1 = ~0u;
    bool mismatch = false;
    std::vector<std::byte> block(block_size);
    const auto look = [&](const LogRecord& r) -> Result<bool> {
        if (r.type == 0 && !mismatch && TRY(committed_behind(log, r.log_block, r.sequence, block_size)))
            return fail(EUCLEAN, "journal: block {}: damaged inside committed transaction {}", r.log_block, r.sequence);
        if (r.torn_commit && TRY(committed_behind(log, r.log_block, r.sequence + 1, block_size)))
            return fail(EUCLEAN,
                        "journal: block {}: damaged commit record of transaction {}, and transaction {} follows",
                        r.log_block, r.sequence, r.sequence + 1);
        if (r.type == j::descriptor && log.layout().csum_v1()) {
            TRY(log.read(r.log_block, block));
            v1 = format::crc32_be(v1, block);
            for (const LogTag& tag : r.tags) {
                TRY(log.read(tag.log_block, block));
                v1 = format::crc32_be(v1, block);
            }
        }
        if (r.type == j::commit) {
            if (mismatch)
                return fail(EUCLEAN, "journal: transaction {}: bad checksum, and transaction {} follows", out.end,
                            r.sequence);
            if (r.has_v1 && r.v1_checksum != v1) mismatch = true;
            else {
                out.end = r.sequence + 1;
                out.next = log.next(r.log_block);
            }
            v1 = ~0u;
        }
        return true;
    };
    TRY(log.walk(look));
    return out;
}

// How many blocks the file system has when the log is home: one that grew while it was mounted has its larger
// superblock there, and on the device perhaps still the former one. At most what the device has.
Result<std::uint64_t> blocks_at_end(const LogReader& log, std::uint32_t end, std::uint64_t blocks_count,
                                    std::uint64_t device_blocks, Bytes block) {
    TRY(log.walk([&](const LogRecord& r) -> Result<bool> {
        if (later_or_same(r.sequence, end)) return false;
        for (const LogTag& tag : r.tags) {
            if (tag.block.value != format::super_offset / block.size()) continue;
            TRY(log.read(tag.log_block, block));
            const auto& super = view_as<format::SuperBlock>(block, format::super_offset % block.size());
            if (super.magic == format::super_magic)
                blocks_count = std::max(blocks_count, std::min(super.blocks_count(), device_blocks));
        }
        return true;
    }));
    return blocks_count;
}

using Revoked = std::unordered_map<std::uint64_t, std::uint32_t>;  // block -> newest transaction that revoked it

// Every image that is to go home, in order, checked; `block` holds its contents.
Result<void> each_image(const LogReader& log, std::uint32_t end, std::uint64_t blocks_count, const Revoked& revoked,
                        Bytes block, const std::function<Result<void>(const LogTag&)>& visit) {
    const format::JournalLayout& layout = log.layout();
    return log.walk([&](const LogRecord& r) -> Result<bool> {
        if (later_or_same(r.sequence, end)) return false;
        for (const LogTag& tag : r.tags) {
            if (tag.block.value >= blocks_count)
                return fail(EUCLEAN, "journal: block {}: a tag names block {} of {}", r.log_block, tag.block,
                            blocks_count);
            if (log.map().contains(tag.block))
                return fail(EUCLEAN, "journal: block {}: a tag names block {}, which is the log's own", r.log_block,
                            tag.block);
            if (auto it = revoked.find(tag.block.value); it != revoked.end() && later_or_same(it->second, r.sequence))
                continue;
            if (Result<void> got = log.read(tag.log_block, block); !got) return fail(got.error());
            if (layout.tail_bytes()) {
                const std::uint32_t sum = format::journal_data_checksum(layout, r.sequence, block);
                if (tag.checksum != (layout.csum_v3() ? sum : sum & 0xFFFF))
                    return fail(EUCLEAN, "journal: block {}: image of block {} in transaction {}: bad checksum",
                                tag.log_block, tag.block, r.sequence);
            }
            // The sum is over what the log holds; only then the escape is undone.
            if (tag.flags & j::tag_escape) view_as<Be32>(block) = j::magic;
            if (Result<void> done = visit(tag); !done) return fail(done.error());
        }
        return true;
    });
}

}  // namespace

Result<bool> needs_recovery(BlockDevice& device, std::uint32_t block_size, const std::vector<BlockRun>& log) {
    const LogReader reader = TRY(LogReader::open(device, block_size, log));
    return reader.layout().start != 0;
}

Result<RecoveryReport> recover(BlockDevice& device, std::uint32_t block_size, std::uint64_t blocks_count,
                               const std::vector<BlockRun>& runs, bool reset) {
    const LogReader log = TRY(LogReader::open(device, block_size, runs));
    const format::JournalLayout& layout = log.layout();
    RecoveryReport report;
    report.recorded_error = layout.error_code();
    std::uint32_t end = layout.sequence, next = 0;
    if (layout.start != 0) {
        report.needed = true;
        const Scan scanned = TRY(scan(log, block_size));
        end = scanned.end;
        next = scanned.next;
        if (layout.fast_commit_blocks) report.fast_commits = TRY(read_fast_commits(log, end, block_size));

        Revoked revoked;
        TRY(log.walk([&](const LogRecord& r) -> Result<bool> {
            if (later_or_same(r.sequence, end)) return false;
            if (r.type == 0)
                return fail(EUCLEAN, "journal: block {}: damaged inside committed transaction {}", r.log_block,
                            r.sequence);
            // One that the file system does not have, or has not any more, revokes nothing.
            for (BlockNr block : r.revoked) {
                auto [it, fresh] = revoked.emplace(block.value, r.sequence);
                if (!fresh && later(r.sequence, it->second)) it->second = r.sequence;
            }
            return true;
        }));
        report.revoked = revoked.size();

        // All images are checked before the first goes home: a log that lies leaves the file system as the crash did.
        std::vector<std::byte> block(block_size);
        blocks_count = TRY(blocks_at_end(log, end, blocks_count, device.size() / block_size, block));
        TRY(each_image(log, end, blocks_count, revoked, block, [](const LogTag&) -> Result<void> { return {}; }));
        TRY(each_image(log, end, blocks_count, revoked, block, [&](const LogTag& tag) -> Result<void> {
            ++report.blocks;
            return device.write(tag.block.value * block_size, block);
        }));
        report.transactions = end - layout.sequence;
        TRY(device.flush());
    }
    if (!reset || layout.start == 0) return report;

    // An empty log that goes on with the next number. With fast commits it is one in which the transaction that they go
    // before is still to come: they count until it is committed.
    const bool fast = report.fast_commits.any();
    std::vector<std::byte> bytes(block_size);
    TRY(log.read(0, bytes));
    auto& super = view_as<format::JournalSuper>(Bytes(bytes));
    super.start = fast ? next : 0u;
    super.sequence = fast ? end : end + 1;
    if (super.checksum_v2or3()) super.checksum = format::journal_super_checksum(super);
    const BlockNr place = TRY(log.map().block_at(0));
    TRY(device.write(place.value * block_size, bytes));
    TRY(device.flush());
    return report;
}

}  // namespace uext4
