#include "extent/tree_blocks.h"

namespace uext4 {

Result<BufferRef> TreeBlocks::allocate(Handle& handle, BlockNr goal, DelallocReservation* paid, BlockKind kind) {
    if (paid && paid->clusters() == 0) paid = nullptr;
    const BlockNr block = TRY(context.allocator.allocate_metadata(handle, goal, paid, true));
    const BlockNr cluster(round_down(block.value, ratio()));
    auto give_back = [&](Error error) {
        (void)context.allocator.free(handle, cluster, ratio());
        return fail(std::move(error));
    };
    if (!owner.uses_extents() && block.value >> 32)
        return give_back(
            {ENOSPC, fmt::format("inode {}: no space below block 2^32 for its indirect blocks", owner.number())});
    auto buffer = context.buffers.get(block, "block of a file's map");
    if (!buffer) return give_back(std::move(buffer.error()));
    if (auto access = handle.get_create_access(*buffer); !access) return give_back(std::move(access.error()));
    (*buffer)->set_kind(kind);
    if (auto counted = owner.add_blocks(handle, static_cast<std::int64_t>(ratio())); !counted) {
        (void)handle.revoke(block);
        return give_back(std::move(counted.error()));
    }
    return std::move(*buffer);
}

Result<std::vector<BufferRef>> TreeBlocks::allocate_all(Handle& handle, std::uint64_t count, BlockNr goal,
                                                        DelallocReservation* paid, BlockKind kind) {
    std::vector<BufferRef> made;
    made.reserve(count);
    while (made.size() < count) {
        auto buffer = allocate(handle, goal, paid, kind);
        if (!buffer) {
            for (const BufferRef& b : made) (void)free(handle, b->block());
            return fail(std::move(buffer.error()));
        }
        goal = (*buffer)->block() + 1;
        made.push_back(std::move(*buffer));
    }
    return made;
}

Result<std::vector<BufferRef>> TreeBlocks::pin_for_free(BlockNr first, std::uint64_t count) {
    return context.allocator.pin_blocks_for_free(first, count);
}

Result<void> TreeBlocks::free(Handle& handle, BlockNr block) {
    if (BufferRef buffer = context.buffers.find(block)) buffer->set_kind(BlockKind::unchecked);
    TRY(handle.revoke(block));
    TRY(context.allocator.free(handle, BlockNr(round_down(block.value, ratio())), ratio()));
    return owner.add_blocks(handle, -static_cast<std::int64_t>(ratio()));
}

Result<void> TreeBlocks::free_data(Handle& handle, BlockNr first, std::uint64_t count) {
    TRY(owner.revoke_data(handle, first, count));
    TRY(context.allocator.free(handle, first, count));
    return owner.add_blocks(handle, -static_cast<std::int64_t>(count));
}

}  // namespace uext4
