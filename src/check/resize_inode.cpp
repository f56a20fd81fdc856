// The resize inode: its double indirect block names the blocks that are kept for more group descriptors, and each of
// these names its copies in the groups that have them.
#include "check/checker.h"

#include <utility>

namespace uext4 {

namespace {
constexpr unsigned slots = 15, double_indirect = 13;
}

// map_lock held. The blocks that it names were marked as the file system's own.
void Checker::check_resize_inode(Inode& inode, const std::string& where) {
    const auto pointer = [&](unsigned i) { return view_as<Le32>(ConstBytes(inode.i_block()), i * 4).get(); };
    if (!g_.has_compat(format::compat::resize_inode)) {
        if (inode.block_count_512() != 0)
            problem(where, "i_blocks is {}, but the superblock lacks resize_inode", inode.block_count_512());
        return;
    }
    if (inode.uses_extents()) return problem(where, "i_flags has extents");
    for (unsigned i = 0; i < slots; ++i)
        if (i != double_indirect && pointer(i) != 0) problem(where, "i_block[{}] is {}, not 0", i, pointer(i));
    const BlockNr own(pointer(double_indirect));
    if (!own || !g_.valid_block(own)) return problem(where, "i_block[{}] is {}", double_indirect, own);
    mark_used(own, 1, inode.number().value);
    Result<BufferRef> top = fs_.buffers.read(own, "resize inode");
    if (!top) return problem(where, "{}", top.error().what);
    const std::uint64_t per_block = g_.block_size / 4;
    const std::uint64_t descriptors = divide_up(std::uint64_t{g_.group_count}, std::uint64_t{g_.descs_per_block});
    const BlockNr first = g_.descriptor_place(GroupNr(0)).block + descriptors;
    // Whether a pointer that nothing stands for is 0.
    const auto empty = [&](const BufferRef& buffer, BlockNr block, std::uint64_t slot) {
        const std::uint32_t named = view_as<Le32>(std::as_const(*buffer).data(), slot * 4);
        if (named != 0) problem(where, "block {}: pointer {} is {}, not 0", block, slot, named);
        return named == 0;
    };
    std::vector<bool> wanted_slots(per_block);
    std::uint64_t blocks = 1, last = 0;
    for (std::uint64_t r = 0; r < g_.reserved_gdt_blocks; ++r) {
        const std::uint64_t slot = (descriptors + r) % per_block;
        wanted_slots[slot] = true;
        const BlockNr named(view_as<Le32>(std::as_const(**top).data(), slot * 4).get()), wanted = first + r;
        if (named != wanted) {
            problem(where, "block {}: pointer {} is {}, not {}", own, slot, named, wanted);
            continue;
        }
        Result<BufferRef> below = fs_.buffers.read(named, "resize inode");
        if (!below) {
            problem(where, "{}", below.error().what);
            continue;
        }
        ++blocks;
        std::uint64_t at = 0;
        for (std::uint64_t n = 1; n < g_.group_count && at < per_block; ++n) {
            if (!g_.has_super_backup(GroupNr(n))) continue;
            const BlockNr copy(view_as<Le32>(std::as_const(**below).data(), at * 4).get());
            // As far into its group as in group 0, whose superblock is in block 1 where blocks are of 1 KiB, even when
            // clusters count from 0 and the other groups have theirs in their first block.
            const BlockNr place = wanted + n * g_.blocks_per_group;
            if (copy != place) problem(where, "block {}: pointer {} is {}, not {}", named, at, copy, place);
            last = std::max(last, 12 + per_block + slot * per_block + at);
            ++blocks;
            ++at;
        }
        // One of them tells it all.
        while (at < per_block && empty(*below, named, at)) ++at;
    }
    for (std::uint64_t slot = 0; slot < per_block; ++slot)
        if (!wanted_slots[slot]) empty(*top, own, slot);
    if (inode.disk_size() < last * g_.block_size)
        problem(where, "i_size is {}, block {} of it has contents", inode.disk_size(), last);
    // With clusters they are counted by who made the file system, each cluster once, whoever shares it.
    const std::uint64_t sectors = blocks * (g_.block_size / 512);
    if (g_.cluster_ratio == 1 && sectors != inode.block_count_512())
        problem(where, "i_blocks is {}, it has {}", inode.block_count_512(), sectors);
}

}  // namespace uext4
