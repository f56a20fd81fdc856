#include "journal/fast_commit.h"

#include "format/checksum.h"
#include "journal/log_reader.h"

#include <cstring>

namespace uext4 {

namespace {

constexpr std::size_t tag_size = sizeof(format::FastCommitTag);
constexpr std::size_t longest_name = 255;
constexpr std::uint32_t longest_written = 32768;  // longer extents are unwritten ones

// One tag's value. Nothing when its length cannot be that of its kind: the commit it stands in was never finished.
bool parse_value(std::uint16_t type, ConstBytes value, FastCommitOperation& out) {
    auto word = [&](std::size_t at) { return view_as<Le32>(value, at).get(); };
    switch (type) {
        case format::fc_add_range: {
            if (value.size() != 16) return false;
            const std::uint32_t length = view_as<Le16>(value, 8).get();
            out.inode = InodeNr(word(0));
            out.logical = LogicalBlock(word(4));
            out.unwritten = length > longest_written;
            out.count = out.unwritten ? length - longest_written : length;
            out.physical = BlockNr(std::uint64_t{view_as<Le16>(value, 10).get()} << 32 | word(12));
            return true;
        }
        case format::fc_delete_range:
            if (value.size() != 12) return false;
            out.inode = InodeNr(word(0));
            out.logical = LogicalBlock(word(4));
            out.count = word(8);
            return true;
        case format::fc_create:
        case format::fc_link:
        case format::fc_unlink:
            if (value.size() < 9 || value.size() > 8 + longest_name) return false;
            out.parent = InodeNr(word(0));
            out.inode = InodeNr(word(4));
            out.name.assign(reinterpret_cast<const char*>(value.data()) + 8, value.size() - 8);
            return true;
        case format::fc_inode:
            if (value.size() < 4 + 128) return false;
            out.inode = InodeNr(word(0));
            out.contents.assign(value.begin() + 4, value.end());
            return true;
        default: return false;
    }
}

// Walks the area; the checksum runs from one tail to the next and covers the tail up to its own field.
class AreaScan {
public:
    AreaScan(const LogReader& log, std::uint32_t tid, std::uint32_t block_size) : log_(log), block_(block_size) {
        found_.tid = tid;
    }

    Result<FastCommits> run() {
        const format::JournalLayout& layout = log_.layout();
        // The ring's end is a block that neither the ring nor the area uses.
        const std::uint32_t first = layout.ring_end() + 1;
        for (std::uint32_t index = first; index < layout.length; ++index) {
            TRY(log_.read(index, block_));
            const bool goes_on = scan_block(index, index == first);
            TRY(std::move(understood_));
            if (!goes_on) break;
        }
        return std::move(found_);
    }

private:
    bool scan_block(std::uint32_t index, bool first_block) {
        const ConstBytes block(block_);
        std::size_t at = 0;
        while (at + tag_size <= block.size()) {
            const auto& tag = view_as<format::FastCommitTag>(block, at);
            const std::uint16_t type = tag.tag;
            const std::size_t length = tag.length;
            if (length > block.size() - at - tag_size) return false;
            const ConstBytes value = block.subspan(at + tag_size, length);
            if (first_block && at == 0 && type != format::fc_head) return false;
            if (!take(type, value, index, static_cast<std::uint32_t>(at))) return false;
            if (type != format::fc_tail) sum_ = format::crc32c(sum_, block.subspan(at, tag_size + length));
            at += tag_size + length;
        }
        // What is too short for a tag is not in the sum of any.
        return true;
    }

    bool take(std::uint16_t type, ConstBytes value, std::uint32_t index, std::uint32_t at) {
        if (type == format::fc_pad) return true;
        if (type == format::fc_head) {
            if (value.size() < sizeof(format::FastCommitHead)) return false;
            const auto& head = view_as<format::FastCommitHead>(value);
            if (head.tid != found_.tid) return false;
            // To pass over what was synced would be to lose it.
            if (head.features != 0u)
                understood_ = fail(EOPNOTSUPP,
                                   "journal: block {}: fast commits have features that are not known ({:#x}): only "
                                   "noload shows the image, as it is",
                                   index, std::uint32_t{head.features});
            return head.features == 0u;
        }
        if (type == format::fc_tail) return take_tail(value);
        FastCommitOperation operation;
        if (!parse_value(type, value, operation)) return false;
        operation.type = static_cast<format::FastCommitTagType>(type);
        operation.log_block = index;
        operation.offset = at;
        pending_.push_back(std::move(operation));
        return true;
    }

    bool take_tail(ConstBytes value) {
        if (value.size() < 8 || view_as<Le32>(value) != found_.tid) return false;
        format::FastCommitTag tag;
        tag.tag = static_cast<std::uint16_t>(format::fc_tail);
        tag.length = static_cast<std::uint16_t>(value.size());
        sum_ = format::crc32c(format::crc32c(sum_, bytes_of(tag)), value.first(4));
        if (view_as<Le32>(value, 4) != sum_) return false;
        for (FastCommitOperation& operation : pending_) found_.operations.push_back(std::move(operation));
        pending_.clear();
        sum_ = 0;
        ++found_.commits;
        return true;
    }

    const LogReader& log_;
    Result<void> understood_;
    std::vector<std::byte> block_;
    std::uint32_t sum_ = 0;
    std::vector<FastCommitOperation> pending_;
    FastCommits found_;
};

}  // namespace

const char* fast_commit_tag_name(std::uint16_t type) {
    constexpr const char* names[] = {"?",      "add range", "delete range", "create", "link",
                                     "unlink", "inode",     "pad",          "tail",   "head"};
    return type < std::size(names) ? names[type] : names[0];
}

std::string FastCommitOperation::describe() const {
    return fmt::format("journal: block {}: fast commit tag at {} ({}, inode {})", log_block, offset,
                       fast_commit_tag_name(type), inode);
}

Result<FastCommits> read_fast_commits(const LogReader& log, std::uint32_t tid, std::uint32_t block_size) {
    return AreaScan(log, tid, block_size).run();
}

}  // namespace uext4
