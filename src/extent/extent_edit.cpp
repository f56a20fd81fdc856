// Changing the tree. One operation does all: replace some entries of a leaf; what follows for the nodes above it
// (splits, a deeper root, emptied nodes, changed keys) is planned first, paid second and done last.
#include "extent/extent_tree.h"
#include "format/inode.h"

#include <algorithm>

namespace uext4 {

// What happens at one level, from the leaf upwards until nothing changes further up.
struct ExtentTree::Plan {
    struct Level {
        unsigned i = 0, j = 0;    // entries replaced
        std::uint64_t total = 0;  // entries afterwards
        std::uint64_t parts = 1;  // nodes they need; 0: the node is freed
        bool append = false;      // the new entries are the last ones
    };
    std::array<Level, format::max_extent_depth + 1> levels;
    unsigned top = 0;  // the highest level that changes
    std::uint64_t new_blocks = 0;
};

Result<ExtentTree::Plan> ExtentTree::plan(ExtentPath& path, unsigned i, unsigned j, std::span<const NodeEntry> fresh) {
    Plan plan;
    std::uint64_t added = fresh.size();
    std::uint32_t key = fresh.empty() ? 0 : fresh[0].key.get();  // the first of what is added
    for (unsigned level = path.depth;; --level) {
        PathNode& node = path.nodes[level];
        const unsigned entries = node_entries(node.bytes);
        const std::uint64_t capacity = format::extent_capacity(node.bytes.size());
        Plan::Level& l = plan.levels[level];
        l = {i, j, entries - (j - i) + added, 1, j == entries && added != 0};
        plan.top = level;
        if (level == 0) {
            if (l.total <= capacity) return plan;
            l.parts = divide_up(l.total, format::extent_capacity(geometry().block_size));
            plan.new_blocks += l.parts;
            if (path.depth == format::max_extent_depth || l.parts > capacity)
                return fail(EFBIG, "inode {}: the extent tree cannot grow beyond depth {}", owner_.number(),
                            format::max_extent_depth);
            return plan;
        }
        l.parts = divide_up(l.total, capacity);
        if (l.parts > 1) plan.new_blocks += l.parts - 1;
        if (l.parts != 0) {
            if (i != 0) key = node_entry(node.bytes, 0).key;
            else if (added == 0) key = node_entry(node.bytes, j).key;
            if (l.parts == 1 && key == node.first) return plan;
        }
        added = l.parts;
        i = static_cast<unsigned>(path.nodes[level - 1].pos);
        j = i + 1;
    }
}

void ExtentTree::set_checksum(Bytes block) { format::set_extent_checksum(geometry(), seed(), block); }

Result<void> ExtentTree::splice_entries(Handle& handle, ExtentPath& path, unsigned i, unsigned j,
                                        std::span<const NodeEntry> fresh, DelallocReservation* paid, BlockNr goal) {
    const Plan steps = TRY(plan(path, i, j, fresh));
    TRY(owner_.get_write_access(handle));
    std::vector<std::vector<BufferRef>> held;
    for (unsigned level = path.depth; level + 1 > std::max(steps.top, 1u); --level)
        if (steps.levels[level].parts == 0)
            held.push_back(TRY(blocks_.pin_for_free(path.nodes[level].buffer->block(), 1)));
    std::vector<BufferRef> made =
        TRY(blocks_.allocate_all(handle, steps.new_blocks, goal, paid, BlockKind::extent_node));
    auto undo = [&](Error error) {
        for (const BufferRef& b : made) (void)blocks_.free(handle, b->block());
        return fail(std::move(error));
    };
    for (unsigned level = path.depth; level + 1 > std::max(steps.top, 1u); --level) {
        if (steps.levels[level].parts == 0) continue;
        auto access = handle.get_write_access(path.nodes[level].buffer);
        if (!access) return undo(std::move(access.error()));
    }

    std::vector<NodeEntry> content, up(fresh.begin(), fresh.end());
    std::vector<BlockNr> emptied;
    std::size_t next_made = 0;
    for (unsigned level = path.depth;; --level) {
        PathNode& node = path.nodes[level];
        const Plan::Level& l = steps.levels[level];
        const unsigned depth = path.depth - level;
        const NodeEntry* old = &node_entry(node.bytes, 0);
        content.assign(old, old + l.i);
        content.insert(content.end(), up.begin(), up.end());
        content.insert(content.end(), old + l.j, old + node_entries(node.bytes));
        up.clear();
        const bool root = level == 0;
        if (root && l.parts == 1 && l.total <= format::extent_capacity(node.bytes.size())) {
            fill_node(node.bytes, content.empty() ? 0 : depth, content);
            break;
        }
        // After a split at the end the left node stays full: files mostly grow there.
        const std::size_t capacity = format::extent_capacity(geometry().block_size);
        std::size_t taken = 0;
        for (std::uint64_t part = 0; part < l.parts; ++part) {
            const std::size_t left = content.size() - taken, parts_left = l.parts - part;
            const std::size_t n = l.append ? std::min(left, capacity) : divide_up(left, parts_left);
            Buffer& buffer = part == 0 && !root ? *node.buffer : *made[next_made++];
            fill_node(buffer.data(), depth, std::span(content).subspan(taken, n));
            set_checksum(buffer.data());
            up.push_back(index_entry(content[taken].key, buffer.block()));
            taken += n;
        }
        if (l.parts == 0) emptied.push_back(node.buffer->block());
        if (root) {
            fill_node(node.bytes, depth + 1, up);
            break;
        }
        if (level == steps.top) break;
    }
    if (steps.top == 0) TRY(owner_.store_i_block(handle));
    for (const BlockNr block : emptied) TRY(blocks_.free(handle, block));
    return {};
}

Result<void> ExtentTree::replace_extents(Handle& handle, ExtentPath& path, int first, int last, ExtentListBuilder& list,
                                         DelallocReservation* paid) {
    const auto entries = list.entries();
    const BlockNr goal = !entries.empty() ? std::bit_cast<format::ExtentLeaf>(entries[0]).start()
                                          : context_.allocator.goal_for(owner_.number());
    return splice_entries(handle, path, static_cast<unsigned>(first), static_cast<unsigned>(last), entries, paid, goal);
}

// A root with one child whose entries fit into it takes their place: trees that shrank do not stay deep.
Result<void> ExtentTree::collapse_root(Handle& handle) {
    while (true) {
        PathNode root = TRY(load_root());
        const unsigned depth = node_header(root.bytes).depth;
        if (depth == 0 || node_entries(root.bytes) != 1) return {};
        PathNode child = TRY(load_child(root, 0, depth - 1));
        const unsigned n = node_entries(child.bytes);
        if (n > format::extent_capacity(root.bytes.size())) return {};
        if (!handle.extend(4)) return {};
        TRY(owner_.get_write_access(handle));
        const std::vector<BufferRef> held = TRY(blocks_.pin_for_free(child.buffer->block(), 1));
        const NodeEntry* entries = &node_entry(child.bytes, 0);
        fill_node(root.bytes, n ? depth - 1 : 0, std::vector<NodeEntry>(entries, entries + n));
        TRY(owner_.store_i_block(handle));
        TRY(blocks_.free(handle, child.buffer->block()));
    }
}

}  // namespace uext4
