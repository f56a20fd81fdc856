// The extent tree of one inode. All methods: the inode's map_lock is held. The contracts are those of BlockMap.
//
// Invariants, checked at every node that is read and kept by every change
//   E1  Entries ascend without overlap; an index entry's key is the first key of the node below it.
//   E2  Depth falls by one from parent to child, so no path is longer than the root says.
//   E3  Whatever can fail for space or for credits happens before the first byte of the tree changes.
#pragma once

#include "extent/block_map.h"
#include "extent/extent_node.h"
#include "extent/tree_blocks.h"

#include <array>
#include <cstdint>
#include <span>

namespace uext4 {

struct PathNode {
    BufferRef buffer;  // none: the root in the inode
    Bytes bytes;
    std::uint64_t first = 0, end = 0;  // the logical blocks that may lie below it
    int pos = -1;                      // last entry that starts at or before the target; -1: none
};

// From the root to a leaf.
struct ExtentPath {
    std::array<PathNode, format::max_extent_depth + 1> nodes;
    unsigned depth = 0;
    PathNode& leaf() { return nodes[depth]; }
    format::ExtentLeaf extent(int i) { return node_extent(leaf().bytes, static_cast<unsigned>(i)); }
    int count() { return static_cast<int>(node_entries(leaf().bytes)); }
};

class ExtentTree {
public:
    ExtentTree(MapEnvironment& context, ExtentOwner& owner)
        : context_(context), owner_(owner), blocks_{context, owner} {}

    Result<MappedRun> lookup(LogicalBlock from, std::uint64_t max);
    Result<void> insert(Handle& handle, const MappedRun& run, DelallocReservation* paid, std::uint64_t blocks_to_count);
    Result<void> set_unwritten(Handle& handle, LogicalBlock from, std::uint64_t count, bool unwritten,
                               DelallocReservation* paid);
    Result<MappedRun> find_extent(LogicalBlock at);
    Result<BlockNr> replace_block(Handle& handle, LogicalBlock at, BlockNr with, DelallocReservation* paid);
    Result<std::vector<BufferRef>> pin_path(LogicalBlock at);
    Result<LogicalBlock> remove(Handle& handle, LogicalBlock from, LogicalBlock to,
                                const BlockMap::IsClusterShared& keeps_cluster);
    Result<bool> shift(Handle& handle, LogicalBlock from, std::int64_t delta, std::uint64_t& progress);
    Result<bool> split_for_shift(Handle& handle, LogicalBlock from, std::int64_t delta);
    Result<void> for_each(LogicalBlock from, const std::function<bool(const MappedRun&)>& visit);
    Result<void> for_each_tree_block(const std::function<bool(BlockNr)>& visit);
    unsigned credits();

private:
    const format::Geometry& geometry() const { return context_.allocator.geometry(); }
    std::uint64_t ratio() const { return geometry().cluster_ratio; }
    std::uint32_t seed() const;
    unsigned root_depth();

    // ---- reading (extent_path.cpp)
    Result<ExtentPath> descend(LogicalBlock target);
    Result<PathNode> load_root();
    Result<PathNode> load_child(PathNode& parent, unsigned i, unsigned depth);
    Result<void> check_data_blocks(Bytes node, BlockNr where);
    Result<bool> visit_nodes(PathNode& node, unsigned depth, const std::function<bool(BlockNr)>& visit);

    // ---- changing (extent_edit.cpp)
    // Replaces entries [i, j) of the path's leaf by `fresh`: splits, grows, frees nodes and corrects keys as needed.
    // The path is stale afterwards. On error nothing has changed.
    Result<void> splice_entries(Handle& handle, ExtentPath& path, unsigned i, unsigned j,
                                std::span<const NodeEntry> fresh, DelallocReservation* paid, BlockNr goal);
    struct Plan;
    Result<Plan> plan(ExtentPath& path, unsigned i, unsigned j, std::span<const NodeEntry> fresh);
    void set_checksum(Bytes block);
    // Replaces the extent at `at` by `list`, merged with its neighbours in the leaf.
    Result<void> replace_extents(Handle& handle, ExtentPath& path, int first, int last, ExtentListBuilder& list,
                                 DelallocReservation* paid);
    Result<void> collapse_root(Handle& handle);

    // ---- removing, shifting
    // Of a piece's clusters: whether its first and its last hold nothing else, and which are kept for others.
    struct ClusterEdges {
        bool first, last;
        const BlockMap::IsClusterShared& keeps;
    };
    Result<bool> is_cluster_unshared(std::uint64_t at, std::uint64_t from, std::uint64_t to);
    Result<void> free_run(Handle& handle, std::uint64_t from, std::uint64_t to, BlockNr physical,
                          const ClusterEdges& may_free);
    Result<bool> split_at(Handle& handle, std::uint64_t at);
    Result<bool> shift_down(Handle& handle, std::uint64_t from, std::uint64_t by, std::uint64_t& progress);
    Result<bool> shift_up(Handle& handle, std::uint64_t from, std::uint64_t by, std::uint64_t& progress);
    Result<void> move_entries(Handle& handle, ExtentPath& path, unsigned i, unsigned j, std::int64_t delta);

    MapEnvironment& context_;
    ExtentOwner& owner_;
    TreeBlocks blocks_;
};

}  // namespace uext4
