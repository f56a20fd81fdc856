#include "file/out_of_place_write.h"

#include <utility>

namespace uext4 {

namespace {

Result<std::vector<BufferRef>> hold_for_swap(Inode& inode, LogicalBlock at, BlockNr old, BlockNr fresh) {
    TRY(inode.fs().allocator.check_can_free(old));
    std::vector<BufferRef> held;
    for (const BlockNr block : {old, fresh})
        for (BufferRef& buffer : TRY(inode.fs().allocator.pin_blocks_for_free(block, 1)))
            held.push_back(std::move(buffer));
    MutexLock guard(inode.map_lock);
    for (BufferRef& buffer : TRY(inode.map().pin_for_replace(at))) held.push_back(std::move(buffer));
    return held;
}

}  // namespace

std::optional<OutOfPlaceWrite> prepare_out_of_place_write(Inode& inode, LogicalBlock at, BlockNr old, BlockNr goal,
                                                          bool grows) {
    FsContext& fs = inode.fs();
    if (fs.geometry.cluster_ratio != 1) return std::nullopt;
    Result<DelallocReservation> tree = fs.allocator.reserve(BlockMap::tree_blocks_for(1, fs.block_size(), true), true);
    if (!tree) return std::nullopt;
    Result<Allocation> grant = fs.allocator.allocate(goal, 1, nullptr, true, grows ? inode.number() : InodeNr());
    if (!grant) return std::nullopt;
    if (!inode.uses_extents() && grant->first().value >> 32 != 0) return std::nullopt;  // no pointer holds it
    Result<std::vector<BufferRef>> held = hold_for_swap(inode, at, old, grant->first());
    if (!held) return std::nullopt;
    return OutOfPlaceWrite{at, old, std::move(*grant), std::move(*tree), std::move(*held)};
}

Result<void> finish_out_of_place_write(Handle& handle, Inode& inode, OutOfPlaceWrite& swap, Allocator::Reuse then) {
    FsContext& fs = inode.fs();
    const BlockNr fresh = swap.allocation.first();
    TRY(fs.allocator.mark_used(handle, swap.allocation));
    const Result<BlockNr> old = inode.map().replace_block(handle, swap.at, fresh, &swap.tree_reservation);
    swap.tree_reservation = DelallocReservation();
    inode.extent_status().invalidate();
    if (!old) {
        (void)fs.allocator.free(handle, fresh, 1);  // the bit of this handle is taken back
        return fail(old.error());
    }
    Result<std::shared_ptr<const void>> freed = fs.allocator.free_when_unused(handle, *old, then);
    if (freed)
        if (Result<void> forgotten = inode.revoke_data(handle, *old, 1); !forgotten) freed = fail(forgotten.error());
    if (!freed) {
        fs.journal.abort(freed.error());  // else the transaction would leave a used block without an owner
        return fail(freed.error());
    }
    inode.extent_status().defer_free(std::move(*freed));
    return {};
}

Result<void> log_block(Handle& handle, Inode& inode, BlockNr block, ConstBytes contents) {
    {
        MutexLock guard(inode.map_lock);
        inode.note_tid(handle.tid(), true);
    }
    return inode.fs().logged_data_blocks.log_block(handle, block, contents);
}

}  // namespace uext4
