// Blocks that the device did not take: free, and handed out again only where nothing else is left.
#include "alloc/allocator_state.h"
#include "sync/atomic_point.h"

#include <algorithm>

namespace uext4 {

namespace {
// Of what is free, so that others find a run near their goal; and in ranges, each of which keeps its group's map.
constexpr std::int64_t least_bound = 256, share_of_free = 16;
constexpr std::size_t most_ranges = 1024;
}  // namespace

void Allocator::avoid(Allocation grant) {
    if (!grant) return;
    State& s = *state_;
    const std::uint64_t blocks = std::exchange(grant.count_, 0);
    s.avoid(grant.first_, blocks);
    s.allocated.fetch_sub(static_cast<std::int64_t>(divide_up(blocks, s.ratio())));
}

void AllocatorState::avoid(BlockNr first, std::uint64_t blocks) {
    MutexLock guard(avoided_lock);
    avoided.emplace_back(first, blocks);
    avoided_clusters.fetch_add(static_cast<std::int64_t>(divide_up(blocks, ratio())));
}

void Allocator::trim_avoided() {
    State& s = *state_;
    for (;;) {
        const std::int64_t kept = s.avoided_clusters.load();
        if (kept == 0) return;
        const std::int64_t most = std::max(least_bound, (s.available.load() + kept) / share_of_free);
        {
            MutexLock guard(s.avoided_lock);
            if (kept <= most && s.avoided.size() <= most_ranges) return;
        }
        if (!s.release_avoided(1)) return;
    }
}

// The oldest ones first: what failed just now is tried again last.
bool AllocatorState::release_avoided(std::int64_t clusters) {
    bool any = false;
    while (clusters > 0) {
        std::pair<BlockNr, std::uint64_t> oldest;
        {
            MutexLock guard(avoided_lock);
            if (avoided.empty()) return any;
            oldest = avoided.front();
            avoided.pop_front();
        }
        const std::int64_t count = static_cast<std::int64_t>(divide_up(oldest.second, ratio()));
        return_to_free(oldest.first, oldest.second, false);
        avoided_clusters.fetch_sub(count);
        clusters -= count;
        any = true;
    }
    return any;
}

}  // namespace uext4
