// Blocks that the device did not take: free, and handed out again only where nothing else is left.
#include "alloc/allocator_state.h"
#include "sync/atomic_point.h"

#include <algorithm>

namespace uext4 {

namespace {
// Freed, and gone when the last who had it in hand has given that up.
struct Refused {
    Refused(std::weak_ptr<AllocatorState> of, BlockNr freed) : state(std::move(of)), block(freed) {}
    Refused(const Refused&) = delete;
    Refused& operator=(const Refused&) = delete;
    ~Refused() {
        const auto alive = state.lock();
        if (!alive || !durable.load()) return;
        alive->avoid(block, alive->ratio());
        atomic_point("Allocator::pending", &alive->pending);
        alive->pending.fetch_sub(1);
        alive->times_given_back.fetch_add(1);
    }

    std::weak_ptr<AllocatorState> state;
    BlockNr block;
    std::atomic<bool> durable{false};
};

// Of what is free, so that others find a run near their goal; and in ranges, each of which keeps its group's map.
constexpr std::int64_t least_bound = 256, share_of_free = 16;
constexpr std::size_t most_ranges = 1024;
}  // namespace

void Allocator::avoid(Grant grant) {
    if (!grant) return;
    State& s = *state_;
    const std::uint64_t blocks = std::exchange(grant.count_, 0);
    s.avoid(grant.first_, blocks);
    s.granted.fetch_sub(static_cast<std::int64_t>(divide_up(blocks, s.ratio())));
}

void AllocatorState::avoid(BlockNr first, std::uint64_t blocks) {
    MutexLock guard(avoided_lock);
    avoided.emplace_back(first, blocks);
    avoided_clusters.fetch_add(static_cast<std::int64_t>(divide_up(blocks, ratio())));
}

Result<std::shared_ptr<const void>> Allocator::free_refused(Handle& handle, BlockNr block) {
    State& s = *state_;
    if (s.ratio() != 1) return fail(EOPNOTSUPP, "block {} is a part of a cluster", block);
    s.add_up();
    if (!s.geometry.valid_block(block)) return fail(EUCLEAN, "freeing block {}: outside of the file system", block);
    TRY(free_within_group(handle, block, 1));
    auto refused = std::make_shared<Refused>(s.weak_from_this(), block);
    handle.when_durable([held = refused]() mutable {
        held->durable.store(true);
        held.reset();
    });
    return std::shared_ptr<const void>(std::move(refused));
}

void Allocator::bound_avoided() {
    State& s = *state_;
    for (;;) {
        const std::int64_t kept = s.avoided_clusters.load();
        if (kept == 0) return;
        const std::int64_t most = std::max(least_bound, (s.available.load() + kept) / share_of_free);
        {
            MutexLock guard(s.avoided_lock);
            if (kept <= most && s.avoided.size() <= most_ranges) return;
        }
        if (!s.give_up_avoided(1)) return;
    }
}

// The oldest ones first: what failed just now is tried again last.
bool AllocatorState::give_up_avoided(std::int64_t clusters) {
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
        give_back(oldest.first, oldest.second, false);
        avoided_clusters.fetch_sub(count);
        clusters -= count;
        any = true;
    }
    return any;
}

}  // namespace uext4
