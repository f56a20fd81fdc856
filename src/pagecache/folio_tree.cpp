#include "pagecache/folio_tree.h"

#include "pagecache/file_cache.h"

#include <algorithm>
#include <bit>

namespace uext4 {

struct FolioTree::Node {
    Node(std::uint64_t index, unsigned node_shift) : shift(node_shift) {
        const unsigned above = shift + node_bits;
        first = above >= 64 ? 0 : index >> above << above;
    }
    Node(const Node&) = delete;
    ~Node() {
        if (shift == 0) return;
        for (std::uint16_t bits = of(Tag::present); bits; bits &= static_cast<std::uint16_t>(bits - 1))
            delete places[static_cast<unsigned>(std::countr_zero(bits))].node;
    }

    unsigned place_of(std::uint64_t index) const { return static_cast<unsigned>(index >> shift) & (fanout - 1); }
    std::uint16_t bit_of(std::uint64_t index) const { return static_cast<std::uint16_t>(1u << place_of(index)); }
    bool covers(std::uint64_t index) const {
        const unsigned above = shift + node_bits;
        return above >= 64 || index >> above == first >> above;
    }
    std::uint16_t& of(Tag mark) { return marks[static_cast<std::size_t>(mark)]; }
    std::uint16_t of(Tag mark) const { return marks[static_cast<std::size_t>(mark)]; }
    bool has(Tag mark, std::uint64_t index) const { return (of(mark) & bit_of(index)) != 0; }
    // Takes the node below over, with its marks.
    void put(Node* node) {
        node->parent = this;
        places[place_of(node->first)].node = node;
        for (std::size_t mark = 0; mark < mark_count; ++mark)
            if (node->marks[mark]) marks[mark] |= bit_of(node->first);
        of(Tag::present) |= bit_of(node->first);
    }

    std::uint64_t first = 0;  // the index of its first place
    Node* parent = nullptr;
    unsigned shift;                                 // bits of an index below a place: 0 in a leaf
    std::array<std::uint16_t, mark_count> marks{};  // in a node above the leaves, present: there is one below
    union Place {
        Node* node;
        Folio* folio;
    };
    std::array<Place, fanout> places{};
};

FolioTree::~FolioTree() { delete root_; }

// The leaf that has a place for it, if there is one.
FolioTree::Node* FolioTree::leaf_of(std::uint64_t index) const {
    if (last_leaf_ && last_leaf_->covers(index)) return last_leaf_;
    Node* node = root_;
    if (!node || !node->covers(index)) return nullptr;
    while (node->shift != 0) {
        if (!node->has(Tag::present, index)) return nullptr;
        node = node->places[node->place_of(index)].node;
    }
    return last_leaf_ = node;
}

Folio* FolioTree::find(std::uint64_t index) const {
    const Node* leaf = leaf_of(index);
    return leaf && leaf->has(Tag::present, index) ? leaf->places[leaf->place_of(index)].folio : nullptr;
}

// Where memory runs out in the middle, the tree is higher than it has to be, or as it was.
FolioTree::Node& FolioTree::make_leaf(std::uint64_t index) {
    auto below = std::make_unique<Node>(index, 0);
    Node* leaf = below.get();
    while (root_ && !root_->covers(index)) {
        auto above = std::make_unique<Node>(root_->first, root_->shift + node_bits);
        above->put(root_);
        root_ = above.release();
    }
    Node* join = root_;
    while (join && join->has(Tag::present, index)) join = join->places[join->place_of(index)].node;
    while (join && below->shift + node_bits < join->shift) {
        auto above = std::make_unique<Node>(index, below->shift + node_bits);
        above->put(below.release());
        below = std::move(above);
    }
    if (join) join->put(below.release());
    else root_ = below.release();
    return *leaf;
}

Folio& FolioTree::add(std::unique_ptr<Folio> folio) {
    const std::uint64_t index = folio->index;
    Node* leaf = leaf_of(index);
    if (!leaf) leaf = last_leaf_ = &make_leaf(index);
    Folio& added = *folio;
    leaf->places[leaf->place_of(index)].folio = folio.release();
    leaf->of(Tag::present) |= leaf->bit_of(index);
    ++counts_[static_cast<std::size_t>(Tag::present)];
    return added;
}

std::unique_ptr<Folio> FolioTree::remove(std::uint64_t index) {
    Node* node = leaf_of(index);
    if (!node || !node->has(Tag::present, index)) return nullptr;
    clear(Tag::dirty, index);
    clear(Tag::writeback, index);
    std::unique_ptr<Folio> folio(node->places[node->place_of(index)].folio);
    --counts_[static_cast<std::size_t>(Tag::present)];
    // With it goes what has nothing below any more.
    for (;;) {
        node->of(Tag::present) &= static_cast<std::uint16_t>(~node->bit_of(index));
        if (node->of(Tag::present)) return folio;
        if (node == last_leaf_) last_leaf_ = nullptr;
        Node* above = node->parent;
        delete node;
        if (!above) {
            root_ = nullptr;
            return folio;
        }
        node = above;
    }
}

void FolioTree::set(Tag mark, std::uint64_t index) {
    Node* node = leaf_of(index);
    if (node->has(mark, index)) return;
    ++counts_[static_cast<std::size_t>(mark)];
    for (bool known = false; node && !known; node = node->parent) {
        known = node->of(mark) != 0;
        node->of(mark) |= node->bit_of(index);
    }
}

void FolioTree::clear(Tag mark, std::uint64_t index) {
    Node* node = leaf_of(index);
    if (!node->has(mark, index)) return;
    --counts_[static_cast<std::size_t>(mark)];
    for (bool others = false; node && !others; node = node->parent) {
        node->of(mark) &= static_cast<std::uint16_t>(~node->bit_of(index));
        others = node->of(mark) != 0;
    }
}

std::optional<std::uint64_t> FolioTree::next_below(const Node& node, Tag mark, std::uint64_t from) {
    const std::uint16_t before = static_cast<std::uint16_t>(node.bit_of(from) - 1u);
    for (auto bits = static_cast<std::uint16_t>(node.of(mark) & ~before); bits;
         bits &= static_cast<std::uint16_t>(bits - 1)) {
        const auto place = static_cast<unsigned>(std::countr_zero(bits));
        const std::uint64_t at = node.first + (std::uint64_t{place} << node.shift);
        if (node.shift == 0) return at;
        if (const auto found = next_below(*node.places[place].node, mark, std::max(from, at))) return found;
    }
    return std::nullopt;
}

std::optional<std::uint64_t> FolioTree::next(Tag mark, std::uint64_t from) const {
    if (!root_ || (!root_->covers(from) && from > root_->first)) return std::nullopt;
    return next_below(*root_, mark, std::max(from, root_->first));
}

}  // namespace uext4
