// The sizes that a file may have on disk after a cut: of the newest transaction that is durable, and of those since.
#pragma once

#include "journal/journal.h"

#include <cstdint>
#include <optional>
#include <vector>

namespace uext4 {

class SizesAfterCrash {
public:
    // As it was read, which no cut changes.
    explicit SizesAfterCrash(std::uint64_t size) : sizes_{{size, 0}} {}
    // Transaction `tid`, none older than those before, has this size by now.
    void note_stored(std::uint64_t size, Tid tid, const Journal& journal);
    // The least one behind byte `from` that lies within a block.
    std::optional<std::uint64_t> smallest_within_block(std::uint64_t from, std::uint64_t block_size,
                                                       const Journal& journal);

private:
    struct Stored {
        std::uint64_t size;
        Tid tid;
    };
    // Those of transactions that have a durable one behind them.
    void forget_replaced(const Journal& journal);
    std::vector<Stored> sizes_;  // by tid; never empty
};

}  // namespace uext4
