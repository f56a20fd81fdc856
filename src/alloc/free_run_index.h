// Where the runs of clear bits of a bitmap are: the longest one, or the first of a length, of any stretch, in
// logarithmic time.
#pragma once

#include <cstdint>
#include <vector>

namespace uext4 {

// A tree over pieces of the bitmap. Each node knows of its bits how many are clear at its start, at its end, and in the
// longest run. The bitmap is the caller's, who says what has changed.
class FreeRunIndex {
public:
    using Bits = std::vector<std::uint64_t>;

    void build(const Bits& bits);
    // These bits, `count` from `first` on.
    void update(const Bits& bits, std::uint32_t first, std::uint32_t count);

    std::uint32_t longest_run() const { return nodes_.empty() ? 0 : nodes_[1].best; }
    // The longest run within [from, end); what lies outside of it does not count.
    std::uint32_t longest_run(const Bits& bits, std::uint32_t from, std::uint32_t end) const;
    // The start of the first run of at least `length` there, or `end`.
    std::uint32_t first_run(const Bits& bits, std::uint32_t from, std::uint32_t end, std::uint32_t length) const;

    std::uint64_t bytes() const { return nodes_.size() * sizeof(Node); }

private:
    static constexpr std::uint32_t leaf_words = 8, leaf_bits = leaf_words * 64;
    struct Node {
        std::uint32_t front = 0, back = 0, best = 0;
    };
    // Of the bits seen so far, from the left to the right.
    struct Walk {
        const Bits& bits;
        std::uint32_t from, end;
        std::uint32_t wanted;  // the walk ends at such a run
        std::uint32_t start = 0, run = 0, best = 0;
        bool take(std::uint32_t at, std::uint32_t count);  // clear bits
        bool done() const { return run >= wanted; }
    };

    static Node leaf(const Bits& bits, std::uint32_t index);
    static Node joined(const Node& left, const Node& right, std::uint32_t half);
    static bool walk_bits(Walk& walk, std::uint32_t from, std::uint32_t end);
    bool walk_node(Walk& walk, std::uint32_t node, std::uint32_t from, std::uint32_t size) const;

    std::uint32_t leaves_ = 0;  // a power of two
    std::vector<Node> nodes_;   // the root is 1, the children of n are 2n and 2n + 1
};

// The first clear bit, or the first set one, of [from, limit), or `limit`.
std::uint32_t next_clear(const FreeRunIndex::Bits& bits, std::uint32_t from, std::uint32_t limit);
std::uint32_t next_set(const FreeRunIndex::Bits& bits, std::uint32_t from, std::uint32_t limit);

}  // namespace uext4
