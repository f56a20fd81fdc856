#include "file/block_swap.h"

#include <utility>

namespace uext4 {

namespace {

Result<std::vector<BufferRef>> hold_for_swap(Inode& inode, LogicalBlock at, BlockNr old, BlockNr fresh) {
    TRY(inode.fs().allocator.check_may_free(old));
    std::vector<BufferRef> held;
    for (const BlockNr block : {old, fresh})
        for (BufferRef& buffer : TRY(inode.fs().allocator.hold_for_free(block, 1))) held.push_back(std::move(buffer));
    MutexLock guard(inode.map_lock);
    for (BufferRef& buffer : TRY(inode.map().hold_for_replace(at))) held.push_back(std::move(buffer));
    return held;
}

}  // namespace

std::optional<BlockSwap> prepare_swap(Inode& inode, LogicalBlock at, BlockNr old, BlockNr goal, bool grows) {
    FsContext& fs = inode.fs();
    if (fs.geometry.cluster_ratio != 1) return std::nullopt;
    Result<Claim> tree = fs.allocator.claim(BlockMap::tree_blocks_for(1, fs.block_size(), true), true);
    if (!tree) return std::nullopt;
    Result<Grant> grant = fs.allocator.grant(goal, 1, nullptr, true, grows ? inode.number() : InodeNr());
    if (!grant) return std::nullopt;
    if (!inode.uses_extents() && grant->first().value >> 32 != 0) return std::nullopt;  // no pointer holds it
    Result<std::vector<BufferRef>> held = hold_for_swap(inode, at, old, grant->first());
    if (!held) return std::nullopt;
    return BlockSwap{at, old, std::move(*grant), std::move(*tree), std::move(*held)};
}

Result<void> swap_block(Handle& handle, Inode& inode, BlockSwap& swap, Allocator::AfterUse then) {
    FsContext& fs = inode.fs();
    const BlockNr fresh = swap.grant.first();
    TRY(fs.allocator.publish(handle, swap.grant));
    const Result<BlockNr> old = inode.map().replace(handle, swap.at, fresh, &swap.tree);
    swap.tree = Claim();
    inode.places().changed();
    if (!old) {
        (void)fs.allocator.free(handle, fresh, 1);  // the bit of this handle is taken back
        return fail(old.error());
    }
    Result<std::shared_ptr<const void>> freed = fs.allocator.free_after_use(handle, *old, then);
    if (freed)
        if (Result<void> forgotten = inode.forget_data(handle, *old, 1); !forgotten) freed = fail(forgotten.error());
    if (!freed) {
        fs.journal.abort(freed.error());  // the transaction would leave a block that nobody has
        return fail(freed.error());
    }
    inode.places().keep_until_unused(std::move(*freed));
    return {};
}

Result<void> log_block(Handle& handle, Inode& inode, BlockNr block, ConstBytes contents) {
    {
        MutexLock guard(inode.map_lock);
        inode.note_tid(handle.tid(), true);
    }
    return inode.fs().logged_blocks.log(handle, block, contents);
}

}  // namespace uext4
