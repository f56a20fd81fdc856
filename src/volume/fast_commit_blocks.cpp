#include "volume/fast_commit_blocks.h"

#include <algorithm>

namespace uext4 {

Result<FastCommitBlocks> FastCommitBlocks::reserve(const FastCommits& commits, Allocator& allocator) {
    const format::Geometry& g = allocator.geometry();
    FastCommitBlocks out(allocator);
    for (const FastCommitOperation& o : commits.operations) {
        if (o.type != format::fc_add_range) continue;
        if (!g.valid_block(o.physical) || o.count == 0 || o.count > g.blocks_count - o.physical.value)
            return fail(EUCLEAN, "{}: blocks {} + {} of {}", o.describe(), o.physical, o.count, g.blocks_count);
        out.ranges_.emplace_back(out.whole_clusters(o.physical.value, o.physical.value + o.count));
    }
    std::ranges::sort(out.ranges_);
    std::vector<std::pair<std::uint64_t, std::uint64_t>> merged;
    for (const auto& [reserve, end] : out.ranges_) {
        if (!merged.empty() && reserve <= merged.back().second)
            merged.back().second = std::max(merged.back().second, end);
        else merged.emplace_back(reserve, end);
    }
    out.ranges_ = std::move(merged);
    for (const auto& [reserve, end] : out.ranges_) TRY(out.reserve_free(reserve, end));
    return out;
}

std::pair<std::uint64_t, std::uint64_t> FastCommitBlocks::whole_clusters(std::uint64_t first, std::uint64_t end) const {
    const format::Geometry& g = allocator_->geometry();
    return {round_down(first, g.cluster_ratio), round_up(end, g.cluster_ratio)};
}

Result<void> FastCommitBlocks::reserve_free(std::uint64_t first, std::uint64_t end) {
    end = std::min(end, allocator_->geometry().blocks_count);  // the last cluster may not be whole
    while (first < end) {
        Allocation grant = TRY(allocator_->allocate_within(BlockNr(first), end - first));
        if (!grant) return {};
        first = grant.first().value + grant.count();
        allocations_.emplace(grant.first().value, std::move(grant));
    }
    return {};
}

Result<void> FastCommitBlocks::note_freed(BlockNr first, std::uint64_t count) {
    const auto [note_freed, end] = whole_clusters(first.value, first.value + count);
    auto it = std::ranges::upper_bound(ranges_, std::pair(note_freed, ~std::uint64_t{0}));
    if (it != ranges_.begin()) --it;
    for (; it != ranges_.end() && it->first < end; ++it)
        if (it->second > note_freed) TRY(reserve_free(std::max(it->first, note_freed), std::min(it->second, end)));
    return {};
}

Result<std::vector<Allocation>> FastCommitBlocks::take(BlockNr first, std::uint64_t count) {
    std::vector<Allocation> out;
    const auto [begin_at, end] = whole_clusters(first.value, first.value + count);
    std::uint64_t at = begin_at;
    while (at < end) {
        auto it = allocations_.upper_bound(at);
        if (it == allocations_.begin()) return fail(EUCLEAN, "block {} is in use", at);
        --it;
        Allocation grant = std::move(it->second);
        allocations_.erase(it);
        const std::uint64_t begin = grant.first().value, stop = begin + grant.count();
        if (stop <= at) {
            allocations_.emplace(begin, std::move(grant));
            return fail(EUCLEAN, "block {} is in use", at);
        }
        if (begin < at) allocations_.emplace(begin, grant.split_front(at - begin));
        const std::uint64_t n = std::min(stop, end) - at;
        out.push_back(grant.split_front(n));
        if (grant) {
            const std::uint64_t rest = grant.first().value;
            allocations_.emplace(rest, std::move(grant));
        }
        at += n;
    }
    return out;
}

}  // namespace uext4
