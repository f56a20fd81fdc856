// The folios of one file by their index: a tree of nodes with sixteen places each, as high as the largest index wants.
// A bit in each node says below which of its places there are marked folios, so that the next one is found without a
// look at the others; marking asks for no memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

namespace uext4 {

struct Folio;

class FolioTree {
public:
    enum class Tag : std::uint8_t { present, dirty, writeback };

    FolioTree() = default;
    ~FolioTree();  // empty
    FolioTree(const FolioTree&) = delete;

    Folio* find(std::uint64_t index) const;
    // There is none at its index. Where memory runs out (std::bad_alloc) no folio has come.
    Folio& add(std::unique_ptr<Folio> folio);
    std::unique_ptr<Folio> remove(std::uint64_t index);  // with its marks; empty where there is none
    // Of the folio at `index`, which is there.
    void set(Tag mark, std::uint64_t index);
    void clear(Tag mark, std::uint64_t index);
    // The index of the first one at or after `from`.
    std::optional<std::uint64_t> next(Tag mark, std::uint64_t from) const;
    std::uint64_t count(Tag mark) const { return counts_[static_cast<std::size_t>(mark)]; }

private:
    static constexpr unsigned node_bits = 4, fanout = 1u << node_bits, mark_count = 3;
    struct Node;
    Node* leaf_of(std::uint64_t index) const;
    Node& make_leaf(std::uint64_t index);
    static std::optional<std::uint64_t> next_below(const Node& node, Tag mark, std::uint64_t from);

    Node* root_ = nullptr;
    mutable Node* last_leaf_ = nullptr;  // who goes through a file finds the next folio in it
    std::array<std::uint64_t, mark_count> counts_{};
};

}  // namespace uext4
