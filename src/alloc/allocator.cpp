#include "alloc/allocator_state.h"

#include <algorithm>

namespace uext4 {

namespace {

constexpr std::uint32_t blocks_read_at_once = 2;  // of descriptors: they cost nothing at opening

}  // namespace

Result<std::unique_ptr<Allocator>> Allocator::open(const format::Geometry& g, BufferCache& buffers, Journal& journal,
                                                   std::uint64_t free_blocks, std::uint64_t free_inodes, bool recount) {
    std::unique_ptr<Allocator> out(new Allocator());
    out->state_ = std::make_shared<State>(g, buffers, journal);
    State& s = *out->state_;
    s.root_reserved_clusters = g.reserved_blocks / g.cluster_ratio;
    s.counts_consistent = !recount || journal.has_log();
    const auto clusters = static_cast<std::int64_t>(free_blocks / g.cluster_ratio);
    s.free_on_disk.store(clusters);
    s.available.store(clusters);
    s.free_inodes.store(static_cast<std::int64_t>(free_inodes));
    if (recount || g.group_count <= blocks_read_at_once * g.descs_per_block) s.sum_groups();
    return out;
}

Allocator::~Allocator() {
    if (!state_) return;
    {
        MutexLock guard(state_->discard_lock);
        state_->stop = true;
        state_->discard_work.notify_all();
    }
    state_->discard_thread.join();
}

void Allocator::set_corruption_callback(std::function<bool(const Error&)> told) {
    state_->corruption_callback = std::move(told);
}

void Allocator::set_read_only(bool on) { state_->read_only = on; }

void Allocator::set_journal_blocks(const std::vector<BlockRun>& runs) {
    for (const BlockRun& run : runs)
        state_->journal_zone.ranges.push_back({run.first.value, run.first.value + run.count});
    std::ranges::sort(state_->journal_zone.ranges, {}, &SystemZone::Range::first);
}
const format::Geometry& Allocator::geometry() const { return state_->geometry; }
std::uint64_t Allocator::allocated_clusters() const { return static_cast<std::uint64_t>(state_->allocated.load()); }
std::uint64_t Allocator::reserved_clusters() const {
    return static_cast<std::uint64_t>(state_->delalloc_reserved.load());
}

BlockNr Allocator::goal_for(InodeNr ino) const {
    const format::Geometry& g = state_->geometry;
    const GroupNr group = g.group_of(ino);
    // Within the group, files are spread so that those written side by side do not meet at once.
    const std::uint64_t part = g.blocks_in_group(group) / 16;
    return g.first_block(group) + (ino.value % 16) * part;
}

std::uint64_t AllocatorState::base_blocks(GroupNr g) const {
    // With 1 KiB blocks counted from 0 (bigalloc) the primary superblock is block 1.
    const bool skips_one = g.value == 0 && geometry.block_size == 1024 && geometry.first_data_block == 0;
    return std::uint64_t{geometry.base_meta_blocks(g)} + (skips_one ? 1 : 0);
}

std::optional<std::uint64_t> SystemZone::find_first(std::uint64_t first, std::uint64_t end,
                                                    const std::function<bool(std::uint64_t)>& wanted) const {
    for (auto r = std::ranges::upper_bound(ranges, first, {}, &Range::end); r != ranges.end() && r->first < end; ++r)
        for (std::uint64_t b = std::max(first, r->first); b < std::min(end, r->end); ++b)
            if (wanted(b)) return b;
    return std::nullopt;
}

bool SystemZone::overlaps(std::uint64_t first, std::uint64_t end) const {
    const auto after = std::ranges::lower_bound(ranges, end, {}, &Range::first);
    return after != ranges.begin() && first < std::prev(after)->end;
}

std::unique_ptr<SystemZone> AllocatorState::build_system_zone(std::uint64_t flex, bool& complete) {
    auto out = std::make_unique<SystemZone>();
    complete = true;
    const std::uint64_t from = flex << geometry.log_groups_per_flex;
    const std::uint64_t to =
        std::min<std::uint64_t>(from + (std::uint64_t{1} << geometry.log_groups_per_flex), geometry.group_count);
    const auto add = [&](BlockNr first, std::uint64_t count) {
        out->ranges.push_back({first.value, first.value + count});
    };
    for (std::uint64_t n = from; n < to; ++n) {
        std::uint32_t offset = 0;
        Result<BufferRef> buffer = descriptor(GroupNr(n), offset);
        if (!buffer) {
            complete = false;
            continue;
        }
        const auto d = view(*buffer, offset);
        add(d.block_bitmap(), 1);
        add(d.inode_bitmap(), 1);
        add(d.inode_table(), geometry.inode_table_blocks);
    }
    // What adjoins becomes one: in a flex group usually all of it.
    std::ranges::sort(out->ranges, {}, &SystemZone::Range::first);
    std::vector<SystemZone::Range> merged;
    for (const SystemZone::Range& r : out->ranges) {
        if (!merged.empty() && r.first <= merged.back().end) merged.back().end = std::max(merged.back().end, r.end);
        else merged.push_back(r);
    }
    out->ranges = std::move(merged);
    return out;
}

template <class Look>
auto AllocatorState::with_system_zone(GroupNr group, const Look& look) {
    const std::uint64_t flex = group.value >> geometry.log_groups_per_flex;
    if (const SystemZone* known = system_zones[flex].load(std::memory_order_acquire)) return look(*known);
    bool complete = false;
    std::unique_ptr<const SystemZone> made = build_system_zone(flex, complete);
    const auto seen = look(*made);
    // With a descriptor that could not be read, it is asked for again next time.
    if (complete) {
        MutexLock guard(table_lock);
        if (!system_zones[flex].load(std::memory_order_relaxed)) {
            system_zones[flex].store(made.get(), std::memory_order_release);
            owned_zones.push_back(std::move(made));
        }
    }
    return seen;
}

bool AllocatorState::overlaps_system_zone(GroupNr group, BlockNr first, std::uint64_t count) {
    const BlockNr start = geometry.first_block(group);
    if (first < start + base_blocks(group) && start < first + count) return true;
    return with_system_zone(group,
                            [&](const SystemZone& known) { return known.overlaps(first.value, first.value + count); });
}

std::optional<BlockNr> AllocatorState::unmarked_system_block(GroupNr group, const ClusterBitmap& map) {
    const std::uint64_t start = geometry.first_block(group).value;
    const std::uint64_t end = start + std::uint64_t{geometry.blocks_in_group(group)};
    auto is_free = [&](std::uint64_t b) { return !map.test(cluster_index(BlockNr(b))); };
    for (std::uint64_t b = start; b < std::min(end, start + base_blocks(group)); ++b)
        if (is_free(b)) return BlockNr(b);
    std::optional<std::uint64_t> found =
        with_system_zone(group, [&](const SystemZone& known) { return known.find_first(start, end, is_free); });
    if (!found) found = journal_zone.find_first(start, end, is_free);
    return found ? std::optional(BlockNr(*found)) : std::nullopt;
}

bool Allocator::is_system_block(BlockNr block) const {
    const format::Geometry& g = state_->geometry;
    if (block.value < g.first_data_block || block.value >= g.blocks_count) return true;
    return state_->overlaps_system_zone(g.group_of(block), block, 1);
}

bool Allocator::has_invalid_block(InodeNr owner, BlockNr first, std::uint64_t count) const {
    State& s = *state_;
    const format::Geometry& g = s.geometry;
    if (first.value < g.first_data_block || first.value >= g.blocks_count || count > g.blocks_count - first.value)
        return true;
    if (owner.value != g.journal_inode && s.journal_zone.overlaps(first.value, first.value + count)) return true;
    while (count > 0) {
        const GroupNr group = g.group_of(first);
        const std::uint64_t end = g.first_block(group).value + g.blocks_in_group(group);
        const std::uint64_t here = std::min(count, end - first.value);
        if (s.overlaps_system_zone(group, first, here)) return true;
        first = first + here;
        count -= here;
    }
    return false;
}

}  // namespace uext4
