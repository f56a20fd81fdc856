// Which blocks belong to the file system itself.
#include "alloc/group_table.h"

#include <algorithm>

namespace uext4 {

namespace {

constexpr std::size_t most_zones = 16384;  // kept in memory
constexpr std::size_t most_strays = 4096;  // resizing makes a few; more would be a lie

void merge_runs(std::vector<BlockRun>& runs) {
    std::sort(runs.begin(), runs.end(), [](const BlockRun& a, const BlockRun& b) { return a.first < b.first; });
    std::size_t kept = 0;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        if (kept > 0 && runs[i].first.value <= runs[kept - 1].first.value + runs[kept - 1].count) {
            BlockRun& last = runs[kept - 1];
            last.count = std::max(last.count, runs[i].first.value + runs[i].count - last.first.value);
        } else {
            runs[kept++] = runs[i];
        }
    }
    runs.resize(kept);
}

// Calls `on_run` with each part of a sorted zone within [first, end); stops when it returns true.
template <class OnRun>
bool each_overlap(const std::vector<BlockRun>& runs, std::uint64_t first, std::uint64_t end, OnRun on_run) {
    auto it = std::upper_bound(runs.begin(), runs.end(), first,
                               [](std::uint64_t at, const BlockRun& r) { return at < r.first.value + r.count; });
    for (; it != runs.end() && it->first.value < end; ++it) {
        const std::uint64_t from = std::max(first, it->first.value), to = std::min(end, it->first.value + it->count);
        if (from < to && on_run(from, to)) return true;
    }
    return false;
}

}  // namespace

// The superblock's copy, descriptors and blocks reserved for more of them.
BlockRun GroupTable::base_run(GroupNr g) const {
    std::uint64_t count = geometry_.base_meta_blocks(g);
    // With 1 KiB blocks counted from 0 (bigalloc) the primary superblock is block 1, after one that is never used.
    if (g.value == 0 && geometry_.block_size == 1024 && geometry_.first_data_block == 0) ++count;
    return {geometry_.first_block(g), std::min<std::uint64_t>(count, geometry_.blocks_in_group(g))};
}

void GroupTable::note_stray(BlockRun run) {
    MutexLock guard(zones_lock_);
    for (const BlockRun& r : strays_)
        if (r.first == run.first && r.count == run.count) return;
    if (strays_.size() >= most_strays) return;
    strays_.push_back(run);
    has_strays_.store(true, std::memory_order_release);
}

// A group's structures lie in its own flex group as a rule; those that do not are noted when they are met.
Result<std::shared_ptr<const SystemZone>> GroupTable::zone(GroupNr g) {
    const std::uint64_t index = g.value / flex_size();
    {
        MutexLock guard(zones_lock_);
        if (auto it = zones_.find(index); it != zones_.end()) return it->second;
    }
    auto made = std::make_shared<SystemZone>();
    const std::uint64_t first = index * flex_size(), last = std::min<std::uint64_t>(first + flex_size(), geometry_.group_count);
    const std::uint64_t start = geometry_.first_block(GroupNr(first)).value;
    const std::uint64_t end = std::min(geometry_.first_block(GroupNr(last)).value, geometry_.blocks_count);
    bool readable = true;
    for (std::uint64_t n = first; n < last; ++n) {
        const GroupNr number(n);
        made->runs.push_back(base_run(number));
        if (const Result<Group*> found = group(number); found) {
            const Group& there = **found;
            const BlockRun own[] = {{there.block_bitmap, 1}, {there.inode_bitmap, 1}, {there.inode_table, geometry_.inode_table_blocks}};
            for (const BlockRun& r : own) {
                if (r.first.value < start || r.first.value + r.count > end) note_stray(r);
                made->runs.push_back(r);
            }
        } else {
            made->complete = false;
            if (found.error().code != EUCLEAN) readable = false;
        }
        if (made->runs.size() > 1024) merge_runs(made->runs);
    }
    if (geometry_.mmp_block >= start && geometry_.mmp_block < end && geometry_.mmp_block != 0)
        made->runs.push_back({BlockNr(geometry_.mmp_block), 1});
    merge_runs(made->runs);
    made->runs.shrink_to_fit();
    // What could not be read this time may be readable the next.
    if (!readable) return made;
    MutexLock guard(zones_lock_);
    if (zones_.size() >= most_zones) zones_.clear();
    zones_[index] = made;
    return made;
}

bool GroupTable::system_overlap(BlockNr first, std::uint64_t count) {
    if (count == 0) return false;
    if (first.value < geometry_.first_data_block || first.value >= geometry_.blocks_count || count > geometry_.blocks_count - first.value)
        return true;
    const std::uint64_t end = first.value + count;
    if (has_strays_.load(std::memory_order_acquire)) {
        MutexLock guard(zones_lock_);
        for (const BlockRun& r : strays_)
            if (r.first.value < end && first.value < r.first.value + r.count) return true;
    }
    for (std::uint64_t at = first.value; at < end;) {
        const GroupNr g = geometry_.group_of(BlockNr(at));
        const Result<std::shared_ptr<const SystemZone>> z = zone(g);
        if (z && each_overlap((*z)->runs, at, end, [](std::uint64_t, std::uint64_t) { return true; })) return true;
        at = geometry_.first_block(GroupNr((g.value / flex_size() + 1) * flex_size())).value;
    }
    return false;
}

Result<std::vector<std::byte>> GroupTable::initial_block_bitmap(GroupNr g) {
    const auto z = TRY(zone(g));
    if (!z->complete) return fail(EUCLEAN, "group {}: block bitmap: cannot be made, a descriptor of its flex group is damaged", g);
    std::vector<std::byte> bitmap(geometry_.block_size);
    const std::uint64_t start = geometry_.first_block(g).value;
    auto mark = [&](std::uint64_t from, std::uint64_t to) {
        const std::uint64_t low = (from - start) >> geometry_.cluster_bits, high = (to - 1 - start) >> geometry_.cluster_bits;
        set_bits(bitmap, low, high - low + 1);
        return false;
    };
    each_overlap(z->runs, start, start + geometry_.blocks_in_group(g), mark);
    const std::uint64_t used = geometry_.clusters_in_group(g), all = std::uint64_t{geometry_.block_size} * 8;
    if (used < all) set_bits(bitmap, used, all - used);
    return bitmap;
}

Result<void> GroupTable::check_system_bits(GroupNr g, ConstBytes bitmap) {
    const auto z = TRY(zone(g));
    const std::uint64_t start = geometry_.first_block(g).value, end = start + geometry_.blocks_in_group(g);
    const BlockRun base = base_run(g);
    // Blocks reserved for descriptors may have been given up without the superblock saying so.
    const std::uint64_t reserved_end = base.first.value + base.count;
    const std::uint64_t reserved = reserved_end - std::min<std::uint64_t>(base.count, geometry_.reserved_gdt_blocks);
    std::uint64_t missing = 0;
    const bool lies = each_overlap(z->runs, start, end, [&](std::uint64_t from, std::uint64_t to) {
        for (std::uint64_t b = from; b < to; ++b) {
            if (bit_in(bitmap, (b - start) >> geometry_.cluster_bits) || (b >= reserved && b < reserved_end)) continue;
            missing = b;
            return true;
        }
        return false;
    });
    if (lies) return fail(EUCLEAN, "group {}: block bitmap: block {} of the file system's own is not marked", g, missing);
    return {};
}

}  // namespace uext4
