#include "volume/backup_super_device.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace uext4 {

namespace {

bool bit_of(ConstBytes bitmap, std::uint32_t i) {
    return (std::to_integer<unsigned>(bitmap[i / 8]) >> (i % 8) & 1) != 0;
}

bool all_set(ConstBytes bitmap, std::uint32_t first, std::uint32_t end) {
    for (std::uint32_t i = first; i < end; ++i)
        if (!bit_of(bitmap, i)) return false;
    return true;
}

std::uint32_t count_clear(ConstBytes bitmap, std::uint32_t bits) {
    std::uint32_t out = 0;
    for (std::uint32_t i = 0; i < bits; ++i) out += bit_of(bitmap, i) ? 0 : 1;
    return out;
}

std::uint64_t primary_super_block(const format::Geometry& g) { return g.block_size == 1024 ? 1 : 0; }

bool places_are_possible(const format::Geometry& g, const format::GroupDescView& d) {
    return g.valid_block(d.block_bitmap()) && g.valid_block(d.inode_bitmap()) && g.valid_block(d.inode_table()) &&
           g.valid_block(d.inode_table() + (g.inode_table_blocks - 1));
}

}  // namespace

Result<std::shared_ptr<BackupSuperDevice>> BackupSuperDevice::open(std::shared_ptr<BlockDevice> base,
                                                                   std::uint64_t kib) {
    std::shared_ptr<BackupSuperDevice> out(new BackupSuperDevice(std::move(base)));
    BlockDevice& device = *out->base_;
    format::SuperBlock& super = out->super_;
    if (kib > device.size() / 1024 || device.size() - kib * 1024 < sizeof super)
        return fail(EINVAL, "option sb={}: the image of {} bytes ends before it", kib, device.size());
    TRY(device.read(kib * 1024, std::as_writable_bytes(std::span(&super, 1))));
    if (super.magic != format::super_magic)
        return fail(EINVAL, "option sb={}: no superblock is there (s_magic is {:#06x}, expected {:#06x})", kib,
                    super.magic.get(), format::super_magic);
    if (!format::super_checksum_ok(super)) return fail(EUCLEAN, "option sb={}: superblock: bad checksum", kib);
    Result<format::Geometry> geometry = format::Geometry::parse(super, device.size());
    if (!geometry) return fail(geometry.error().code, "option sb={}: {}", kib, geometry.error().what);
    out->geometry_ = *geometry;
    const format::Geometry& g = out->geometry_;
    out->super_at_ = BlockNr(kib * 1024 / g.block_size);
    const std::uint64_t descriptors = divide_up(std::uint64_t{g.group_count}, std::uint64_t{g.descs_per_block});
    const std::uint64_t behind = g.has_incompat(format::incompat::meta_bg) ? g.first_meta_bg : descriptors;
    if (out->super_at_.value + behind >= g.blocks_count)
        return fail(EUCLEAN, "option sb={}: the group descriptors behind it end at block {}, but s_blocks_count is {}",
                    kib, out->super_at_.value + behind, g.blocks_count);
    return out;
}

Result<void> BackupSuperDevice::write(std::uint64_t, ConstBytes) {
    return fail(EROFS, "{}: option sb= only reads", base_->name());
}

bool BackupSuperDevice::holds_super(BlockNr block) const { return block.value == primary_super_block(geometry_); }

bool BackupSuperDevice::holds_descriptors(BlockNr block, GroupNr& first) const {
    const format::Geometry& g = geometry_;
    const std::uint64_t from = primary_super_block(g) + 1;
    const std::uint64_t blocks = divide_up(std::uint64_t{g.group_count}, std::uint64_t{g.descs_per_block});
    const bool meta = g.has_incompat(format::incompat::meta_bg);
    if (block.value >= from && block.value < from + (meta ? g.first_meta_bg : blocks)) {
        first = GroupNr((block.value - from) * g.descs_per_block);
        return true;
    }
    if (!meta || !g.valid_block(block)) return false;
    first = GroupNr(round_down(g.group_of(block).value, std::uint64_t{g.descs_per_block}));
    return first.value / g.descs_per_block >= g.first_meta_bg && g.descriptor_place(first).block == block;
}

