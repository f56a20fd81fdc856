#include "volume/backup_superblocks.h"

#include "volume/backup_super_device.h"

#include <algorithm>
#include <array>

namespace uext4 {

namespace {

// 0 in bigalloc's default, 16 blocks a cluster, and 1 without it.
constexpr std::array<std::uint64_t, 2> cluster_ratios{1, 16};
// Of sparse_super. The first of them is that of sparse_super2 and of file systems without either as well.
constexpr std::array<std::uint64_t, 12> groups{1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343};
constexpr std::uint32_t largest_searched = 4096, largest_block = 65536;
constexpr std::size_t most_named = 3;

// The place in units of 1 KiB is that of a backup by what the superblock there says.
bool is_backup(const std::shared_ptr<BlockDevice>& device, std::uint64_t kib, std::uint32_t block_size) {
    Result<std::shared_ptr<BackupSuperDevice>> image = BackupSuperDevice::open(device, kib);
    if (!image) return false;
    const format::Geometry& g = (*image)->geometry();
    const BlockNr block(kib * 1024 / block_size);
    if (g.block_size != block_size || !g.valid_block(block)) return false;
    const GroupNr group = g.group_of(block);
    if (g.first_block(group) != block || !g.has_super_backup(group)) return false;
    // s_block_group_nr has 16 bits.
    if ((*image)->super().block_group_nr != static_cast<std::uint16_t>(group.value)) return false;
    const Result<bool> sound = (*image)->descriptors_look_sound(GroupNr(0));
    return sound && *sound;
}

}  // namespace

std::vector<BackupSuperblock> find_backup_superblocks(const std::shared_ptr<BlockDevice>& device) {
    std::vector<BackupSuperblock> out;
    for (std::uint32_t size = 1024; size <= largest_block; size *= 2) {
        for (const std::uint64_t ratio : cluster_ratios) {
            // With 1 KiB blocks, blocks count from 1, and with bigalloc from 0.
            const std::uint64_t first = size == 1024 && ratio == 1 ? 1 : 0;
            const std::uint64_t per_group = std::uint64_t{8} * size * ratio, blocks = device->size() / size;
            if (blocks <= first) continue;
            std::vector<std::uint64_t> wanted(groups.begin(), groups.end());
            if (size > largest_searched) wanted.resize(1);
            wanted.push_back((blocks - first - 1) / per_group);  // the last one, of sparse_super2
            std::ranges::sort(wanted);
            wanted.erase(std::ranges::unique(wanted).begin(), wanted.end());
            for (const std::uint64_t group : wanted) {
                const std::uint64_t block = first + group * per_group;
                if (group == 0 || block >= blocks) continue;
                if (is_backup(device, block * (size / 1024), size)) out.push_back({block * (size / 1024), block, size});
            }
        }
    }
    return out;
}

std::string backup_superblock_hint(const std::shared_ptr<BlockDevice>& device) {
    const std::vector<BackupSuperblock> found = find_backup_superblocks(device);
    if (found.empty()) return {};
    std::string named;
    for (std::size_t i = 0; i < std::min(found.size(), most_named); ++i)
        named += fmt::format("{}sb={}", i ? ", " : "", found[i].kib);
    const BackupSuperblock& first = found.front();
    return fmt::format(
        "; backup superblocks that look sound: {}. To read the files: -o ro,sb={}. To repair: "
        "e2fsck -b {} -B {}",
        named, first.kib, first.block, first.block_size);
}

std::string check_primary_superblock(BlockDevice& device) {
    format::SuperBlock super;
    if (Result<void> read = device.read(format::super_offset, std::as_writable_bytes(std::span(&super, 1))); !read)
        return read.error().what;
    if (super.magic != format::super_magic)
        return fmt::format("s_magic is {:#06x}, expected {:#06x}", super.magic.get(), format::super_magic);
    if (!format::super_checksum_ok(super)) return "bad checksum";
    if (Result<format::Geometry> geometry = format::Geometry::parse(super, device.size()); !geometry)
        return geometry.error().what;
    return {};
}

}  // namespace uext4
