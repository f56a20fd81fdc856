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
    s.reserved_clusters = g.reserved_blocks / g.cluster_ratio;
    s.counts_hold = !recount || journal.has_log();
    const auto clusters = static_cast<std::int64_t>(free_blocks / g.cluster_ratio);
    s.disk_free.store(clusters);
    s.available.store(clusters);
    s.free_inodes.store(static_cast<std::int64_t>(free_inodes));
    if (recount || g.group_count <= blocks_read_at_once * g.descs_per_block) s.add_up_groups();
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

void Allocator::set_on_damage(std::function<bool(const Error&)> told) { state_->on_damage = std::move(told); }

void Allocator::set_reads_only(bool on) { state_->reads_only = on; }

void Allocator::set_log(const std::vector<BlockRun>& runs) {
    for (const BlockRun& run : runs) state_->log.ranges.push_back({run.first.value, run.first.value + run.count});
    std::ranges::sort(state_->log.ranges, {}, &SystemRanges::Range::first);
}
const format::Geometry& Allocator::geometry() const { return state_->geometry; }
std::uint64_t Allocator::granted_clusters() const { return static_cast<std::uint64_t>(state_->granted.load()); }
std::uint64_t Allocator::claimed_clusters() const { return static_cast<std::uint64_t>(state_->claimed.load()); }

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

std::optional<std::uint64_t> SystemRanges::first_in(std::uint64_t first, std::uint64_t end,
                                                    const std::function<bool(std::uint64_t)>& wanted) const {
    for (auto r = std::ranges::upper_bound(ranges, first, {}, &Range::end); r != ranges.end() && r->first < end; ++r)
        for (std::uint64_t b = std::max(first, r->first); b < std::min(end, r->end); ++b)
            if (wanted(b)) return b;
    return std::nullopt;
}

bool SystemRanges::touch(std::uint64_t first, std::uint64_t end) const {
    const auto after = std::ranges::lower_bound(ranges, end, {}, &Range::first);
    return after != ranges.begin() && first < std::prev(after)->end;
}

std::unique_ptr<SystemRanges> AllocatorState::ranges_of_flex(std::uint64_t flex, bool& complete) {
    auto out = std::make_unique<SystemRanges>();
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
    std::ranges::sort(out->ranges, {}, &SystemRanges::Range::first);
    std::vector<SystemRanges::Range> merged;
    for (const SystemRanges::Range& r : out->ranges) {
        if (!merged.empty() && r.first <= merged.back().end) merged.back().end = std::max(merged.back().end, r.end);
        else merged.push_back(r);
    }
    out->ranges = std::move(merged);
    return out;
}

template <class Look>
auto AllocatorState::with_ranges(GroupNr group, const Look& look) {
    const std::uint64_t flex = group.value >> geometry.log_groups_per_flex;
    if (const SystemRanges* known = system_ranges[flex].load(std::memory_order_acquire)) return look(*known);
    bool complete = false;
    std::unique_ptr<const SystemRanges> made = ranges_of_flex(flex, complete);
    const auto seen = look(*made);
    // With a descriptor that could not be read, it is asked for again next time.
    if (complete) {
        MutexLock guard(table_lock);
        if (!system_ranges[flex].load(std::memory_order_relaxed)) {
            system_ranges[flex].store(made.get(), std::memory_order_release);
            owned_ranges.push_back(std::move(made));
        }
    }
    return seen;
}

bool AllocatorState::touches_system(GroupNr group, BlockNr first, std::uint64_t count) {
    const BlockNr start = geometry.first_block(group);
    if (first < start + base_blocks(group) && start < first + count) return true;
    return with_ranges(group, [&](const SystemRanges& known) { return known.touch(first.value, first.value + count); });
}

std::optional<BlockNr> AllocatorState::unmarked_system_block(GroupNr group, const BusyMap& map) {
    const std::uint64_t start = geometry.first_block(group).value;
    const std::uint64_t end = start + std::uint64_t{geometry.blocks_in_group(group)};
    auto is_free = [&](std::uint64_t b) { return !map.test(cluster_index(BlockNr(b))); };
    for (std::uint64_t b = start; b < std::min(end, start + base_blocks(group)); ++b)
        if (is_free(b)) return BlockNr(b);
    std::optional<std::uint64_t> found =
        with_ranges(group, [&](const SystemRanges& known) { return known.first_in(start, end, is_free); });
    if (!found) found = log.first_in(start, end, is_free);
    return found ? std::optional(BlockNr(*found)) : std::nullopt;
}

bool Allocator::is_system_block(BlockNr block) const {
    const format::Geometry& g = state_->geometry;
    if (block.value < g.first_data_block || block.value >= g.blocks_count) return true;
    return state_->touches_system(g.group_of(block), block, 1);
}

bool Allocator::cannot_be_of(InodeNr owner, BlockNr first, std::uint64_t count) const {
    State& s = *state_;
    const format::Geometry& g = s.geometry;
    if (first.value < g.first_data_block || first.value >= g.blocks_count || count > g.blocks_count - first.value)
        return true;
    if (owner.value != g.journal_inode && s.log.touch(first.value, first.value + count)) return true;
    while (count > 0) {
        const GroupNr group = g.group_of(first);
        const std::uint64_t end = g.first_block(group).value + g.blocks_in_group(group);
        const std::uint64_t here = std::min(count, end - first.value);
        if (s.touches_system(group, first, here)) return true;
        first = first + here;
        count -= here;
    }
    return false;
}

}  // namespace uext4
