#include "inode/sizes_after_cut.h"

namespace uext4 {

void SizesAfterCut::stored(std::uint64_t size, Tid tid, const Journal& journal) {
    if (sizes_.back().size == size) return;
    if (sizes_.back().tid == tid) {
        sizes_.back().size = size;
        return;
    }
    sizes_.push_back({size, tid});
    const Tid durable = journal.durable_tid();
    while (sizes_[1].tid <= durable && sizes_.size() > 2) sizes_.erase(sizes_.begin());
}

std::optional<std::uint64_t> SizesAfterCut::next_within_block(std::uint64_t from, std::uint64_t block_size,
                                                              const Journal& journal) const {
    const Tid durable = sizes_.size() > 1 ? journal.durable_tid() : 0;
    std::optional<std::uint64_t> least;
    for (std::size_t i = 0; i < sizes_.size(); ++i) {
        if (i + 1 < sizes_.size() && sizes_[i + 1].tid <= durable) continue;
        const std::uint64_t size = sizes_[i].size;
        if (size > from && size % block_size != 0 && (!least || size < *least)) least = size;
    }
    return least;
}

}  // namespace uext4
