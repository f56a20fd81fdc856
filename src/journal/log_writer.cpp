#include "device/flush_order_device.h"
#include "format/checksum.h"
#include "journal/journal_state.h"

#include <algorithm>
#include <cstring>
#include <ctime>

namespace uext4 {

namespace j = format::journal;

Result<void> JournalState::write_super(std::uint32_t start, std::uint32_t sequence) {
    auto& super = view_as<format::JournalSuper>(Bytes(super_bytes));
    super.start = start;
    super.sequence = sequence;
    if (clears_fast_commit_feature) {
        const std::uint32_t others = super.feature_incompat & ~j::incompat_fast_commit;
        super.feature_incompat = start != 0 ? others | j::incompat_fast_commit : others;
    }
    if (super.checksum_v2or3()) super.checksum = format::journal_super_checksum(super);
    const BlockNr first = TRY(log.block_at(0));
    TRY(device.write_fua(first.value * block_size, super_bytes));
    log_in_use = start != 0;
    return {};
}

Result<void> JournalState::write_abort_mark() {
    auto& super = view_as<format::JournalSuper>(Bytes(super_bytes));
    super.error = 0u - static_cast<std::uint32_t>(abort_reason.code > 0 ? abort_reason.code : EIO);
    return write_super(super.start, super.sequence);
}

std::uint64_t JournalState::log_blocks_for(const Transaction& t, std::size_t images) const {
    const std::size_t tags =
        (block_size - sizeof(format::JournalHeader) - 16 - layout.tail_bytes()) / layout.tag_bytes();
    return images + divide_up(images, tags) + divide_up(t.revoked_blocks.size(), revokes_per_block()) + 1;
}

namespace {

// Collects blocks for consecutive places in the log and writes them in large requests.
class Run {
public:
    Run(JournalState& s) : s_(s), next_(s.head) {}

