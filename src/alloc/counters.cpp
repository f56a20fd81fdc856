// How much is free: the sums over all groups, and what of them is promised or on its way back.
#include "alloc/allocator_state.h"
#include "sync/atomic_point.h"

#include <algorithm>

namespace uext4 {

// Whoever replays a log and does no more leaves a superblock that says that all is well and has old counters. So the
// descriptors are asked, before the first change, by who needs to know: opening does not depend on the size.
void AllocatorState::sum_groups_once() {
    MutexLock guard(sum_lock);
    if (!counts_summed.load(std::memory_order_relaxed)) sum_groups();
}

void AllocatorState::sum_groups() {
    std::int64_t clusters = 0, inodes = 0;
    for (std::uint32_t n = 0; n < geometry.group_count; ++n) {
        if (n % geometry.descs_per_block == 0) {
            const std::uint64_t left = (geometry.group_count - n) / geometry.descs_per_block;
            if ((n / geometry.descs_per_block) % 256 == 0 && left > 0 &&
                !geometry.has_incompat(format::incompat::meta_bg))
                buffers.read_ahead(geometry.descriptor_place(GroupNr(n)).block,
                                   static_cast<std::uint32_t>(std::min<std::uint64_t>(left, 256)));
        }
        std::uint32_t offset = 0;
        Result<BufferRef> buffer = descriptor(GroupNr(n), offset);
        if (!buffer) continue;  // nothing of that group can be given to anybody
        const auto d = view(*buffer, offset);
        clusters += std::min(d.free_clusters(), clusters_in(GroupNr(n)));
        inodes += std::min(d.free_inodes(), geometry.inodes_per_group);
    }
    free_on_disk.store(clusters);
    available.store(clusters);
    free_inodes.store(inodes);
    counts_summed.store(true, std::memory_order_release);
}

SpaceCounts Allocator::counts() const {
    State& s = *state_;
    s.sum_counts();
    SpaceCounts out;
    out.blocks = s.geometry.blocks_count;
    const std::int64_t most = static_cast<std::int64_t>(divide_up(s.geometry.blocks_count, s.ratio()));
    const std::int64_t soon = s.pending_free.load() + s.avoided_clusters.load() +
                              std::max<std::int64_t>(0, s.deleting_blocks.load()) / s.ratio();
    const std::int64_t free = std::clamp<std::int64_t>(s.available.load() + soon, 0, most);
    out.free_blocks = static_cast<std::uint64_t>(free) * s.ratio();
    const std::int64_t usable = std::max<std::int64_t>(0, free - static_cast<std::int64_t>(s.root_reserved_clusters));
    out.available_blocks = static_cast<std::uint64_t>(usable) * s.ratio();
    out.inodes = s.geometry.inodes_count;
    const std::int64_t inodes = s.free_inodes.load() + s.deleting_inodes.load();
    out.free_inodes = static_cast<std::uint64_t>(std::clamp<std::int64_t>(inodes, 0, s.geometry.inodes_count));
    return out;
}

void Allocator::add_pending_free_blocks(std::int64_t blocks) { state_->deleting_blocks.fetch_add(blocks); }
void Allocator::add_pending_free_inodes(std::int64_t inodes) { state_->deleting_inodes.fetch_add(inodes); }

bool Allocator::has_pending_free() const {
    const State& s = *state_;
    atomic_point("Allocator::pending", &s.pending_free);
    return s.pending_free.load() > 0 || s.pending_free_inodes.load() > 0 || s.delalloc_reserved.load() > 0;
}

std::uint64_t Allocator::free_count_generation() const {
    atomic_point("Allocator::times_given_back", &state_->free_count_generation);
    return state_->free_count_generation.load();
}

std::uint64_t Allocator::super_free_blocks() const {
    return static_cast<std::uint64_t>(std::max<std::int64_t>(0, state_->free_on_disk.load())) * state_->ratio();
}

std::uint32_t Allocator::super_free_inodes() const {
    return static_cast<std::uint32_t>(std::max<std::int64_t>(0, state_->free_inodes.load()));
}

}  // namespace uext4
