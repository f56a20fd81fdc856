// Walks the log as recovery sees it.
#pragma once

#include "format/journal.h"
#include "journal/journal.h"
#include "journal/log_map.h"

#include <functional>
#include <vector>

namespace uext4 {

struct LogTag {
    BlockNr block;
    std::uint32_t flags = 0;
    std::uint32_t checksum = 0;
    std::uint32_t log_block = 0;  // where its image lies
};

struct LogRecord {
    std::uint32_t type = 0;  // format::journal::BlockType; 0: damaged
    std::uint32_t sequence = 0;
    std::uint32_t log_block = 0;
    bool torn_commit = false;      // of a damaged one (type 0): it says that it is a commit record
    std::vector<LogTag> tags;      // of a descriptor
    std::vector<BlockNr> revoked;  // of a revoke block
    std::uint64_t commit_seconds = 0;
    std::uint32_t v1_checksum = 0;  // of a commit block; valid when has_v1
    bool has_v1 = false;
};

class LogReader {
public:
    static Result<LogReader> open(BlockDevice& device, std::uint32_t block_size, const std::vector<BlockRun>& log);

    const format::JournalLayout& layout() const { return layout_; }
    // Reads block `index` of the log.
    Result<void> read(std::uint32_t index, Bytes out) const;
    const LogMap& map() const { return map_; }
    // Visits records from the tail, in order, until something is not of the expected sequence. `visit` false: stop.
    // EUCLEAN when a block has the right sequence but a bad checksum or makes no sense. Bounded by the log's length.
    Result<void> walk(const std::function<Result<bool>(const LogRecord&)>& visit) const;
    // Does the image match the checksum in its tag? True where the log has none (v1 sums whole transactions).
    Result<bool> image_ok(const LogRecord& record, const LogTag& tag) const;
    std::uint32_t next(std::uint32_t index, std::uint32_t steps = 1) const;

private:
    Result<LogRecord> parse(std::uint32_t index, ConstBytes block) const;

    BlockDevice* device_ = nullptr;
    std::uint32_t block_size_ = 0;
    LogMap map_;
    format::JournalLayout layout_;
};

}  // namespace uext4
