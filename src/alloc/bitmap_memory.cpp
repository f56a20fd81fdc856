// Memory for groups' bitmaps stays bounded, and groups that are known to be full are not read.
#include "alloc/allocator_state.h"

#include <algorithm>
#include <utility>

namespace uext4 {

namespace {

// How many groups one load looks at for maps that may go: those that are in use must not make it walk all of them.
constexpr std::size_t clock_steps = 64;

std::uint64_t bytes_of_map(const std::unique_ptr<ClusterBitmap>& map) { return map ? map->bytes() : 0; }

// What the disk's bitmap tells as well goes. Bytes freed.
std::uint64_t let_go(std::unique_ptr<ClusterBitmap>& map) {
    if (!map || map->memory_only != 0) return 0;
    const std::uint64_t bytes = bytes_of_map(map);
    map.reset();
    return bytes;
}

}  // namespace

void AllocatorState::limit_bitmap_memory(GroupNr g, Group& held, std::uint64_t added) {
    MutexLock guard(table_lock);
    bitmap_memory += added;
    if (!held.in_bitmap_list) {
        held.in_bitmap_list = true;
        bitmap_list.push_back(static_cast<std::uint32_t>(g.value));
    }
    for (std::size_t steps = std::min(bitmap_list.size(), clock_steps);
         bitmap_memory > bitmap_memory_limit && steps > 0; --steps) {
        const std::uint32_t number = bitmap_list.front();
        bitmap_list.pop_front();
        Group& group = *groups[number].group;
        // Tried only: whoever holds it uses its maps.
        if (number != g.value && group.lock.try_lock()) {
            if (!std::exchange(group.recently_used, false)) {
                bitmap_memory -= let_go(group.blocks);
                bitmap_memory -= let_go(group.inodes);
                if (!group.blocks) group.windows = {};
                group.in_bitmap_list = group.blocks || group.inodes;
            }
            const bool stays = group.in_bitmap_list;
            group.lock.unlock();
            if (!stays) continue;
        }
        bitmap_list.push_back(number);
    }
}

bool AllocatorState::is_known_full(GroupNr g) {
    return is_known_zero(g, groups[g.value].free_hint,
                         [](const format::GroupDescView& d) { return d.free_clusters(); });
}

bool AllocatorState::is_known_full_of_inodes(GroupNr g) {
    return is_known_zero(g, groups[g.value].free_inode_hint,
                         [](const format::GroupDescView& d) { return d.free_inodes(); });
}

bool AllocatorState::is_known_zero(GroupNr g, std::atomic<std::uint32_t>& hint,
                                   std::uint32_t (*count)(const format::GroupDescView&)) {
    if (const std::uint32_t known = hint.load(std::memory_order_relaxed); known != unknown_count) return known == 0;
    std::uint32_t offset = 0;
    Result<BufferRef> desc = descriptor(g, offset);
    if (!desc) return false;  // whoever loads the group says what is wrong
    {
        MutexLock guard((*desc)->lock);
        if (count(view(*desc, offset)) != 0) return false;
    }
    // Unless somebody has looked meanwhile.
    std::uint32_t expected = unknown_count;
    return hint.compare_exchange_strong(expected, 0) || expected == 0;
}

void Allocator::set_bitmap_memory_limit(std::uint64_t bytes) { state_->bitmap_memory_limit = bytes; }

std::uint64_t Allocator::bitmap_memory_bytes() const {
    MutexLock guard(state_->table_lock);
    return state_->bitmap_memory;
}

}  // namespace uext4