    Result<void> add(ConstBytes block) {
        const BlockNr place = TRY(s_.log.block_at(next_));
        if (!parts_.empty() && (place != start_ + parts_.size() || parts_.size() >= 512)) TRY(write());
        if (parts_.empty()) start_ = place;
        parts_.push_back(block);
        ++used_;
        if (++next_ >= s_.layout.ring_end()) next_ = s_.layout.first;
        return {};
    }
    Result<void> write() {
        if (parts_.empty()) return {};
        Result<void> r = s_.device.writev(start_.value * s_.block_size, parts_);
        parts_.clear();
        return r;
    }
    std::uint32_t next() const { return next_; }
    std::uint64_t used() const { return used_; }

private:
    JournalState& s_;
    std::uint32_t next_;
    std::uint64_t used_ = 0;
    BlockNr start_;
    std::vector<ConstBytes> parts_;
};

void put_header(Bytes block, std::uint32_t type, std::uint32_t sequence) {
    auto& h = view_as<format::JournalHeader>(block);
    h.magic = j::magic;
    h.blocktype = type;
    h.sequence = sequence;
}

}  // namespace

Result<void> JournalState::write_log(const Transaction& t, std::vector<LogImage>& images, std::uint64_t space,
                                     std::uint64_t& used) {
    const std::uint32_t sequence = log_sequence;
    // Only the log writer changes the free space. Writing on would run over transactions that are not checkpointed.
    if (const std::uint64_t needed = log_blocks_for(t, images.size()); needed > space)
        return fail(ENOSPC, "journal: transaction {} takes {} blocks of the log, {} are free", sequence, needed, space);
    // Only this thread touches the superblock's bytes; `layout` is everybody's and stays as it was opened.
    auto& super = view_as<format::JournalSuper>(Bytes(super_bytes));
    if (!t.revoked_blocks.empty() && !super.has_incompat(j::incompat_revoke)) {
        if (super.header.blocktype != j::super_v2)
            return fail(EOPNOTSUPP, "journal: its superblock is too old for revoke records");
        super.feature_incompat = super.feature_incompat | j::incompat_revoke;
        // The log's start stays where it is: older transactions may not be home yet.
        if (log_in_use) TRY(write_super(super.start, super.sequence));
    }
    // The superblock must say that there is something to recover before the commit can count.
    if (!log_in_use) TRY(write_super(head, sequence));

    std::vector<std::vector<std::byte>> own;  // descriptor, revoke and commit blocks
    Run run(*this);
    std::uint32_t v1 = ~0u;

    std::vector<std::uint64_t> revoked(t.revoked_blocks.begin(), t.revoked_blocks.end());
    std::ranges::sort(revoked);
    const std::size_t width = layout.wide() ? 8 : 4;
    for (std::size_t i = 0; i < revoked.size();) {
        own.emplace_back(block_size);
        const Bytes block(own.back());
        put_header(block, j::revoke, sequence);
        std::size_t at = sizeof(format::JournalRevokeHeader);
        for (; i < revoked.size() && at + width <= block_size - layout.tail_bytes(); ++i, at += width) {
            if (layout.wide()) view_as<Be64>(block, at) = revoked[i];
            else view_as<Be32>(block, at) = static_cast<std::uint32_t>(revoked[i]);
        }
        view_as<format::JournalRevokeHeader>(block).count = static_cast<std::uint32_t>(at);
        format::set_journal_block_checksum(layout, block);
        TRY(run.add(block));
    }

    const std::size_t tag_bytes = layout.tag_bytes();
    for (std::size_t i = 0; i < images.size();) {
        own.emplace_back(block_size);
        const Bytes block(own.back());
        put_header(block, j::descriptor, sequence);
        std::size_t at = sizeof(format::JournalHeader), last = 0;
        const std::size_t first_image = i;
        for (; i < images.size(); ++i) {
            const bool first = i == first_image;
            const std::size_t size = tag_bytes + (first ? 16 : 0);
            if (at + size > block_size - layout.tail_bytes()) break;
            LogImage& image = images[i];
            image.escaped = view_as<Be32>(image.bytes) == j::magic;
            if (image.escaped) {  // only in the log: at home it is what it is
                own.emplace_back(image.bytes.begin(), image.bytes.end());
                image.bytes = own.back();
                view_as<Be32>(Bytes(own.back()), 0) = 0u;
            }
            image.checksum = layout.tail_bytes() ? format::journal_data_checksum(layout, sequence, image.bytes) : 0;
            const std::uint32_t flags = (image.escaped ? j::tag_escape : 0) | (first ? 0 : j::tag_same_uuid);
            if (layout.csum_v3()) {
                auto& tag = view_as<format::JournalTag3>(block, at);
                tag.blocknr = static_cast<std::uint32_t>(image.block.value);
                tag.blocknr_high = layout.wide() ? static_cast<std::uint32_t>(image.block.value >> 32) : 0u;
                tag.flags = flags;
                tag.checksum = image.checksum;
            } else {
                view_as<Be32>(block, at) = static_cast<std::uint32_t>(image.block.value);
                view_as<Be16>(block, at + 4) = static_cast<std::uint16_t>(layout.csum_v2() ? image.checksum : 0);
                view_as<Be16>(block, at + 6) = static_cast<std::uint16_t>(flags);
                if (layout.wide()) view_as<Be32>(block, at + 8) = static_cast<std::uint32_t>(image.block.value >> 32);
            }
            if (first) std::memcpy(block.data() + at + tag_bytes, layout.uuid.data(), 16);
            last = at;
            at += size;
        }
        if (layout.csum_v3()) {
            auto& tag = view_as<format::JournalTag3>(block, last);
            tag.flags = tag.flags | j::tag_last;
        } else {
            view_as<Be16>(block, last + 6) =
                static_cast<std::uint16_t>(view_as<Be16>(ConstBytes(block), last + 6) | j::tag_last);
        }
        format::set_journal_block_checksum(layout, block);
        if (layout.csum_v1()) v1 = format::crc32_be(v1, block);
        TRY(run.add(block));
        for (std::size_t k = first_image; k < i; ++k) {
            if (layout.csum_v1()) v1 = format::crc32_be(v1, images[k].bytes);
            TRY(run.add(images[k].bytes));
        }
    }
    TRY(run.write());
    // J3: everything before the commit record is durable first, file data included.
    if (options.barrier) TRY(flush_completed_writes(device));

    own.emplace_back(block_size);
    const Bytes commit(own.back());
    put_header(commit, j::commit, sequence);
    auto& record = view_as<format::JournalCommit>(commit);
    timespec now{options.fixed_time.value_or(0), 0};
    if (!options.fixed_time) ::clock_gettime(CLOCK_REALTIME, &now);
    record.seconds = static_cast<std::uint64_t>(now.tv_sec);
    record.nanoseconds = static_cast<std::uint32_t>(now.tv_nsec);
    if (layout.csum_v1()) {
        record.checksum_type = j::checksum_crc32;
        record.checksum_size = 4;
        record.checksum[0] = v1;
    } else if (layout.tail_bytes()) {
        record.checksum[0] = format::journal_commit_checksum(layout, commit);
    }
    const BlockNr place = TRY(log.block_at(run.next()));
    if (options.barrier) TRY(device.write_fua(place.value * block_size, commit));
    else TRY(device.write(place.value * block_size, commit));
    head = run.next() + 1 >= layout.ring_end() ? layout.first : run.next() + 1;
    used = run.used() + 1;
    return {};
}

}  // namespace uext4
