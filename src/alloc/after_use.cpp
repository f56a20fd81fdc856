// Blocks that are freed while somebody may be on his way to them.
#include "alloc/allocator_state.h"
#include "sync/atomic_point.h"

namespace uext4 {

namespace {

// Freed, and gone when the last who had it in hand has given that up.
struct Used {
    Used(std::weak_ptr<AllocatorState> of, BlockNr freed, Allocator::Reuse next)
        : state(std::move(of)), block(freed), then(next) {}
    Used(const Used&) = delete;
    Used& operator=(const Used&) = delete;
    ~Used() {
        const auto alive = state.lock();
        if (!alive || !durable.load()) return;
        if (then == Allocator::Reuse::normal) {
            alive->free_durable(block, alive->ratio());
            return;
        }
        alive->avoid(block, alive->ratio());
        atomic_point("Allocator::pending", &alive->pending_free);
        alive->pending_free.fetch_sub(1);
        alive->free_count_generation.fetch_add(1);
    }

    std::weak_ptr<AllocatorState> state;
    BlockNr block;
    Allocator::Reuse then;
    std::atomic<bool> durable{false};
};

}  // namespace

Result<std::shared_ptr<const void>> Allocator::free_when_unused(Handle& handle, BlockNr block, Reuse then) {
    State& s = *state_;
    if (s.ratio() != 1) return fail(EOPNOTSUPP, "block {} is a part of a cluster", block);
    s.sum_counts();
    if (!s.geometry.valid_block(block)) return fail(EUCLEAN, "freeing block {}: outside of the file system", block);
    TRY(free_within_group(handle, block, 1));
    auto used = std::make_shared<Used>(s.weak_from_this(), block, then);
    handle.on_durable([held = used]() mutable {
        held->durable.store(true);
        held.reset();
    });
    return std::shared_ptr<const void>(std::move(used));
}

}  // namespace uext4
