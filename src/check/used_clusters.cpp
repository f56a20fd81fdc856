#include "check/used_clusters.h"

#include <algorithm>

namespace uext4 {

namespace {
constexpr std::uint32_t bits_per_word = 32;
}

std::size_t UsedClusterSet::Group::run_from(std::uint32_t i) const {
    std::size_t low = 0, high = words.size() / 2;
    while (low < high) {
        const std::size_t middle = (low + high) / 2;
        if (words[middle * 2 + 1] > i) high = middle;
        else low = middle + 1;
    }
    return low;
}

bool UsedClusterSet::Group::test(std::uint32_t i) const {
    if (bits) return (words[i / bits_per_word] >> i % bits_per_word & 1) != 0;
    const std::size_t run = run_from(i) * 2;
    return run < words.size() && words[run] <= i;
}

bool UsedClusterSet::Group::add(std::uint32_t i, std::uint32_t all) {
    if (!bits) {
        if (!add_to_runs(i)) return false;
        if (words.size() > std::max<std::size_t>(all / bits_per_word / 8, 4)) become_bits(all);
        return true;
    }
    std::uint32_t& word = words[i / bits_per_word];
    const std::uint32_t bit = std::uint32_t{1} << i % bits_per_word;
    if (word & bit) return false;
    word |= bit;
    return true;
}

bool UsedClusterSet::Group::add_to_runs(std::uint32_t i) {
    const std::size_t at = run_from(i) * 2;
    if (at < words.size() && words[at] <= i) return false;
    const bool after = at > 0 && words[at - 1] == i, before = at < words.size() && words[at] == i + 1;
    const auto place = words.begin() + static_cast<std::ptrdiff_t>(at);
    if (after && before) words.erase(place - 1, place + 1);
    else if (after) ++words[at - 1];
    else if (before) --words[at];
    else words.insert(place, {i, i + 1});
    return true;
}

void UsedClusterSet::Group::become_bits(std::uint32_t all) {
    std::vector<std::uint32_t> made((all + bits_per_word - 1) / bits_per_word);
    for (std::size_t run = 0; run < words.size(); run += 2)
        for (std::uint32_t i = words[run]; i < words[run + 1]; ++i)
            made[i / bits_per_word] |= std::uint32_t{1} << i % bits_per_word;
    words = std::move(made);
    bits = true;
}

bool UsedClusterSet::test(std::uint64_t cluster) const {
    const auto group = groups_.find(cluster / per_group_);
    return group != groups_.end() && group->second.test(static_cast<std::uint32_t>(cluster % per_group_));
}

bool UsedClusterSet::add(std::uint64_t cluster) {
    // Whoever names many clusters names those of one group after each other.
    if (const std::uint64_t group = cluster / per_group_; !last_ || group != last_number_) {
        last_ = &groups_[group];
        last_number_ = group;
    }
    return last_->add(static_cast<std::uint32_t>(cluster % per_group_), per_group_);
}

void UsedClusterSet::put_bits(std::uint64_t group, Bytes bitmap) const {
    const auto found = groups_.find(group);
    if (found == groups_.end()) return;
    const Group& g = found->second;
    const auto put = [&](std::uint32_t i) { bitmap[i / 8] |= std::byte{1} << static_cast<int>(i % 8); };
    for (std::size_t w = 0; w < g.words.size(); ++w) {
        for (std::uint32_t b = 0; g.bits && g.words[w] != 0 && b < bits_per_word; ++b)
            if (g.words[w] >> b & 1) put(static_cast<std::uint32_t>(w) * bits_per_word + b);
        for (std::uint32_t i = g.words[w]; !g.bits && w % 2 == 0 && i < g.words[w + 1]; ++i) put(i);
    }
}

}  // namespace uext4
