#include "alloc/allocator_state.h"
#include "base/counted.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace uext4 {

namespace {

void set_bits(Bytes bitmap, std::uint64_t first, std::uint64_t count) {
    for (std::uint64_t i = first; i < first + count; ++i) bitmap[i / 8] |= std::byte{1} << static_cast<int>(i % 8);
}

std::unique_ptr<ClusterBitmap> busy_map(ConstBytes bitmap, std::uint32_t bits) {
    auto map = std::make_unique<ClusterBitmap>();
    map->bits.resize((bits + 63) / 64);
    std::memcpy(map->bits.data(), bitmap.data(), std::min<std::size_t>(map->bits.size() * 8, bitmap.size()));
    for (std::uint32_t i = bits; i < map->bits.size() * 64; ++i) map->set(i);
    for (std::uint64_t word : map->bits) map->free += static_cast<std::uint32_t>(64 - std::popcount(word));
    return map;
}

}  // namespace

Group& AllocatorState::group(GroupNr g) {
    MutexLock guard(table_lock);
    auto& slot = groups[g.value].group;
    if (!slot) slot = std::make_unique<Group>(g.value);
    return *slot;
}

Result<BufferRef> AllocatorState::descriptor(GroupNr g, std::uint32_t& offset) {
    const auto place = geometry.descriptor_place(g);
    offset = place.offset;
    BufferRef buffer = TRY(buffers.read(place.block, "group descriptors"));
    MutexLock guard(buffer->lock);
    if (buffer->kind() == BlockKind::group_descriptors) return buffer;
    bool all_good = true;
    std::optional<Error> distrusted;
    auto check = [&](GroupNr n, std::uint64_t i) -> Result<void> {
        const auto d = view(buffer, static_cast<std::uint32_t>(i) * geometry.desc_size);
        if (!d.checksum_ok(geometry, n)) {
            Error error{EUCLEAN, fmt::format("group {}: descriptor: bad checksum", n)};
            if (!read_only) return fail(std::move(error));
            all_good = false;
            if (n == g) distrusted = std::move(error);
        }
        if (!geometry.valid_block(d.block_bitmap()))
            return fail(EUCLEAN, "group {}: bg_block_bitmap is {}", n, d.block_bitmap());
        if (!geometry.valid_block(d.inode_bitmap()))
            return fail(EUCLEAN, "group {}: bg_inode_bitmap is {}", n, d.inode_bitmap());
        if (!geometry.valid_block(d.inode_table()) ||
            !geometry.valid_block(d.inode_table() + (geometry.inode_table_blocks - 1)))
            return fail(EUCLEAN, "group {}: bg_inode_table is {}", n, d.inode_table());
        // What is free is looked at by whoever loads the bitmap: nothing is given of the group then, and what is in use
        // there is had all the same.
        if (geometry.descriptor_checksum != format::DescriptorChecksum::none &&
            d.itable_unused() > geometry.inodes_per_group)
            return fail(EUCLEAN, "group {}: bg_itable_unused is {}", n, d.itable_unused());
        return {};
    };
    // The whole block is checked at once, so that good ones are looked at only once; a bad one costs its own group
    // only.
    const std::uint64_t first = g.value - offset / geometry.desc_size;
    for (std::uint64_t i = 0; i < geometry.descs_per_block && first + i < geometry.group_count; ++i) {
        const GroupNr n(first + i);
        Result<void> good = check(n, i);
        if (!good && n == g) return fail(std::move(good.error()));
        all_good = all_good && good;
    }
    if (all_good) buffer->set_kind(BlockKind::group_descriptors);
    guard.unlock();
    if (distrusted) report_corruption(*distrusted);
    return buffer;
}

// What is in use in a group whose bitmap was never written: its own structures, and those of other groups in its range.
Result<std::vector<std::byte>> AllocatorState::initial_block_bitmap(GroupNr g) {
    std::vector<std::byte> bitmap(geometry.block_size);
    const std::uint64_t start = geometry.first_block(g).value, count = geometry.blocks_in_group(g);
    auto mark = [&](std::uint64_t first, std::uint64_t n) {
        const std::uint64_t from = std::max(first, start), to = std::min(first + n, start + count);
        if (from >= to) return;
        set_bits(bitmap, (from - start) / ratio(), (to - 1 - start) / ratio() - (from - start) / ratio() + 1);
    };
    mark(start, base_blocks(g));
    const std::uint64_t flex = std::uint64_t{1} << geometry.log_groups_per_flex;
    const std::uint64_t first = g.value / flex * flex,
                        last = std::min<std::uint64_t>(first + flex, geometry.group_count);
    for (std::uint64_t n = first; n < last; ++n) {
        std::uint32_t offset = 0;
        BufferRef buffer = TRY(descriptor(GroupNr(n), offset));
        const auto d = view(buffer, offset);
        mark(d.block_bitmap().value, 1);
        mark(d.inode_bitmap().value, 1);
        mark(d.inode_table().value, geometry.inode_table_blocks);
    }
    const std::uint32_t used = clusters_in(g), all = geometry.block_size * 8;
    if (used < all) set_bits(bitmap, used, all - used);
    return bitmap;
}

