#include "inode/sizes_after_crash.h"

namespace uext4 {

void SizesAfterCrash::note_stored(std::uint64_t size, Tid tid, const Journal& journal) {
    if (sizes_.back().size == size) return;
    if (sizes_.back().tid == tid) {
        sizes_.back().size = size;
        return;
    }
    forget_replaced(journal);
    sizes_.push_back({size, tid});
}

void SizesAfterCrash::forget_replaced(const Journal& journal) {
    if (sizes_.size() == 1) return;
    const Tid durable = journal.durable_tid();
    while (sizes_.size() > 1 && sizes_[1].tid <= durable) sizes_.erase(sizes_.begin());
}

std::optional<std::uint64_t> SizesAfterCrash::smallest_within_block(std::uint64_t from, std::uint64_t block_size,
                                                                    const Journal& journal) {
    forget_replaced(journal);
    std::optional<std::uint64_t> least;
    for (const auto& [size, tid] : sizes_)
        if (size > from && size % block_size != 0 && (!least || size < *least)) least = size;
    return least;
}

}  // namespace uext4
