#include "volume/named_blocks.h"

#include <algorithm>

namespace uext4 {

Result<NamedBlocks> NamedBlocks::hold(const FastCommits& commits, Allocator& allocator) {
    const format::Geometry& g = allocator.geometry();
    NamedBlocks out(allocator);
    for (const FastCommitOperation& o : commits.operations) {
        if (o.type != format::fc_add_range) continue;
        if (!g.valid_block(o.physical) || o.count == 0 || o.count > g.blocks_count - o.physical.value)
            return fail(EUCLEAN, "{}: blocks {} + {} of {}", o.describe(), o.physical, o.count, g.blocks_count);
        out.named_.emplace_back(out.whole_clusters(o.physical.value, o.physical.value + o.count));
    }
    std::ranges::sort(out.named_);
    std::vector<std::pair<std::uint64_t, std::uint64_t>> merged;
    for (const auto& [first, end] : out.named_) {
        if (!merged.empty() && first <= merged.back().second)
            merged.back().second = std::max(merged.back().second, end);
        else merged.emplace_back(first, end);
    }
    out.named_ = std::move(merged);
    for (const auto& [first, end] : out.named_) TRY(out.hold_free(first, end));
    return out;
}

std::pair<std::uint64_t, std::uint64_t> NamedBlocks::whole_clusters(std::uint64_t first, std::uint64_t end) const {
    const format::Geometry& g = allocator_->geometry();
    return {round_down(first, g.cluster_ratio), round_up(end, g.cluster_ratio)};
}

Result<void> NamedBlocks::hold_free(std::uint64_t first, std::uint64_t end) {
    end = std::min(end, allocator_->geometry().blocks_count);  // the last cluster may not be whole
    while (first < end) {
        Grant grant = TRY(allocator_->grant_within(BlockNr(first), end - first));
        if (!grant) return {};
        first = grant.first().value + grant.count();
        held_.emplace(grant.first().value, std::move(grant));
    }
    return {};
}

Result<void> NamedBlocks::freed(BlockNr first, std::uint64_t count) {
    const auto [begin, end] = whole_clusters(first.value, first.value + count);
    auto it = std::ranges::upper_bound(named_, std::pair(begin, ~std::uint64_t{0}));
    if (it != named_.begin()) --it;
    for (; it != named_.end() && it->first < end; ++it)
        if (it->second > begin) TRY(hold_free(std::max(it->first, begin), std::min(it->second, end)));
    return {};
}

Result<std::vector<Grant>> NamedBlocks::take(BlockNr first, std::uint64_t count) {
    std::vector<Grant> out;
    const auto [begin_at, end] = whole_clusters(first.value, first.value + count);
    std::uint64_t at = begin_at;
    while (at < end) {
        auto it = held_.upper_bound(at);
        if (it == held_.begin()) return fail(EUCLEAN, "block {} is in use", at);
        --it;
        Grant grant = std::move(it->second);
        held_.erase(it);
        const std::uint64_t begin = grant.first().value, stop = begin + grant.count();
        if (stop <= at) {
            held_.emplace(begin, std::move(grant));
            return fail(EUCLEAN, "block {} is in use", at);
        }
        if (begin < at) held_.emplace(begin, grant.split_front(at - begin));
        const std::uint64_t n = std::min(stop, end) - at;
        out.push_back(grant.split_front(n));
        if (grant) {
            const std::uint64_t rest = grant.first().value;
            held_.emplace(rest, std::move(grant));
        }
        at += n;
    }
    return out;
}

}  // namespace uext4