Result<void> BackupSuperDevice::read(std::uint64_t offset, Bytes out) {
    TRY(check_range(*this, "read", offset, out.size()));
    const std::uint64_t size = geometry_.block_size;
    std::vector<std::byte> whole;
    // In runs of blocks that are as they are on the base, and single blocks that are replaced.
    while (!out.empty()) {
        std::uint64_t end = offset;
        GroupNr first;
        auto replaced = [&] {
            return holds_super(BlockNr(end / size)) || holds_descriptors(BlockNr(end / size), first);
        };
        while (end < offset + out.size() && !replaced()) end = round_down(end, size) + size;
        if (end > offset) {
            const Bytes run = out.first(std::min<std::uint64_t>(end - offset, out.size()));
            TRY(base_->read(offset, run));
            offset += run.size();
            out = out.subspan(run.size());
            continue;
        }
        const BlockNr block(offset / size);
        whole.resize(size);
        if (holds_super(block)) TRY(read_super_block(block, whole));
        else TRY(read_descriptors(first, whole));
        const std::uint64_t inside = offset % size, here = std::min<std::uint64_t>(size - inside, out.size());
        std::ranges::copy(Bytes(whole).subspan(inside, here), out.begin());
        offset += here;
        out = out.subspan(here);
    }
    return {};
}

Result<void> BackupSuperDevice::read_block(BlockNr block, Bytes out) {
    return base_->read(block.value * geometry_.block_size, out);
}

// What else the block holds is boot code: where the device does not read it, it is zeros.
Result<void> BackupSuperDevice::read_super_block(BlockNr block, Bytes out) {
    if (!read_block(block, out)) std::ranges::fill(out, std::byte{});
    view_as<format::SuperBlock>(out, format::super_offset % geometry_.block_size) = super_;
    return {};
}

Result<void> BackupSuperDevice::read_descriptors(GroupNr first, Bytes out) {
    const format::Geometry& g = geometry_;
    const std::uint64_t number = first.value / g.descs_per_block;
    if (g.has_incompat(format::incompat::meta_bg) && number >= g.first_meta_bg) return read_meta_group(first, out);
    TRY(read_block(super_at_ + (1 + number), out));
    rebuild_counts(out, first);
    return {};
}

// The first group of a meta group has the descriptors that a mount keeps; they are taken where they look sound. The
// second group and the last one have copies.
Result<void> BackupSuperDevice::read_meta_group(GroupNr first, Bytes out) {
    const format::Geometry& g = geometry_;
    Result<void> primary = read_block(g.descriptor_place(first).block, out);
    if (primary && is_sound(out, first)) return {};
    std::vector<std::byte> copy(out.size());
    for (const std::uint64_t in : {std::uint64_t{1}, std::uint64_t{g.descs_per_block} - 1}) {
        const GroupNr group(first.value + in);
        if (group.value >= g.group_count) continue;
        if (!read_block(g.first_block(group) + (g.has_super_backup(group) ? 1 : 0), copy) || !is_sound(copy, first))
            continue;
        std::ranges::copy(copy, out.begin());
        rebuild_counts(out, first);
        return {};
    }
    return primary;  // as it is: the reader of a descriptor says what is wrong with it
}

bool BackupSuperDevice::is_sound(ConstBytes block, GroupNr first) const {
    const format::Geometry& g = geometry_;
    std::vector<std::byte> bytes(block.begin(), block.end());
    for (std::uint64_t i = 0; i < g.descs_per_block && first.value + i < g.group_count; ++i) {
        const format::GroupDescView d(Bytes(bytes).subspan(i * g.desc_size), g.desc_size);
        if (!d.checksum_ok(g, GroupNr(first.value + i)) || !places_are_possible(g, d)) return false;
    }
    return true;
}

