// Bitmaps: read and checked, made where a group has none yet, and their copies in memory.
#include "alloc/group_table.h"

#include <algorithm>
#include <cstring>

namespace uext4 {

namespace {

constexpr std::uint64_t most_maps = 8192;        // busy maps kept; 4 KiB each at most on a common file system
constexpr std::uint64_t groups_a_sweep = 2048;   // looked at when there are more

}  // namespace

// Drops maps that say no more than the disk does. The caller holds the lock of `but`.
void GroupTable::make_room(const Group& but) {
    for (std::uint64_t step = 0; step < groups_a_sweep && loaded_maps_.load() > most_maps; ++step) {
        const GroupNr n(hand_.fetch_add(1) % geometry_.group_count);
        Group* group = find(n);
        if (!group || group == &but || !group->lock.try_lock()) continue;
        for (std::unique_ptr<BusyMap>* map : {&group->blocks, &group->inodes}) {
            if (!*map || !(*map)->as_on_disk()) continue;
            map->reset();
            loaded_maps_.fetch_sub(1);
        }
        group->lock.unlock();
    }
}

Result<BufferRef> GroupTable::read_block_bitmap(Group& group, const Descriptor& desc) {
    BufferRef bitmap = TRY(buffers_.read(group.block_bitmap, "block bitmap"));
    if (bitmap->kind() == BlockKind::block_bitmap) return bitmap;
    {
        MutexLock guard(desc.buffer->lock);
        if (!view(desc).block_bitmap_ok(geometry_, bitmap->data())) return fail(EUCLEAN, "group {}: block bitmap: bad checksum", group.number);
    }
    TRY(check_system_bits(group.number, bitmap->data()));
    bitmap->set_kind(BlockKind::block_bitmap);
    return bitmap;
}

Result<BufferRef> GroupTable::read_inode_bitmap(Group& group, const Descriptor& desc) {
    BufferRef bitmap = TRY(buffers_.read(group.inode_bitmap, "inode bitmap"));
    if (bitmap->kind() == BlockKind::inode_bitmap) return bitmap;
    {
        MutexLock guard(desc.buffer->lock);
        if (!view(desc).inode_bitmap_ok(geometry_, bitmap->data())) return fail(EUCLEAN, "group {}: inode bitmap: bad checksum", group.number);
    }
    if (group.number.value == 0 && !bit_in(bitmap->data(), format::special_inode::root - 1))
        return fail(EUCLEAN, "group {}: inode bitmap: the root directory is not marked", group.number);
    bitmap->set_kind(BlockKind::inode_bitmap);
    return bitmap;
}

Result<BusyMap*> GroupTable::blocks(Group& group) {
    group.lock.assert_held();
    const GroupNr n = group.number;
    if (group.bad_blocks) return fail(EUCLEAN, "group {}: block bitmap: damaged", n);
    if (group.blocks) return group.blocks.get();
    auto load = [&]() -> Result<std::unique_ptr<BusyMap>> {
        if (TRY(facts(n)).block_uninit) return std::make_unique<BusyMap>(TRY(initial_block_bitmap(n)), geometry_.clusters_in_group(n));
        const BufferRef bitmap = TRY(read_block_bitmap(group, TRY(descriptor(n))));
        return std::make_unique<BusyMap>(bitmap->data(), geometry_.clusters_in_group(n));
    };
    Result<std::unique_ptr<BusyMap>> map = load();
    if (!map) {
        if (map.error().code == EUCLEAN) {
            group.bad_blocks = true;
            hints(n).free_clusters.store(0);
        }
        return fail(std::move(map.error()));
    }
    group.blocks = std::move(*map);
    if (loaded_maps_.fetch_add(1) >= most_maps) make_room(group);
    return group.blocks.get();
}

Result<BusyMap*> GroupTable::inodes(Group& group) {
    group.lock.assert_held();
    const GroupNr n = group.number;
    if (group.bad_inodes) return fail(EUCLEAN, "group {}: inode bitmap: damaged", n);
    if (group.inodes) return group.inodes.get();
    auto load = [&]() -> Result<std::unique_ptr<BusyMap>> {
        if (TRY(facts(n)).inode_uninit) {
            if (n.value == 0) return fail(EUCLEAN, "group 0: descriptor: bg_flags says that it has no inodes");
            const std::vector<std::byte> none(geometry_.block_size);
            return std::make_unique<BusyMap>(none, geometry_.inodes_per_group);
        }
        const BufferRef bitmap = TRY(read_inode_bitmap(group, TRY(descriptor(n))));
        return std::make_unique<BusyMap>(bitmap->data(), geometry_.inodes_per_group);
    };
    Result<std::unique_ptr<BusyMap>> map = load();
    if (!map) {
        if (map.error().code == EUCLEAN) {
            group.bad_inodes = true;
            hints(n).free_inodes.store(0);
        }
        return fail(std::move(map.error()));
    }
    group.inodes = std::move(*map);
    hints(n).free_inodes.store(group.inodes->free());
    if (loaded_maps_.fetch_add(1) >= most_maps) make_room(group);
    return group.inodes.get();
}

Result<BufferRef> GroupTable::writable_block_bitmap(Handle& handle, Group& group, const Descriptor& desc) {
    group.lock.assert_held();
    if (!TRY(facts(group.number)).block_uninit) {
        BufferRef bitmap = TRY(read_block_bitmap(group, desc));
        TRY(handle.write_access(bitmap));
        return bitmap;
    }
    const std::vector<std::byte> initial = TRY(initial_block_bitmap(group.number));
    BufferRef bitmap = TRY(buffers_.get(group.block_bitmap, "block bitmap"));
    TRY(handle.create_access(bitmap));
    std::memcpy(bitmap->data().data(), initial.data(), initial.size());
    bitmap->set_kind(BlockKind::block_bitmap);
    // Whole at once: the caller may still find a reason to stop.
    MutexLock guard(desc.buffer->lock);
    auto d = view(desc);
    d.set_flags(static_cast<std::uint16_t>(d.flags() & ~format::group_flag::block_uninit));
    d.sum_block_bitmap(geometry_, bitmap->data());
    d.set_checksum(geometry_, group.number);
    return bitmap;
}

Result<BufferRef> GroupTable::writable_inode_bitmap(Handle& handle, Group& group, const Descriptor& desc) {
    group.lock.assert_held();
    if (!TRY(facts(group.number)).inode_uninit) {
        BufferRef bitmap = TRY(read_inode_bitmap(group, desc));
        TRY(handle.write_access(bitmap));
        return bitmap;
    }
    BufferRef bitmap = TRY(buffers_.get(group.inode_bitmap, "inode bitmap"));
    TRY(handle.create_access(bitmap));
    const std::uint64_t all = std::uint64_t{geometry_.block_size} * 8;
    if (geometry_.inodes_per_group < all) set_bits(bitmap->data(), geometry_.inodes_per_group, all - geometry_.inodes_per_group);
    bitmap->set_kind(BlockKind::inode_bitmap);
    MutexLock guard(desc.buffer->lock);
    auto d = view(desc);
    d.set_flags(static_cast<std::uint16_t>(d.flags() & ~format::group_flag::inode_uninit));
    d.sum_inode_bitmap(geometry_, bitmap->data());
    d.set_checksum(geometry_, group.number);
    return bitmap;
}

}  // namespace uext4
