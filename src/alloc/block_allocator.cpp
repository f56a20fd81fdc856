#include "alloc/allocator_state.h"
#include "sync/atomic_point.h"

#include <algorithm>

namespace uext4 {

namespace {

constexpr unsigned groups_to_search = 32;  // for a run of the wanted length, before a shorter one is taken

struct FoundRun {
    std::uint32_t first = 0, count = 0;
};

// Windows of other files, which a search steps over.
class Foreign {
public:
    Foreign(const Group& group, InodeNr owner, bool respected)
        : windows_(group.windows), owner_(owner.value), respected_(respected && !group.windows.empty()) {}
    // The first cluster at or after `at` in none of them.
    std::uint32_t behind(std::uint32_t at) const {
        for (bool moved = respected_; moved;) {
            moved = false;
            for (const PreallocationWindow& w : windows_)
                if (w.owner != owner_ && w.first <= at && at < w.end) at = w.end, moved = true;
        }
        return at;
    }
    // The first cluster after `at` that is in one of them, or `limit`.
    std::uint32_t next(std::uint32_t at, std::uint32_t limit) const {
        if (!respected_) return limit;
        for (const PreallocationWindow& w : windows_)
            if (w.owner != owner_ && w.first > at) limit = std::min(limit, w.first);
        return limit;
    }

private:
    const std::vector<PreallocationWindow>& windows_;
    std::uint64_t owner_;
    bool respected_;
};

// A run of `want` from `from` on (wrapping), else the longest there is.
FoundRun find_run(const ClusterBitmap& map, std::uint32_t from, std::uint32_t want, std::uint32_t limit,
                  const Foreign& foreign) {
    const auto search = [&](std::uint32_t start) {
        FoundRun best;
        std::uint32_t best_end = 0;
        for (std::uint32_t at = foreign.behind(start); at < limit && best.count < want;) {
            const std::uint32_t stop = foreign.next(at, limit);
            const std::uint32_t longest = std::min(want, map.runs.longest_run(map.bits, at, stop));
            if (longest > best.count) best = {at, longest}, best_end = stop;
            at = foreign.behind(stop);
        }
        if (best.count > 0) best.first = map.runs.first_run(map.bits, best.first, best_end, best.count);
        return best;
    };
    if (map.free == 0) return {};
    from = std::max(from, map.first_free);
    if (from >= limit) from = map.first_free;
    const FoundRun behind = search(from);
    if (behind.count >= want || from == map.first_free) return behind;
    const FoundRun anywhere = search(map.first_free);
    return anywhere.count > behind.count ? anywhere : behind;
}

// A file that grows in small steps keeps room for several more; twice as much each time that it was used up.
constexpr std::uint32_t window_least = 16, window_most = 1024;

void keep_window(Group& group, InodeNr owner, const FoundRun& taken, const ClusterBitmap& map, std::uint32_t limit)
    UEXT4_REQUIRES(group.lock) {
    const std::uint32_t from = taken.first + taken.count;
    std::uint32_t size = std::max(window_least, taken.count * 2), end = 0;
    std::erase_if(group.windows, [&](const PreallocationWindow& w) {
        if (w.owner != owner.value) return w.first < from && taken.first < w.end;  // broken into
        const bool continues = w.first == taken.first;
        if (continues && from < w.end) end = w.end;
        size = std::max(size, continues && from >= w.end ? 2 * w.size : w.size);
        return true;
    });
    if (owner.value == 0) return;
    size = std::min(size, window_most);
    if (end == 0) end = next_set(map.bits, from, std::min(limit, from + size));
    for (const PreallocationWindow& w : group.windows)
        if (w.end > from) end = std::min(end, std::max(w.first, from));
    end = std::max(from, end);  // empty: remembers the size
    if (group.windows.size() >= max_windows_per_group) group.windows.erase(group.windows.begin());
    group.windows.push_back({owner.value, from, end, size});
}

}  // namespace

Result<Allocation> Allocator::allocate(BlockNr goal, std::uint64_t want, DelallocReservation* paid, bool privileged,
                                       InodeNr owner) {
    State& s = *state_;
    const format::Geometry& g = s.geometry;
    TRY(s.may_allocate());
    s.sum_counts();
    if (!g.valid_block(goal)) goal = BlockNr(g.first_data_block);
    std::uint64_t clusters = std::max<std::uint64_t>(1, divide_up(want, s.ratio()));
    DelallocReservation own;
    if (!paid) {
        // As many as there are, at least one.
        Result<DelallocReservation> claimed = reserve(clusters, privileged);
        if (!claimed && clusters > 1) {
            const std::int64_t keep = privileged ? 0 : static_cast<std::int64_t>(s.root_reserved_clusters);
            clusters = static_cast<std::uint64_t>(std::max<std::int64_t>(1, s.available.load() - keep));
            claimed = reserve(clusters, privileged);
            if (!claimed) clusters = 1, claimed = reserve(1, privileged);
        }
        own = TRY(std::move(claimed));
        paid = &own;
    }
    if (paid->clusters() == 0) return fail(ENOSPC, "an empty claim");
    const std::uint32_t wanted =
        static_cast<std::uint32_t>(std::min<std::uint64_t>({clusters, paid->clusters(), g.clusters_per_group}));
    const std::uint64_t goal_group = g.group_of(goal).value;
    // First a whole run within a bounded number of groups, then the best of them, then anything anywhere.
    std::uint64_t best_group = 0;
    std::uint32_t best_count = 0;
    std::string damage;  // of a group that is not used
    for (int attempt = 0; attempt < 3; ++attempt) {
        const std::uint64_t groups =
            attempt == 2 ? g.group_count : std::min<std::uint64_t>(groups_to_search, g.group_count);
        for (std::uint64_t n = 0; n < groups; ++n) {
            const GroupNr number((goal_group + n) % g.group_count);
            const std::uint32_t hint = s.groups[number.value].free_hint.load(std::memory_order_relaxed);
            if (hint == 0) continue;
            if (hint == unknown_count && s.is_known_full(number)) continue;
            if (attempt == 0 && hint != unknown_count && hint <= best_count) continue;  // no longer run there
            if (attempt == 1 && (best_count == 0 || n != best_group)) continue;
            Group& group = s.group(number);
            MutexLock guard(group.lock);
            if (Result<void> loaded = s.load_blocks(number, group); !loaded) {
                if (loaded.error().code != EUCLEAN || s.stopped.load()) return fail(loaded.error());
                if (damage.empty()) damage = "; " + loaded.error().what;
                continue;
            }
            if (group.blocks->free == 0) continue;
            const std::uint32_t from = n == 0 ? s.cluster_index(goal) : 0;
            const bool respect = attempt < 2;
            const std::uint32_t longest = group.blocks->runs.longest_run();
            if (attempt == 0 && longest < wanted && longest <= best_count) continue;
            const FoundRun run =
                find_run(*group.blocks, from, wanted, s.clusters_in(number), Foreign(group, owner, respect));
            if (attempt == 0 && run.count < wanted && run.count > best_count) best_group = n, best_count = run.count;
            if (run.count == 0 || (attempt == 0 && run.count < wanted)) continue;
            group.blocks->mark_used(run.first, run.count);
            keep_window(group, owner, run, *group.blocks, s.clusters_in(number));
            group.blocks->free -= run.count;
            group.blocks->memory_only += run.count;
            if (run.first == group.blocks->first_free) group.blocks->first_free = run.first + run.count;
            s.groups[number.value].free_hint.store(group.blocks->free, std::memory_order_relaxed);
            paid->consume(run.count);
            s.allocated.fetch_add(run.count);
            Allocation out;
            out.state_ = state_;
            out.first_ = s.cluster_block(number, run.first);
            out.count_ = std::uint64_t{run.count} * s.ratio();
            return out;
        }
    }
    // More may have been promised before the damage was met.
    if (!damage.empty()) return fail(EUCLEAN, "no free cluster was found{}", damage);
    return fail(ENOSPC, "no free cluster was found, although {} should be free", s.available.load());
}

Result<Allocation> Allocator::allocate_within(BlockNr first, std::uint64_t count) {
    State& s = *state_;
    const format::Geometry& g = s.geometry;
    s.sum_counts();
    if (first.value % s.ratio() != 0) return fail(EINVAL, "block {} is inside of a cluster", first);
    if (!g.valid_block(first) || count > g.blocks_count - first.value)
        return fail(EUCLEAN, "{} blocks at {}: outside of the file system", count, first);
    while (count > 0) {
        const GroupNr number = g.group_of(first);
        const std::uint64_t n = std::min(count, g.first_block(number).value + g.blocks_per_group - first.value);
        const std::uint32_t index = s.cluster_index(first),
                            end = index + static_cast<std::uint32_t>(divide_up(n, s.ratio()));
        Group& group = s.group(number);
        MutexLock guard(group.lock);
        TRY(s.load_blocks(number, group));
        ClusterBitmap& map = *group.blocks;
        const std::uint32_t from = next_clear(map.bits, index, end);
        if (from < end) {
            const std::uint32_t taken = next_set(map.bits, from, end) - from;
            DelallocReservation paid = TRY(reserve_without_avoided(taken, true));
            map.mark_used(from, taken);
            map.free -= taken;
            map.memory_only += taken;
            if (map.first_free == from) map.first_free = from + taken;
            s.groups[number.value].free_hint.store(map.free, std::memory_order_relaxed);
            paid.consume(taken);
            s.allocated.fetch_add(taken);
            Allocation out;
            out.state_ = state_;
            out.first_ = s.cluster_block(number, from);
            out.count_ = std::uint64_t{taken} * s.ratio();
            return out;
        }
        first += n;
        count -= n;
    }
    return Allocation();
}

// In memory only. `was_granted`: counted as such.
void AllocatorState::return_to_free(BlockNr first, std::uint64_t blocks, bool was_granted) {
    const GroupNr number = group_of(first);
    Group& grp = group(number);
    const std::uint32_t index = cluster_index(first), count = static_cast<std::uint32_t>(divide_up(blocks, ratio()));
    {
        MutexLock guard(grp.lock);
        if (grp.blocks) {
            grp.blocks->mark_free(index, count);
            grp.blocks->free += count;
            grp.blocks->memory_only -= count;
            grp.blocks->first_free = std::min(grp.blocks->first_free, index);
            groups[number.value].free_hint.store(grp.blocks->free, std::memory_order_relaxed);
        }
    }
    if (was_granted) allocated.fetch_sub(count);
    atomic_point("Allocator::available", &available);
    available.fetch_add(count);
    free_count_generation.fetch_add(1);
}

Result<void> Allocator::mark_used(Handle& handle, Allocation& grant) {
    State& s = *state_;
    if (grant.count_ == 0) return {};
    const GroupNr number = s.group_of(grant.first_);
    Group& group = s.group(number);
    const std::uint32_t index = s.cluster_index(grant.first_),
                        count = static_cast<std::uint32_t>(grant.count_ / s.ratio());
    MutexLock guard(group.lock);
    std::uint32_t offset = 0;
    BufferRef desc = TRY(s.descriptor(number, offset));
    TRY(handle.get_write_access(desc));
    BufferRef bitmap = TRY(s.writable_block_bitmap(handle, number, desc, offset));
    for (std::uint32_t i = index; i < index + count; ++i) {
        if (std::to_integer<unsigned>(bitmap->data()[i / 8]) >> (i % 8) & 1)
            return fail(EUCLEAN, "group {}: block bitmap: block {} was granted and is in use", number,
                        s.cluster_block(number, i));
    }
    for (std::uint32_t i = index; i < index + count; ++i)
        bitmap->data()[i / 8] |= std::byte{1} << static_cast<int>(i % 8);
    {
        MutexLock change(desc->lock);
        auto d = s.view(desc, offset);
        d.set_free_clusters(d.free_clusters() >= count ? d.free_clusters() - count : 0);
        d.sum_block_bitmap(s.geometry, bitmap->data());
        d.set_checksum(s.geometry, number);
    }
    group.blocks->memory_only -= count;
    s.free_on_disk.fetch_sub(count);
    s.allocated.fetch_sub(count);
    grant.count_ = 0;
    return {};
}

Result<Allocation> Allocator::unmark_used(Handle& handle, BlockNr first, std::uint64_t count) {
    State& s = *state_;
    const GroupNr number = s.group_of(first);
    Group& group = s.group(number);
    const std::uint32_t index = s.cluster_index(first), clusters = static_cast<std::uint32_t>(count / s.ratio());
    MutexLock guard(group.lock);
    TRY(s.load_blocks(number, group));
    std::uint32_t offset = 0;
    BufferRef desc = TRY(s.descriptor(number, offset));
    TRY(handle.get_write_access(desc));
    BufferRef bitmap = TRY(s.writable_block_bitmap(handle, number, desc, offset));
    for (std::uint32_t i = index; i < index + clusters; ++i)
        bitmap->data()[i / 8] &= ~(std::byte{1} << static_cast<int>(i % 8));
    {
        MutexLock change(desc->lock);
        auto d = s.view(desc, offset);
        d.set_free_clusters(d.free_clusters() + clusters);
        d.sum_block_bitmap(s.geometry, bitmap->data());
        d.set_checksum(s.geometry, number);
    }
    group.blocks->memory_only += clusters;
    s.free_on_disk.fetch_add(clusters);
    s.allocated.fetch_add(clusters);
    Allocation out;
    out.state_ = state_;
    out.first_ = first;
    out.count_ = count;
    return out;
}

Result<BlockNr> Allocator::allocate_metadata(Handle& handle, BlockNr goal, DelallocReservation* paid, bool privileged) {
    if (paid && paid->clusters() == 0) paid = nullptr;
    Allocation one = TRY(allocate(goal, 1, paid, privileged));
    const BlockNr block = one.first();
    TRY(mark_used(handle, one));
    return block;
}

Result<std::vector<BufferRef>> Allocator::pin_blocks_for_free(BlockNr first, std::uint64_t count) {
    State& s = *state_;
    const format::Geometry& g = s.geometry;
    std::vector<BufferRef> held;
    if (count == 0 || !g.valid_block(first) || count > g.blocks_count - first.value) return held;
    const GroupNr last = g.group_of(first + (count - 1));
    for (GroupNr group = g.group_of(first); group <= last; group = GroupNr(group.value + 1)) {
        std::uint32_t offset = 0;
        BufferRef desc = TRY(s.descriptor(group, offset));
        BlockNr bitmap;
        {
            MutexLock guard(desc->lock);
            const auto d = s.view(desc, offset);
            if (!(d.flags() & format::group_flag::block_uninit)) bitmap = d.block_bitmap();
        }
        held.push_back(std::move(desc));
        if (bitmap && g.valid_block(bitmap)) held.push_back(TRY(s.buffers.read(bitmap, "block bitmap")));
    }
    return held;
}

Result<std::vector<BufferRef>> Allocator::pin_blocks_for_free(InodeNr number) {
    State& s = *state_;
    const format::Geometry& g = s.geometry;
    std::uint32_t offset = 0;
    std::vector<BufferRef> held;
    held.push_back(TRY(s.descriptor(g.group_of(number), offset)));
    BlockNr bitmap;
    {
        MutexLock guard(held.front()->lock);
        const auto d = s.view(held.front(), offset);
        if (!(d.flags() & format::group_flag::inode_uninit)) bitmap = d.inode_bitmap();
    }
    if (bitmap && g.valid_block(bitmap)) held.push_back(TRY(s.buffers.read(bitmap, "inode bitmap")));
    return held;
}

Result<void> Allocator::check_groups(BlockNr first, std::uint64_t count) {
    State& s = *state_;
    if (count == 0) return {};
    if (!s.geometry.valid_block(first) || count > s.geometry.blocks_count - first.value)
        return fail(EUCLEAN, "there are no blocks {}..{}", first, first.value + count - 1);
    const GroupNr last = s.group_of(first + (count - 1));
    for (GroupNr number = s.group_of(first); number <= last; number = GroupNr(number.value + 1)) {
        Group& group = s.group(number);
        MutexLock guard(group.lock);
        TRY(s.load_blocks(number, group));
    }
    return {};
}

Result<void> Allocator::check_can_free(BlockNr block) {
    State& s = *state_;
    TRY(check_groups(block, 1));
    const GroupNr number = s.group_of(block);
    if (s.overlaps_system_zone(number, block, 1) || s.journal_zone.overlaps(block.value, block.value + 1))
        return fail(EUCLEAN, "group {}: block {} belongs to the file system", number, block);
    Group& group = s.group(number);
    MutexLock guard(group.lock);
    TRY(s.load_blocks(number, group));
    if (!group.blocks->test(s.cluster_index(block)))
        return fail(EUCLEAN, "group {}: block bitmap: block {} is in use and was free", number, block);
    return {};
}

// The bits and counts of the disk; what comes back in memory is the caller's.
Result<void> Allocator::free_within_group(Handle& handle, BlockNr first, std::uint64_t count) {
    State& s = *state_;
    const format::Geometry& g = s.geometry;
    const GroupNr number = s.group_of(first);
    const std::uint32_t index = s.cluster_index(first),
                        clusters = static_cast<std::uint32_t>(divide_up(count, s.ratio()));
    if (s.overlaps_system_zone(number, first, count) || s.journal_zone.overlaps(first.value, first.value + count))
        return fail(EUCLEAN, "group {}: freeing blocks {}..{}, which belong to the file system", number, first,
                    first + (count - 1));
    Group& group = s.group(number);
    {
        MutexLock guard(group.lock);
        TRY(s.load_blocks(number, group));
        std::uint32_t offset = 0;
        BufferRef desc = TRY(s.descriptor(number, offset));
        TRY(handle.get_write_access(desc));
        BufferRef bitmap = TRY(s.writable_block_bitmap(handle, number, desc, offset));
        for (std::uint32_t i = index; i < index + clusters; ++i)
            if (!(std::to_integer<unsigned>(bitmap->data()[i / 8]) >> (i % 8) & 1))
                return fail(EUCLEAN, "group {}: block bitmap: block {} is freed and was free", number,
                            s.cluster_block(number, i));
        for (std::uint32_t i = index; i < index + clusters; ++i)
            bitmap->data()[i / 8] &= ~(std::byte{1} << static_cast<int>(i % 8));
        group.blocks->memory_only += clusters;  // until that is durable
        MutexLock change(desc->lock);
        auto d = s.view(desc, offset);
        d.set_free_clusters(d.free_clusters() + clusters);
        d.sum_block_bitmap(g, bitmap->data());
        d.set_checksum(g, number);
    }
    s.free_on_disk.fetch_add(clusters);
    s.pending_free.fetch_add(clusters);
    return {};
}

Result<void> Allocator::free(Handle& handle, BlockNr first, std::uint64_t count) {
    State& s = *state_;
    const format::Geometry& g = s.geometry;
    if (count == 0) return {};
    s.sum_counts();
    if (!g.valid_block(first) || count > g.blocks_count - first.value)
        return fail(EUCLEAN, "freeing {} blocks at {}: outside of the file system", count, first);
    if ((first.value - g.first_data_block) % s.ratio() != 0)
        return fail(EUCLEAN, "group {}: freeing {} blocks at {}, which begin inside a cluster", s.group_of(first),
                    count, first);
    while (count > 0) {
        const std::uint64_t left = g.first_block(s.group_of(first)).value + g.blocks_per_group - first.value;
        const std::uint64_t n = std::min(count, left);
        TRY(free_within_group(handle, first, n));
        handle.on_durable([state = s.weak_from_this(), first, n] {
            if (auto alive = state.lock()) alive->free_durable(first, n);
        });
        first += n;
        count -= n;
    }
    return {};
}

}  // namespace uext4