Result<bool> BackupSuperDevice::descriptors_look_sound(GroupNr first) {
    std::vector<std::byte> block(geometry_.block_size);
    const std::uint64_t number = first.value / geometry_.descs_per_block;
    if (geometry_.has_incompat(format::incompat::meta_bg) && number >= geometry_.first_meta_bg)
        TRY(read_meta_group(first, block));
    else TRY(read_block(super_at_ + (1 + number), block));
    return is_sound(block, first);
}

void BackupSuperDevice::rebuild_counts(Bytes block, GroupNr first) {
    const format::Geometry& g = geometry_;
    for (std::uint64_t i = 0; i < g.descs_per_block && first.value + i < g.group_count; ++i) {
        const GroupNr group(first.value + i);
        format::GroupDescView d(block.subspan(i * g.desc_size), g.desc_size);
        // A descriptor that is damaged stays so: the reader of it says what is wrong.
        if (!d.checksum_ok(g, group) || !places_are_possible(g, d)) continue;
        count_blocks(d, group);
        count_inodes(d);
        d.set_checksum(g, group);
    }
}

// Whether the bitmap of a group that the backup calls BLOCK_UNINIT has been written since. One that was not holds
// anything, most often zeros: one that was has the group's own blocks and the bits behind its last cluster set.
bool BackupSuperDevice::is_block_bitmap(ConstBytes bitmap, const format::GroupDescView& d, GroupNr group) const {
    const format::Geometry& g = geometry_;
    const std::uint32_t clusters = g.clusters_in_group(group);
    if (!all_set(bitmap, clusters, g.block_size * 8)) return false;
    const std::uint64_t start = g.first_block(group).value, end = start + g.blocks_in_group(group);
    const auto marked = [&](std::uint64_t first, std::uint64_t count) {
        const std::uint64_t from = std::max(first, start), to = std::min(first + count, end);
        return from >= to || all_set(bitmap, static_cast<std::uint32_t>((from - start) / g.cluster_ratio),
                                     static_cast<std::uint32_t>((to - 1 - start) / g.cluster_ratio + 1));
    };
    return marked(start, g.base_meta_blocks(group)) && marked(d.block_bitmap().value, 1) &&
           marked(d.inode_bitmap().value, 1) && marked(d.inode_table().value, g.inode_table_blocks) &&
           count_clear(bitmap, clusters) != clusters;
}

void BackupSuperDevice::count_blocks(format::GroupDescView& d, GroupNr group) {
    const format::Geometry& g = geometry_;
    std::vector<std::byte> bitmap(g.block_size);
    if (!read_block(d.block_bitmap(), bitmap)) return;
    const std::uint32_t clusters = g.clusters_in_group(group);
    const bool has_flags = g.descriptor_checksum != format::DescriptorChecksum::none;
    if (has_flags && (d.flags() & format::group_flag::block_uninit)) {
        if (!is_block_bitmap(bitmap, d, group)) return;
        d.set_flags(static_cast<std::uint16_t>(d.flags() & ~format::group_flag::block_uninit));
    }
    d.set_free_clusters(count_clear(bitmap, clusters));
    d.sum_block_bitmap(g, bitmap);
}

void BackupSuperDevice::count_inodes(format::GroupDescView& d) {
    const format::Geometry& g = geometry_;
    std::vector<std::byte> bitmap(g.block_size);
    if (!read_block(d.inode_bitmap(), bitmap)) return;
    const std::uint32_t inodes = g.inodes_per_group, bits = g.block_size * 8;
    const bool has_flags = g.descriptor_checksum != format::DescriptorChecksum::none;
    const std::uint32_t free = count_clear(bitmap, inodes);
    if (has_flags && (d.flags() & format::group_flag::inode_uninit)) {
        if (free == inodes || !all_set(bitmap, inodes, bits)) return;
        d.set_flags(static_cast<std::uint16_t>(d.flags() & ~format::group_flag::inode_uninit));
    }
    d.set_free_inodes(free);
    if (has_flags) {
        std::uint32_t last = inodes;
        while (last > 0 && !bit_of(bitmap, last - 1)) --last;
        d.set_itable_unused(inodes - last);
    }
    d.sum_inode_bitmap(g, bitmap);
}

}  // namespace uext4
