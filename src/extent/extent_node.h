// One node of an extent tree, as bytes: a header and sorted entries of twelve bytes, whose first four are the key in
// leaves and in index nodes alike.
#pragma once

#include "base/bytes.h"
#include "format/extent.h"

#include <bit>
#include <cstring>
#include <span>
#include <vector>

namespace uext4 {

struct NodeEntry {
    Le32 key;
    std::byte rest[8];
};
static_assert(sizeof(NodeEntry) == 12);

// First logical block past what an extent tree can map.
inline constexpr std::uint64_t extent_limit = 0xFFFFFFFF;

inline format::ExtentHeader& node_header(Bytes node) { return view_as<format::ExtentHeader>(node); }
inline unsigned node_entries(Bytes node) { return node_header(node).entries; }
inline NodeEntry& node_entry(Bytes node, unsigned i) {
    return view_as<NodeEntry>(node, sizeof(format::ExtentHeader) + sizeof(NodeEntry) * i);
}
inline format::ExtentLeaf node_extent(Bytes node, unsigned i) {
    return view_as<format::ExtentLeaf>(node, sizeof(format::ExtentHeader) + sizeof(NodeEntry) * i);
}
inline format::ExtentIndex node_index(Bytes node, unsigned i) {
    return view_as<format::ExtentIndex>(node, sizeof(format::ExtentHeader) + sizeof(NodeEntry) * i);
}
inline std::uint64_t extent_end(const format::ExtentLeaf& e) { return std::uint64_t{e.block} + e.count(); }

// Makes `node` (a whole block, or the root) hold exactly `entries`; the caller has checked that they fit.
inline void fill_node(Bytes node, unsigned depth, std::span<const NodeEntry> entries) {
    auto& header = node_header(node);
    header.magic = format::extent_magic;
    header.depth = static_cast<std::uint16_t>(depth);
    header.max = format::extent_capacity(node.size());
    header.entries = static_cast<std::uint16_t>(entries.size());
    if (!entries.empty()) std::memcpy(&node_entry(node, 0), entries.data(), entries.size_bytes());
}

inline NodeEntry index_entry(std::uint32_t key, BlockNr child) {
    format::ExtentIndex index{};
    index.block = key;
    index.set_leaf(child);
    return std::bit_cast<NodeEntry>(index);
}

// Extents in ascending order, merged where they adjoin and cut where they are longer than an entry can say.
class ExtentListBuilder {
public:
    void add(std::uint64_t logical, std::uint64_t count, BlockNr physical, bool unwritten) {
        const std::uint64_t longest = unwritten ? format::max_unwritten_length : format::max_written_length;
        if (!entries_.empty() && count != 0) {
            const auto last = std::bit_cast<format::ExtentLeaf>(entries_.back());
            if (last.unwritten() == unwritten && extent_end(last) == logical &&
                last.start() + last.count() == physical && last.count() + count <= longest) {
                put(entries_.back(), last.block, last.count() + count, last.start(), unwritten);
                return;
            }
        }
        while (count != 0) {
            const std::uint64_t n = count < longest ? count : longest;
            put(entries_.emplace_back(), logical, n, physical, unwritten);
            logical += n;
            physical += n;
            count -= n;
        }
    }
    void add(const format::ExtentLeaf& e) { add(e.block, e.count(), e.start(), e.unwritten()); }
    // The part of `e` within [from, to).
    void add_part(const format::ExtentLeaf& e, std::uint64_t from, std::uint64_t to) {
        if (from < to) add(from, to - from, e.start() + (from - e.block), e.unwritten());
    }
    std::span<const NodeEntry> entries() const { return entries_; }

private:
    static void put(NodeEntry& entry, std::uint64_t logical, std::uint64_t count, BlockNr physical, bool unwritten) {
        format::ExtentLeaf leaf;
        leaf.set(static_cast<std::uint32_t>(logical), static_cast<std::uint32_t>(count), physical, unwritten);
        entry = std::bit_cast<NodeEntry>(leaf);
    }
    std::vector<NodeEntry> entries_;
};

}  // namespace uext4
