// Reading the tree: every node is validated before an entry of it is used.
#include "extent/extent_tree.h"
#include "format/inode.h"

#include <algorithm>

namespace uext4 {

using format::ExtentLeaf;

std::uint32_t ExtentTree::seed() const { return format::inode_seed(geometry(), owner_.number(), owner_.generation()); }

unsigned ExtentTree::root_depth() {
    const unsigned depth = node_header(owner_.i_block()).depth;
    return depth > format::max_extent_depth ? format::max_extent_depth : depth;
}

// What the format layer cannot see: where the file system's own blocks lie, and how clusters are aligned.
Result<void> ExtentTree::check_data_blocks(Bytes node, BlockNr where) {
    for (unsigned i = 0; i < node_entries(node); ++i) {
        const ExtentLeaf e = node_extent(node, i);
        const BlockNr last = e.start() + (e.count() - 1);
        if (context_.allocator.has_invalid_block(owner_.number(), e.start(), e.count()))
            return fail(EUCLEAN, "inode {}: extent node in block {}: entry {}: blocks {}..{} are the file system's own",
                        owner_.number(), where, i, e.start(), last);
        if ((e.block ^ e.start().value) % ratio() != 0)
            return fail(EUCLEAN,
                        "inode {}: extent node in block {}: entry {}: ee_block {} and ee_start {} do not fit clusters",
                        owner_.number(), where, i, e.block.get(), e.start());
    }
    return {};
}

Result<PathNode> ExtentTree::load_root() {
    PathNode node;
    node.bytes = owner_.i_block();
    node.end = extent_limit;
    if (context_.validated_root && std::ranges::equal(*context_.validated_root, node.bytes)) return node;
    const unsigned depth = node_header(node.bytes).depth;
    // A name is made up only for those that are wrong. (Never destroyed: threads write back to the end of the program.)
    static const std::string& nameless = *new std::string;
    if (!format::validate_extent_node(geometry(), node.bytes, depth, 0, extent_limit, nameless))
        TRY(format::validate_extent_node(geometry(), node.bytes, depth, 0, extent_limit,
                                         fmt::format("inode {}: extent root", owner_.number())));
    if (depth == 0) TRY(check_data_blocks(node.bytes, BlockNr()));
    std::ranges::copy(node.bytes, context_.validated_root.emplace().begin());
    return node;
}

Result<PathNode> ExtentTree::load_child(PathNode& parent, unsigned i, unsigned depth) {
    const format::ExtentIndex index = node_index(parent.bytes, i);
    const BlockNr block = index.leaf();
    PathNode node;
    node.first = index.block;
    node.end = i + 1 < node_entries(parent.bytes) ? node_index(parent.bytes, i + 1).block.get() : parent.end;
    node.buffer = context_.buffers.find(block);
    if (!node.buffer || node.buffer->kind() != BlockKind::extent_node) {
        const std::string where = fmt::format("inode {}: extent node in block {}", owner_.number(), block);
        if (context_.allocator.has_invalid_block(owner_.number(), block))
            return fail(EUCLEAN, "{}: the block is metadata of the file system", where);
        const std::string what = fmt::format("extent node of inode {}", owner_.number());
        node.buffer = TRY(context_.buffers.read(block, what.c_str()));
        node.bytes = node.buffer->data();
        TRY(format::validate_extent_node(geometry(), node.bytes, depth, node.first, node.end, where));
        if (!format::extent_checksum_ok(geometry(), seed(), node.bytes))
            return fail(EUCLEAN, "{}: et_checksum is wrong", where);
        if (depth == 0) TRY(check_data_blocks(node.bytes, block));
        node.buffer->set_kind(BlockKind::extent_node);
    }
    node.bytes = node.buffer->data();
    // A node that was validated once may still be reached by a second, wrong way.
    const unsigned entries = node_entries(node.bytes);
    if (node_header(node.bytes).depth != depth)
        return fail(EUCLEAN, "inode {}: extent node in block {}: eh_depth is {}, expected {}", owner_.number(), block,
                    node_header(node.bytes).depth.get(), depth);
    if (entries == 0) return node;
    if (node_entry(node.bytes, 0).key != index.block)
        return fail(EUCLEAN, "inode {}: extent node in block {}: first key is {}, its parent says {}", owner_.number(),
                    block, node_entry(node.bytes, 0).key.get(), index.block.get());
    const std::uint64_t end = depth ? std::uint64_t{node_entry(node.bytes, entries - 1).key} + 1
                                    : extent_end(node_extent(node.bytes, entries - 1));
    if (end > node.end)
        return fail(EUCLEAN, "inode {}: extent node in block {}: ends at {}, its parent says {}", owner_.number(),
                    block, end, node.end);
    return node;
}

namespace {

// Last entry whose key is at most `target`, or -1.
int last_at_or_before(Bytes node, std::uint64_t target) {
    int low = 0, high = static_cast<int>(node_entries(node));
    while (low < high) {
        const int middle = (low + high) / 2;
        if (node_entry(node, static_cast<unsigned>(middle)).key <= target) low = middle + 1;
        else high = middle;
    }
    return low - 1;
}

}  // namespace

Result<ExtentPath> ExtentTree::descend(LogicalBlock target) {
    ExtentPath path;
    path.nodes[0] = TRY(load_root());
    path.depth = node_header(path.nodes[0].bytes).depth;
    for (unsigned level = 0;; ++level) {
        PathNode& node = path.nodes[level];
        node.pos = last_at_or_before(node.bytes, target.value);
        if (level == path.depth) return path;
        if (node.pos < 0) node.pos = 0;
        path.nodes[level + 1] = TRY(load_child(node, static_cast<unsigned>(node.pos), path.depth - level - 1));
    }
}

Result<MappedRun> ExtentTree::lookup(LogicalBlock from, std::uint64_t max) {
    ExtentPath path = TRY(descend(from));
    const int pos = path.leaf().pos;
    if (pos >= 0) {
        const ExtentLeaf e = path.extent(pos);
        if (extent_end(e) > from.value) {
            const std::uint64_t skip = from.value - e.block;
            return MappedRun{from, std::min<std::uint64_t>(max, e.count() - skip), e.start() + skip, e.unwritten()};
        }
    }
    // A hole: up to the next extent, which may be in a later leaf.
    while (true) {
        const std::uint64_t next =
            path.leaf().pos + 1 < path.count() ? path.extent(path.leaf().pos + 1).block.get() : path.leaf().end;
        const bool at_key = path.leaf().pos + 1 < path.count();
        if (at_key || next >= extent_limit || next - from.value >= max)
            return MappedRun{from, next >= extent_limit && !at_key ? max : std::min(max, next - from.value), BlockNr(),
                             false};
        path = TRY(descend(LogicalBlock(next)));
        if (path.leaf().pos >= 0 && path.extent(path.leaf().pos).block == next)
            return MappedRun{from, next - from.value, BlockNr(), false};
    }
}

Result<void> ExtentTree::for_each(LogicalBlock from, const std::function<bool(const MappedRun&)>& visit) {
    std::uint64_t at = from.value;
    while (at < extent_limit) {
        ExtentPath path = TRY(descend(LogicalBlock(at)));
        for (int i = std::max(path.leaf().pos, 0); i < path.count(); ++i) {
            const ExtentLeaf e = path.extent(i);
            if (extent_end(e) <= at) continue;
            const std::uint64_t skip = at > e.block ? at - e.block : 0;
            if (!visit({LogicalBlock(e.block + skip), e.count() - skip, e.start() + skip, e.unwritten()})) return {};
        }
        at = path.leaf().end;  // above `at`: the target lies within its leaf's range
    }
    return {};
}

Result<bool> ExtentTree::visit_nodes(PathNode& node, unsigned depth, const std::function<bool(BlockNr)>& visit) {
    for (unsigned i = 0; depth > 0 && i < node_entries(node.bytes); ++i) {
        PathNode child = TRY(load_child(node, i, depth - 1));
        if (!visit(child.buffer->block())) return false;
        if (!TRY(visit_nodes(child, depth - 1, visit))) return false;
    }
    return true;
}

Result<void> ExtentTree::for_each_tree_block(const std::function<bool(BlockNr)>& visit) {
    PathNode root = TRY(load_root());
    (void)TRY(visit_nodes(root, node_header(root.bytes).depth, visit));
    return {};
}

}  // namespace uext4