Result<void> AllocatorState::check_block_bitmap(GroupNr g, const BufferRef& desc, std::uint32_t offset,
                                                const BufferRef& bitmap) {
    if (bitmap->kind() == BlockKind::block_bitmap) return {};
    MutexLock guard(desc->lock);
    if (!view(desc, offset).block_bitmap_ok(geometry, bitmap->data()))
        return fail(EUCLEAN, "group {}: block bitmap: bad checksum", g);
    bitmap->set_kind(BlockKind::block_bitmap);
    return {};
}

Result<void> AllocatorState::check_inode_bitmap(GroupNr g, const BufferRef& desc, std::uint32_t offset,
                                                const BufferRef& bitmap) {
    if (bitmap->kind() == BlockKind::inode_bitmap) return {};
    MutexLock guard(desc->lock);
    if (!view(desc, offset).inode_bitmap_ok(geometry, bitmap->data()))
        return fail(EUCLEAN, "group {}: inode bitmap: bad checksum", g);
    bitmap->set_kind(BlockKind::inode_bitmap);
    return {};
}

Result<void> AllocatorState::load_blocks(GroupNr g, Group& grp) {
    grp.recently_used = true;
    if (grp.blocks) return {};
    if (grp.bad_blocks) return fail(EUCLEAN, "group {}: block bitmap: damaged", g);
    auto load = [&]() -> Result<std::unique_ptr<ClusterBitmap>> {
        std::uint32_t offset = 0;
        BufferRef desc = TRY(descriptor(g, offset));
        const auto d = view(desc, offset);
        if ((d.flags() & format::group_flag::block_uninit) &&
            geometry.descriptor_checksum != format::DescriptorChecksum::none)
            return busy_map(TRY(initial_block_bitmap(g)), clusters_in(g));
        BufferRef bitmap = TRY(buffers.read(d.block_bitmap(), "block bitmap"));
        TRY(check_block_bitmap(g, desc, offset, bitmap));
        auto map = busy_map(bitmap->data(), clusters_in(g));
        if (const auto block = unmarked_system_block(g, *map))
            return fail(EUCLEAN, "group {}: block bitmap: block {}, of the file system's own, is not marked", g,
                        *block);
        // Without a checksum this is what tells zeros, or anything else, from a bitmap.
        if (const std::uint32_t told = d.free_clusters(); counts_consistent && map->free != told)
            return fail(EUCLEAN, "group {}: block bitmap: the descriptor says {}, expected {}", g,
                        counted(told, "free cluster"), map->free);
        return map;
    };
    Result<std::unique_ptr<ClusterBitmap>> map = load();
    if (!map) {
        if (map.error().code == EUCLEAN) {
            grp.bad_blocks = true;
            disable_block_bitmap(g);
        }
        if (map.error().code == EUCLEAN || map.error().code == EIO) report_corruption(map.error());
        return fail(map.error());
    }
    grp.blocks = std::move(*map);
    grp.blocks->runs.build(grp.blocks->bits);
    limit_bitmap_memory(g, grp, grp.blocks->bytes());
    groups[g.value].free_hint.store(grp.blocks->free);
    return {};
}

// What nobody can be given is promised to nobody.
void AllocatorState::disable_block_bitmap(GroupNr g) {
    groups[g.value].free_hint.store(0);
    std::uint32_t offset = 0;
    Result<BufferRef> desc = descriptor(g, offset);
    if (!desc) return;
    MutexLock guard((*desc)->lock);
    const std::uint32_t lost = std::min<std::uint32_t>(view(*desc, offset).free_clusters(), clusters_in(g));
    available.fetch_sub(lost);
}

