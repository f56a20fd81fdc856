// Where the blocks of the log lie on the device.
#pragma once

#include "journal/journal.h"

#include <vector>

namespace uext4 {

class LogMap {
public:
    LogMap() = default;
    // In the order of the log; no block twice.
    explicit LogMap(const std::vector<BlockRun>& runs);

    std::uint64_t blocks() const { return extents_.empty() ? 0 : extents_.back().end; }
    // The device's block that is block `index` of the log; EUCLEAN past its end. A log may have as many runs as blocks,
    // so both this and contains() take the logarithm of their number.
    Result<BlockNr> block_at(std::uint64_t index) const;
    bool contains(BlockNr block) const;

private:
    struct Extent {
        std::uint64_t end = 0;  // of the log's blocks up to this run's last
        BlockRun run;
    };
    std::vector<Extent> extents_;
    std::vector<BlockRun> extents_by_block_;
};

}  // namespace uext4
