#include "alloc/allocator_state.h"

#include <algorithm>
#include <bit>

namespace uext4 {

Result<Allocator::InodeLocation> Allocator::locate_inode(InodeNr ino) {
    State& s = *state_;
    const format::Geometry& g = s.geometry;
    if (!g.valid_inode(ino)) return fail(EUCLEAN, "inode {}: the file system has {}", ino, g.inodes_count);
    std::uint32_t offset = 0;
    BufferRef desc = TRY(s.descriptor(g.group_of(ino), offset));
    const std::uint32_t index = g.index_in_group(ino), per_block = g.block_size / g.inode_size;
    return InodeLocation{s.view(desc, offset).inode_table() + index / per_block, index % per_block * g.inode_size};
}

Result<bool> Allocator::is_inode_used(InodeNr ino) {
    State& s = *state_;
    if (!s.geometry.valid_inode(ino)) return false;
    const GroupNr number = s.geometry.group_of(ino);
    Group& group = s.group(number);
    MutexLock guard(group.lock);
    TRY(s.load_inodes(number, group));
    return group.inodes->test(s.geometry.index_in_group(ino));
}

namespace {

// Where to look first: a directory below the root goes where there is more room than on average.
std::uint64_t first_group(AllocatorState& s, InodeNr parent, bool directory) {
    const format::Geometry& g = s.geometry;
    const std::uint64_t home = g.group_of(parent).value;
    if (!directory || parent.value != format::special_inode::root || g.group_count == 1) return home;
    const std::int64_t inodes = s.free_inodes.load() / g.group_count, clusters = s.available.load() / g.group_count;
    const std::uint32_t start = s.directory_group.fetch_add(1, std::memory_order_relaxed);
    for (std::uint64_t n = 0; n < std::min<std::uint64_t>(g.group_count, 64); ++n) {
        const GroupNr number((start + n) % g.group_count);
        std::uint32_t offset = 0;
        Result<BufferRef> desc = s.descriptor(number, offset);
        if (!desc) continue;
        MutexLock guard((*desc)->lock);  // others change its counts, and the group is not locked
        const auto d = s.view(*desc, offset);
        if (d.free_inodes() > 0 && d.free_inodes() >= inodes && d.free_clusters() >= clusters) return number.value;
    }
    return home;
}

// The first block of the group's inode table that nobody has used, when the device need not hold zeros there.
std::uint32_t first_new_block(const AllocatorState& s, const format::GroupDescView& d) {
    const format::Geometry& g = s.geometry;
    const std::uint32_t per_block = g.block_size / g.inode_size;
    if (g.descriptor_checksum == format::DescriptorChecksum::none || (d.flags() & format::group_flag::inode_zeroed))
        return g.inode_table_blocks;
    const std::uint32_t used = g.inodes_per_group - std::min(d.itable_unused(), g.inodes_per_group);
    return static_cast<std::uint32_t>(divide_up(used, per_block));
}

// The block that an inode is going to be stored in, before its bit is set: what cannot be read cannot be given back.
Result<void> read_table(AllocatorState& s, const format::GroupDescView& d, std::uint32_t index) {
    const std::uint32_t block = index / (s.geometry.block_size / s.geometry.inode_size);
    if (block >= first_new_block(s, d)) return {};
    const Result<BufferRef> table = s.buffers.read(d.inode_table() + block, "inode table");
    if (!table && table.error().code == EIO) s.report_corruption(table.error());
    return table ? Result<void>() : fail(table.error());
}

// The inodes of a block that cannot be read are given to nobody as long as this mount lasts.
void put_aside(AllocatorState& s, GroupNr number, ClusterBitmap& map, std::uint32_t index) {
    const std::uint32_t per_block = s.geometry.block_size / s.geometry.inode_size,
                        first = index / per_block * per_block;
    for (std::uint32_t i = first; i < std::min(first + per_block, s.geometry.inodes_per_group); ++i) {
        if (map.test(i)) continue;
        map.set(i);
        ++map.memory_only;
        --map.free;
    }
    s.groups[number.value].free_inode_hint.store(map.free, std::memory_order_relaxed);
}

// The group's inodes are loaded, and this one is free.
Result<void> mark_inode(AllocatorState& s, Handle& handle, GroupNr number, Group& group, std::uint32_t index,
                        bool directory) UEXT4_REQUIRES(group.lock) {
    const format::Geometry& g = s.geometry;
    ClusterBitmap& map = *group.inodes;
    std::uint32_t offset = 0;
    BufferRef desc = TRY(s.descriptor(number, offset));
    TRY(handle.get_write_access(desc));
    auto d = s.view(desc, offset);
    // Table blocks that come into use for the first time must not show what the device held before.
    const bool counts_unused = g.descriptor_checksum != format::DescriptorChecksum::none;
    const std::uint32_t used =
        counts_unused ? g.inodes_per_group - std::min(d.itable_unused(), g.inodes_per_group) : g.inodes_per_group;
    for (std::uint32_t b = first_new_block(s, d); b <= index / (g.block_size / g.inode_size); ++b) {
        BufferRef table = TRY(s.buffers.get(d.inode_table() + b, "inode table"));
        TRY(handle.get_create_access(table));
    }
    BufferRef bitmap = TRY(s.writable_inode_bitmap(handle, number, desc, offset));
    bitmap->data()[index / 8] |= std::byte{1} << static_cast<int>(index % 8);
    {
        MutexLock change(desc->lock);
        if (index >= used) d.set_itable_unused(g.inodes_per_group - index - 1);
        d.set_free_inodes(d.free_inodes() > 0 ? d.free_inodes() - 1 : 0);
        if (directory) d.set_used_dirs(d.used_dirs() + 1);
        d.sum_inode_bitmap(g, bitmap->data());
        d.set_checksum(g, number);
    }
    map.set(index);
    if (map.first_free == index) map.first_free = index + 1;
    --map.free;
    s.groups[number.value].free_inode_hint.store(map.free, std::memory_order_relaxed);
    s.free_inodes.fetch_sub(1);
    return {};
}

}  // namespace

Result<InodeNr> Allocator::allocate_inode(Handle& handle, InodeNr parent, bool directory) {
    State& s = *state_;
    const format::Geometry& g = s.geometry;
    TRY(s.may_allocate());
    s.sum_counts();
    const std::uint64_t start = first_group(s, parent, directory);
    std::string damage;  // of a group that is not used for it
    bool unreadable = false;
    for (std::uint64_t n = 0; n < g.group_count; ++n) {
        const GroupNr number((start + n) % g.group_count);
        if (s.is_known_full_of_inodes(number)) continue;
        Group& group = s.group(number);
        MutexLock guard(group.lock);
        if (Result<void> loaded = s.load_inodes(number, group); !loaded) {
            if (loaded.error().code != EUCLEAN || s.stopped.load()) return fail(loaded.error());
            if (damage.empty()) damage = "; " + loaded.error().what;
            continue;
        }
        ClusterBitmap& map = *group.inodes;
        std::uint32_t from = map.first_free;
        if (number.value == 0) from = std::max(from, g.first_inode - 1);
        std::uint32_t index = g.inodes_per_group;
        for (std::uint32_t at = from; at < g.inodes_per_group;) {
            const std::uint64_t word = ~map.bits[at / 64] >> (at % 64);
            if (word) {
                index = at + static_cast<std::uint32_t>(std::countr_zero(word));
                break;
            }
            at = (at / 64 + 1) * 64;
        }
        if (index >= g.inodes_per_group) {
            s.groups[number.value].free_inode_hint.store(0, std::memory_order_relaxed);
            continue;
        }
        map.first_free = index;  // no clear bit was found below it
        std::uint32_t offset = 0;
        const BufferRef desc = TRY(s.descriptor(number, offset));
        if (const Result<void> there = read_table(s, s.view(desc, offset), index); !there) {
            if (s.stopped.load() || there.error().code != EIO) return fail(there.error());
            if (damage.empty()) damage = "; " + there.error().what;
            unreadable = true;
            put_aside(s, number, map, index);
            --n;  // the same group once more
            continue;
        }
        TRY(mark_inode(s, handle, number, group, index, directory));
        return InodeNr(number.value * g.inodes_per_group + index + 1);
    }
    return fail(unreadable ? EIO : ENOSPC, "no free inode{}", damage);
}

Result<void> Allocator::mark_inode_used(Handle& handle, InodeNr ino, bool directory) {
    State& s = *state_;
    const format::Geometry& g = s.geometry;
    if (!g.valid_inode(ino) || ino.value < g.first_inode) return fail(EUCLEAN, "inode {}: cannot be taken", ino);
    s.sum_counts();
    const GroupNr number = g.group_of(ino);
    const std::uint32_t index = g.index_in_group(ino);
    Group& group = s.group(number);
    MutexLock guard(group.lock);
    TRY(s.load_inodes(number, group));
    if (group.inodes->test(index)) return fail(EUCLEAN, "group {}: inode bitmap: inode {} is in use", number, ino);
    return mark_inode(s, handle, number, group, index, directory);
}

Result<void> Allocator::free_inode(Handle& handle, InodeNr ino, bool directory) {
    State& s = *state_;
    const format::Geometry& g = s.geometry;
    if (!g.valid_inode(ino) || ino.value < g.first_inode) return fail(EUCLEAN, "inode {}: cannot be freed", ino);
    s.sum_counts();
    const GroupNr number = g.group_of(ino);
    const std::uint32_t index = g.index_in_group(ino);
    Group& group = s.group(number);
    MutexLock guard(group.lock);
    TRY(s.load_inodes(number, group));
    std::uint32_t offset = 0;
    BufferRef desc = TRY(s.descriptor(number, offset));
    TRY(handle.get_write_access(desc));
    BufferRef bitmap = TRY(s.writable_inode_bitmap(handle, number, desc, offset));
    if (!(std::to_integer<unsigned>(bitmap->data()[index / 8]) >> (index % 8) & 1))
        return fail(EUCLEAN, "group {}: inode bitmap: inode {} is freed and was free", number, ino);
    bitmap->data()[index / 8] &= ~(std::byte{1} << static_cast<int>(index % 8));
    ++group.inodes->memory_only;  // until that is durable
    {
        MutexLock change(desc->lock);
        auto d = s.view(desc, offset);
        d.set_free_inodes(d.free_inodes() + 1);
        if (directory && d.used_dirs() > 0) d.set_used_dirs(d.used_dirs() - 1);
        d.sum_inode_bitmap(g, bitmap->data());
        d.set_checksum(g, number);
    }
    s.free_inodes.fetch_add(1);
    s.pending_free_inodes.fetch_add(1);
    handle.on_durable([state = s.weak_from_this(), number, index] {
        auto alive = state.lock();
        if (!alive) return;
        Group& home = alive->group(number);
        MutexLock at_home(home.lock);
        if (home.inodes) {
            home.inodes->clear(index);
            ++home.inodes->free;
            --home.inodes->memory_only;
            home.inodes->first_free = std::min(home.inodes->first_free, index);
            alive->groups[number.value].free_inode_hint.store(home.inodes->free, std::memory_order_relaxed);
        }
        alive->free_count_generation.fetch_add(1);
        alive->pending_free_inodes.fetch_sub(1);
    });
    return {};
}

}  // namespace uext4