Result<void> AllocatorState::load_inodes(GroupNr g, Group& grp) {
    grp.recently_used = true;
    if (grp.inodes) return {};
    if (grp.bad_inodes) return fail(EUCLEAN, "group {}: inode bitmap: damaged", g);
    auto load = [&]() -> Result<std::unique_ptr<ClusterBitmap>> {
        std::uint32_t offset = 0;
        BufferRef desc = TRY(descriptor(g, offset));
        const auto d = view(desc, offset);
        if ((d.flags() & format::group_flag::inode_uninit) &&
            geometry.descriptor_checksum != format::DescriptorChecksum::none) {
            const std::vector<std::byte> none(geometry.block_size);
            return busy_map(none, geometry.inodes_per_group);
        }
        BufferRef bitmap = TRY(buffers.read(d.inode_bitmap(), "inode bitmap"));
        TRY(check_inode_bitmap(g, desc, offset, bitmap));
        auto map = busy_map(bitmap->data(), geometry.inodes_per_group);
        for (std::uint32_t i = 0; g.value == 0 && i + 1 < geometry.first_inode; ++i)
            if (!map->test(i)) return fail(EUCLEAN, "group 0: inode bitmap: reserved inode {} is not marked", i + 1);
        if (const std::uint32_t told = d.free_inodes(); counts_consistent && map->free != told)
            return fail(EUCLEAN, "group {}: inode bitmap: the descriptor says {}, expected {}", g,
                        counted(told, "free inode"), map->free);
        return map;
    };
    Result<std::unique_ptr<ClusterBitmap>> map = load();
    if (!map) {
        if (map.error().code == EUCLEAN) {
            grp.bad_inodes = true;
            groups[g.value].free_inode_hint.store(0);
        }
        if (map.error().code == EUCLEAN || map.error().code == EIO) report_corruption(map.error());
        return fail(map.error());
    }
    grp.inodes = std::move(*map);
    limit_bitmap_memory(g, grp, grp.inodes->bytes());
    groups[g.value].free_inode_hint.store(grp.inodes->free);
    return {};
}

Result<BufferRef> AllocatorState::writable_block_bitmap(Handle& handle, GroupNr g, const BufferRef& desc,
                                                        std::uint32_t offset) {
    auto d = view(desc, offset);
    if ((d.flags() & format::group_flag::block_uninit) &&
        geometry.descriptor_checksum != format::DescriptorChecksum::none) {
        const std::vector<std::byte> initial = TRY(initial_block_bitmap(g));
        BufferRef bitmap = TRY(buffers.get(d.block_bitmap(), "block bitmap"));
        TRY(handle.get_create_access(bitmap));
        std::memcpy(bitmap->data().data(), initial.data(), initial.size());
        bitmap->set_kind(BlockKind::block_bitmap);
        MutexLock guard(desc->lock);
        d.set_flags(static_cast<std::uint16_t>(d.flags() & ~format::group_flag::block_uninit));
        d.set_checksum(geometry, g);
        return bitmap;
    }
    BufferRef bitmap = TRY(buffers.read(d.block_bitmap(), "block bitmap"));
    TRY(check_block_bitmap(g, desc, offset, bitmap));
    TRY(handle.get_write_access(bitmap));
    return bitmap;
}

Result<BufferRef> AllocatorState::writable_inode_bitmap(Handle& handle, GroupNr g, const BufferRef& desc,
                                                        std::uint32_t offset) {
    auto d = view(desc, offset);
    if ((d.flags() & format::group_flag::inode_uninit) &&
        geometry.descriptor_checksum != format::DescriptorChecksum::none) {
        BufferRef bitmap = TRY(buffers.get(d.inode_bitmap(), "inode bitmap"));
        TRY(handle.get_create_access(bitmap));
        if (geometry.inodes_per_group < geometry.block_size * 8)
            set_bits(bitmap->data(), geometry.inodes_per_group, geometry.block_size * 8 - geometry.inodes_per_group);
        bitmap->set_kind(BlockKind::inode_bitmap);
        MutexLock guard(desc->lock);
        d.set_flags(static_cast<std::uint16_t>(d.flags() & ~format::group_flag::inode_uninit));
        d.set_checksum(geometry, g);
        return bitmap;
    }
    BufferRef bitmap = TRY(buffers.read(d.inode_bitmap(), "inode bitmap"));
    TRY(check_inode_bitmap(g, desc, offset, bitmap));
    TRY(handle.get_write_access(bitmap));
    return bitmap;
}

}  // namespace uext4
