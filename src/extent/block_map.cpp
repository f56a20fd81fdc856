// One interface over both formats.
#include "extent/block_map.h"

#include "extent/extent_node.h"
#include "extent/extent_tree.h"
#include "extent/indirect.h"

#include <algorithm>

namespace uext4 {

void initialise_extent_root(Bytes root) {
    std::fill(root.begin(), root.end(), std::byte{0});
    fill_node(root, 0, {});
}

Result<MappedRun> BlockMap::lookup(LogicalBlock from, std::uint64_t max) {
    if (from >= max_block()) return MappedRun{from, max, BlockNr(), false};
    if (owner_.uses_extents()) return reported(ExtentTree(context_, owner_).lookup(from, max));
    return reported(IndirectMap(context_, owner_).lookup(from, max));
}

Result<void> BlockMap::insert(Handle& handle, const MappedRun& run, DelallocReservation* paid,
                              std::uint64_t blocks_to_count) {
    if (owner_.uses_extents()) return reported(ExtentTree(context_, owner_).insert(handle, run, paid, blocks_to_count));
    return reported(IndirectMap(context_, owner_).insert(handle, run, paid, blocks_to_count));
}

Result<void> BlockMap::set_unwritten(Handle& handle, LogicalBlock from, std::uint64_t count, bool unwritten,
                                     DelallocReservation* paid) {
    if (owner_.uses_extents())
        return reported(ExtentTree(context_, owner_).set_unwritten(handle, from, count, unwritten, paid));
    return fail(EOPNOTSUPP, "inode {}: indirect blocks know no unwritten state", owner_.number());
}

Result<MappedRun> BlockMap::find_extent(LogicalBlock at) {
    if (owner_.uses_extents()) return reported(ExtentTree(context_, owner_).find_extent(at));
    return reported(IndirectMap(context_, owner_).lookup(at, 1));
}

Result<BlockNr> BlockMap::replace_block(Handle& handle, LogicalBlock at, BlockNr with, DelallocReservation* paid) {
    if (owner_.uses_extents()) return reported(ExtentTree(context_, owner_).replace_block(handle, at, with, paid));
    return reported(IndirectMap(context_, owner_).replace_block(handle, at, with));
}

Result<std::vector<BufferRef>> BlockMap::pin_for_replace(LogicalBlock at) {
    if (owner_.uses_extents()) return reported(ExtentTree(context_, owner_).pin_path(at));
    return reported(IndirectMap(context_, owner_).pin_path(at));
}

Result<LogicalBlock> BlockMap::remove(Handle& handle, LogicalBlock from, LogicalBlock to,
                                      const IsClusterShared& keeps_cluster) {
    if (owner_.uses_extents()) return reported(ExtentTree(context_, owner_).remove(handle, from, to, keeps_cluster));
    return reported(IndirectMap(context_, owner_).remove(handle, from, to));
}

Result<bool> BlockMap::shift(Handle& handle, LogicalBlock from, std::int64_t delta, std::uint64_t& progress) {
    if (owner_.uses_extents()) return reported(ExtentTree(context_, owner_).shift(handle, from, delta, progress));
    return fail(EOPNOTSUPP, "inode {}: mappings by indirect blocks do not move", owner_.number());
}

Result<bool> BlockMap::split_for_shift(Handle& handle, LogicalBlock from, std::int64_t delta) {
    if (owner_.uses_extents()) return reported(ExtentTree(context_, owner_).split_for_shift(handle, from, delta));
    return fail(EOPNOTSUPP, "inode {}: mappings by indirect blocks do not move", owner_.number());
}

Result<void> BlockMap::for_each(LogicalBlock from, const std::function<bool(const MappedRun&)>& visit) {
    if (owner_.uses_extents()) return reported(ExtentTree(context_, owner_).for_each(from, visit));
    return reported(IndirectMap(context_, owner_).for_each(from, visit));
}

Result<std::vector<MappedRun>> BlockMap::mapped_runs(LogicalBlock from, std::uint64_t end) {
    std::vector<MappedRun> runs;
    TRY(for_each(from, [&](const MappedRun& found) {
        if (found.logical.value >= end) return false;
        MappedRun run = found;
        if (run.logical < from) {
            const std::uint64_t before = from - run.logical;
            run.logical = from;
            run.physical += before;
            run.count -= before;
        }
        run.count = std::min(run.count, end - run.logical.value);
        runs.push_back(run);
        return true;
    }));
    return runs;
}

Result<void> BlockMap::for_each_tree_block(const std::function<bool(BlockNr)>& visit) {
    if (owner_.uses_extents()) return reported(ExtentTree(context_, owner_).for_each_tree_block(visit));
    return reported(IndirectMap(context_, owner_).for_each_tree_block(visit));
}

unsigned BlockMap::credits() const {
    MapEnvironment context = context_;
    if (owner_.uses_extents()) return ExtentTree(context, owner_).credits();
    return IndirectMap(context, owner_).credits();
}

std::uint64_t BlockMap::tree_blocks_for(std::uint64_t runs, std::uint32_t block_size, bool extents) {
    if (runs == 0) return 0;
    if (!extents) {
        // Runs far apart: an indirect block each, and double ones as far as a triple one reaches.
        const std::uint64_t pointers = block_size / 4;
        return runs + std::min(runs, pointers) + 1;
    }
    // Each run may meet a full leaf. A split leaf or index node takes half a node of entries before it splits again.
    const std::uint64_t half = format::extent_capacity(block_size) / 2;
    return runs + divide_up(runs, half) + 1;
}

LogicalBlock BlockMap::max_block() const {
    if (owner_.uses_extents()) return LogicalBlock(extent_limit);
    MapEnvironment context = context_;
    return LogicalBlock(IndirectMap(context, owner_).limit());
}

}  // namespace uext4
