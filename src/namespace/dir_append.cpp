// New blocks of a directory or a symlink.
#include "inode/inline_data.h"
#include "namespace/dir_blocks.h"

namespace uext4 {

namespace {

// Where the next block goes and what it costs.
struct NewBlock {
    BlockNr block;
    std::uint64_t fresh_blocks = 0;  // of a new cluster; 0 inside one that the file has
};

// map_lock held. `at` is a hole.
Result<NewBlock> find_block(Handle& handle, Inode& inode, LogicalBlock at, bool privileged) {
    FsContext& fs = inode.fs();
    const std::uint64_t ratio = fs.geometry.cluster_ratio;
    BlockNr goal = fs.allocator.goal_for(inode.number());
    if (at.value != 0) {
        const MappedRun before = TRY(inode.map().lookup(at - 1, 1));
        if (!before.hole()) {
            if (at.value % ratio != 0) return NewBlock{before.physical + 1, 0};
            goal = before.physical + 1;
        }
    }
    const BlockNr cluster = TRY(fs.allocator.allocate_metadata(handle, goal, nullptr, privileged));
    return NewBlock{cluster + at.value % ratio, ratio};
}

// map_lock held.
Result<DirBuffer> append_at(Handle& handle, Inode& inode, LogicalBlock at, bool privileged, bool from_inline) {
    FsContext& fs = inode.fs();
    if (at >= inode.map().max_block())
        return fail(ENOSPC, "inode {}: block {} is beyond what the format can map", inode.number(), at);
    const NewBlock fresh = TRY(find_block(handle, inode, at, privileged));
    const auto give_back = [&](Error error) {
        if (fresh.fresh_blocks)
            (void)fs.allocator.free(handle, fresh.block - at.value % fs.geometry.cluster_ratio, fresh.fresh_blocks);
        return std::unexpected(std::move(error));
    };
    if (from_inline) {
        if (auto cleared = clear_inline_data(handle, inode); !cleared) return give_back(std::move(cleared.error()));
    }
    auto buffer = fs.buffers.get(fresh.block, "directory block");
    if (!buffer) return give_back(std::move(buffer.error()));
    if (auto access = handle.get_create_access(*buffer); !access) return give_back(std::move(access.error()));
    const MappedRun run{at, 1, fresh.block, false};
    if (auto named = inode.map().insert(handle, run, nullptr, fresh.fresh_blocks); !named)
        return give_back(std::move(named.error()));
    inode.extent_status().invalidate();
    const std::uint64_t size = (at.value + 1) * fs.block_size();
    inode.set_size(size);
    inode.set_disk_size(size);
    TRY(inode.store(handle));
    return DirBuffer{std::move(*buffer), at};
}

}  // namespace

Result<DirBuffer> append_block(Handle& handle, Inode& inode, bool privileged) {
    MutexLock map(inode.map_lock);
    const LogicalBlock at(divide_up(inode.size(), inode.fs().block_size()));
    return append_at(handle, inode, at, privileged, false);
}

Result<DirBuffer> append_first_block(Handle& handle, Inode& inode, bool privileged) {
    MutexLock map(inode.map_lock);
    return append_at(handle, inode, LogicalBlock(0), privileged, true);
}

unsigned append_credits(Inode& inode, unsigned blocks) {
    MutexLock map(inode.map_lock);
    // The blocks follow each other, so the map's tree grows at its right end only: one new way down, once.
    return blocks * (1 + Allocator::mark_used_credits()) + 2 * inode.map().credits() + Inode::store_credits();
}

}  // namespace uext4
