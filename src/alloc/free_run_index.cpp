#include "alloc/free_run_index.h"

#include <algorithm>
#include <bit>

namespace uext4 {

std::uint32_t next_clear(const FreeRunIndex::Bits& bits, std::uint32_t from, std::uint32_t limit) {
    while (from < limit) {
        const std::uint64_t word = ~bits[from / 64] >> (from % 64);
        if (word) return std::min(limit, from + static_cast<std::uint32_t>(std::countr_zero(word)));
        from = (from / 64 + 1) * 64;
    }
    return limit;
}

std::uint32_t next_set(const FreeRunIndex::Bits& bits, std::uint32_t from, std::uint32_t limit) {
    while (from < limit) {
        const std::uint64_t word = bits[from / 64] >> (from % 64);
        if (word) return std::min(limit, from + static_cast<std::uint32_t>(std::countr_zero(word)));
        from = (from / 64 + 1) * 64;
    }
    return limit;
}

FreeRunIndex::Node FreeRunIndex::leaf(const Bits& bits, std::uint32_t index) {
    Node node;
    const std::uint32_t begin = index * leaf_bits;
    const std::uint32_t end =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(bits.size() * 64, std::uint64_t{begin} + leaf_bits));
    for (std::uint32_t at = next_clear(bits, begin, end); at < end;) {
        const std::uint32_t stop = next_set(bits, at, end);
        if (at == begin) node.front = stop - at;
        if (stop == begin + leaf_bits) node.back = stop - at;
        node.best = std::max(node.best, stop - at);
        at = next_clear(bits, stop, end);
    }
    return node;
}

FreeRunIndex::Node FreeRunIndex::joined(const Node& left, const Node& right, std::uint32_t half) {
    return {left.front == half ? half + right.front : left.front, right.back == half ? half + left.back : right.back,
            std::max({left.best, right.best, left.back + right.front})};
}

void FreeRunIndex::build(const Bits& bits) {
    leaves_ = std::bit_ceil(static_cast<std::uint32_t>((bits.size() + leaf_words - 1) / leaf_words));
    nodes_.assign(std::size_t{2} * leaves_, Node());
    for (std::uint32_t i = 0; std::size_t{i} * leaf_words < bits.size(); ++i) nodes_[leaves_ + i] = leaf(bits, i);
    for (std::uint32_t n = leaves_ - 1; n > 0; --n)
        nodes_[n] = joined(nodes_[2 * n], nodes_[2 * n + 1], leaf_bits * (leaves_ / std::bit_floor(n) / 2));
}

void FreeRunIndex::update(const Bits& bits, std::uint32_t first, std::uint32_t count) {
    if (nodes_.empty() || count == 0) return;
    std::uint32_t low = first / leaf_bits, high = (first + count - 1) / leaf_bits;
    for (std::uint32_t i = low; i <= high; ++i) nodes_[leaves_ + i] = leaf(bits, i);
    std::uint32_t half = leaf_bits;
    for (low += leaves_, high += leaves_; low > 1; half *= 2) {
        low /= 2, high /= 2;
        for (std::uint32_t n = low; n <= high; ++n) nodes_[n] = joined(nodes_[2 * n], nodes_[2 * n + 1], half);
    }
}

bool FreeRunIndex::Walk::take(std::uint32_t at, std::uint32_t count) {
    if (run == 0) start = at;
    run += count;
    best = std::max(best, run);
    return done();
}

bool FreeRunIndex::walk_bits(Walk& walk, std::uint32_t from, std::uint32_t end) {
    for (std::uint32_t at = from; at < end;) {
        const std::uint32_t stop = next_set(walk.bits, at, end);
        if (stop > at && walk.take(at, stop - at)) return true;
        if (stop == end) return false;
        walk.run = 0;
        at = next_clear(walk.bits, stop, end);
    }
    return false;
}

bool FreeRunIndex::walk_node(Walk& walk, std::uint32_t node, std::uint32_t from, std::uint32_t size) const {
    const std::uint32_t end = from + size;
    if (walk.end <= from || end <= walk.from) return false;
    const Node& seen = nodes_[node];
    if (walk.from <= from && end <= walk.end) {
        if (seen.front > 0 && walk.take(from, seen.front)) return true;
        if (seen.front == size) return false;
        if (seen.best < walk.wanted) {
            walk.best = std::max(walk.best, seen.best);
            walk.run = 0;
            if (seen.back > 0) walk.take(end - seen.back, seen.back);
            return false;
        }
        // What was taken is the start of this node, which is gone through again.
        walk.run = 0;
    }
    if (node >= leaves_) return walk_bits(walk, std::max(from, walk.from), std::min(end, walk.end));
    return walk_node(walk, 2 * node, from, size / 2) || walk_node(walk, 2 * node + 1, from + size / 2, size / 2);
}

std::uint32_t FreeRunIndex::longest_run(const Bits& bits, std::uint32_t from, std::uint32_t end) const {
    if (from >= end) return 0;
    Walk walk{bits, from, end, ~std::uint32_t{0}};
    walk_node(walk, 1, 0, leaves_ * leaf_bits);
    return walk.best;
}

std::uint32_t FreeRunIndex::first_run(const Bits& bits, std::uint32_t from, std::uint32_t end,
                                      std::uint32_t length) const {
    if (from >= end) return end;
    Walk walk{bits, from, end, length};
    return walk_node(walk, 1, 0, leaves_ * leaf_bits) ? walk.start : end;
}

}  // namespace uext4
