// Block groups: descriptors, bitmaps, and who uses which block.
#include "base/counted.h"
#include "check/checker.h"

#include <algorithm>
#include <bit>

namespace uext4 {

namespace {

bool bit_of(ConstBytes bitmap, std::uint32_t i) {
    return (std::to_integer<unsigned>(bitmap[i / 8]) >> (i % 8) & 1) != 0;
}

// Bits past the last one that stands for something are set.
bool padded(ConstBytes bitmap, std::uint32_t used) {
    std::uint32_t i = used;
    for (; i % 8 != 0; ++i)
        if (!bit_of(bitmap, i)) return false;
    return std::ranges::all_of(bitmap.subspan(i / 8), [](std::byte eight) { return eight == std::byte{0xFF}; });
}

}  // namespace

std::uint64_t Checker::cluster_of(BlockNr b) const {
    return g_.group_of(b).value * g_.clusters_per_group +
           (b.value - g_.first_block(g_.group_of(b)).value) / g_.cluster_ratio;
}

// `owner` 0: the file system itself. With clusters, one inode may name several blocks of one.
void Checker::mark_used(BlockNr first, std::uint64_t count, std::uint64_t owner) {
    const bool may_be_shared = g_.has_ro_compat(format::ro_compat::shared_blocks);
    std::uint64_t last = ~std::uint64_t{0};
    for (std::uint64_t i = 0; i < count; ++i) {
        const BlockNr b = first + i;
        if (!g_.valid_block(b)) {
            problem(fmt::format("inode {}", owner), "block {} is outside of the file system", b);
            return;
        }
        const std::uint64_t c = cluster_of(b);
        if (c == last) continue;
        last = c;
        if (!used_.add(c) && owner != 0 && !may_be_shared && !(g_.cluster_ratio > 1 && metadata_clusters_.contains(c)))
            problem(fmt::format("inode {}", owner), "block {} belongs to something else as well", b);
        if (g_.cluster_ratio > 1 && owner != 0) metadata_clusters_.insert(c);
    }
}

// A bitmap or table. (A cluster may hold several of them.)
void Checker::mark_used_for_group(std::uint32_t group, BlockNr first, std::uint64_t count) {
    for (std::uint64_t i = 0; g_.cluster_ratio == 1 && i < count; ++i) {
        if (!used_.test(cluster_of(first + i))) continue;
        problem(fmt::format("group {}", group), "its structure at block {} overlaps another at block {}", first,
                first + i);
        break;
    }
    mark_used(first, count, 0);
}

Result<format::GroupDescView> Checker::descriptor(GroupNr n) {
    const auto place = g_.descriptor_place(n);
    pinned_buffer_ = TRY(fs_.buffers.read(place.block, "group descriptors"));
    return format::GroupDescView(pinned_buffer_->data().subspan(place.offset, g_.desc_size), g_.desc_size);
}

void Checker::mark_system() {
    if (g_.block_size == 1024 && g_.first_data_block == 0) mark_used(BlockNr(0), 1, 0);
    for (std::uint32_t n = 0; n < g_.group_count; ++n) {
        const GroupNr group(n);
        std::uint64_t base = g_.base_meta_blocks(group);
        if (n == 0 && g_.block_size == 1024 && g_.first_data_block == 0) ++base;
        mark_used(g_.first_block(group), base, 0);
        Result<format::GroupDescView> d = descriptor(group);
        if (!d) {
            problem(fmt::format("group {}", n), "{}", d.error().what);
            continue;
        }
        if (!d->checksum_ok(g_, group)) problem(fmt::format("group {}", n), "descriptor: bad checksum");
        for (const auto& [b, count] : {std::pair(d->block_bitmap(), 1u), std::pair(d->inode_bitmap(), 1u),
                                       std::pair(d->inode_table(), g_.inode_table_blocks)}) {
            if (g_.valid_block(b) && g_.valid_block(b + (count - 1))) mark_used_for_group(n, b, count);
            else problem(fmt::format("group {}", n), "a structure lies at block {}", b);
        }
    }
    if (g_.mmp_block && g_.valid_block(BlockNr(g_.mmp_block))) mark_used(BlockNr(g_.mmp_block), 1, 0);
}

void Checker::check_group_inodes(GroupNr n) {
    Result<format::GroupDescView> d = descriptor(n);
    if (!d) return;
    const std::string where = fmt::format("group {}", n);
    const bool sums = g_.descriptor_checksum != format::DescriptorChecksum::none;
    const bool empty = sums && (d->flags() & format::group_flag::inode_uninit);
    const std::uint32_t said = d->free_inodes(), dirs_said = d->used_dirs();
    const std::uint32_t unused = sums ? d->itable_unused() : 0;
    std::uint32_t free = g_.inodes_per_group, dirs = 0, last = 0;
    if (unused > g_.inodes_per_group) problem(where, "bg_itable_unused is {} of {}", unused, g_.inodes_per_group);
    if (!empty) {
        Result<BufferRef> bitmap = fs_.buffers.read(d->inode_bitmap(), "inode bitmap");
        if (!bitmap) return problem(where, "{}", bitmap.error().what);
        const ConstBytes bits = std::as_const(**bitmap).data();
        if (!d->inode_bitmap_ok(g_, bits)) problem(where, "inode bitmap: bad checksum");
        if (!padded(bits, g_.inodes_per_group)) problem(where, "inode bitmap: padding after its last inode is not set");
        for (std::uint32_t i = 0; i < g_.inodes_per_group; ++i) {
            const InodeNr ino(n.value * g_.inodes_per_group + i + 1);
            if (!bit_of(bits, i)) {
                if (ino.value < g_.first_inode) problem(where, "inode bitmap: reserved inode {} is not marked", ino);
                else if (i + unused < g_.inodes_per_group) check_free_inode(ino);
                continue;
            }
            --free;
            last = i + 1;
            if (check_inode(ino)) ++dirs;
        }
    }
    free_inodes_ += free;
    if (unused <= g_.inodes_per_group && last > g_.inodes_per_group - unused)
        problem(where, "bg_itable_unused is {}, but inode {} is in use", unused, n.value * g_.inodes_per_group + last);
    if (free != said) problem(where, "the descriptor says {}, expected {}", counted(said, "free inode"), free);
    if (!sums && last != 0 && (d->flags() & format::group_flag::inode_uninit))
        problem(where, "bg_flags is {:#x}: INODE_UNINIT, but inode {} is in use", d->flags(),
                n.value * g_.inodes_per_group + last);
    // Which of the damaged ones are directories is not known.
    const auto first_damaged = damaged_.lower_bound(n.value * g_.inodes_per_group + 1ull);
    const auto next_group = damaged_.lower_bound((n.value + 1ull) * g_.inodes_per_group + 1);
    const auto unknown = static_cast<std::uint32_t>(std::distance(first_damaged, next_group));
    if (volume_.options().backup_super) return;  // the copy of the descriptors does not count the directories of today
    if (dirs_said < dirs || dirs_said > dirs + unknown)
        problem(where, "the descriptor says {}, expected {}", counted(dirs_said, "directory", "directories"), dirs);
}

bool Checker::is_system_cluster(GroupNr group, std::uint32_t index) const {
    const BlockNr first = g_.first_block(group) + std::uint64_t{index} * g_.cluster_ratio;
    for (std::uint32_t i = 0; i < g_.cluster_ratio; ++i)
        if (g_.valid_block(first + i) && fs_.allocator.is_system_block(first + i)) return true;
    return false;
}

void Checker::check_bitmaps() {
    std::uint64_t free_total = 0;
    std::vector<std::byte> used(g_.block_size);
    for (std::uint32_t n = 0; n < g_.group_count; ++n) {
        const GroupNr group(n);
        Result<format::GroupDescView> d = descriptor(group);
        if (!d) continue;
        const std::string where = fmt::format("group {}", n);
        const std::uint32_t clusters = g_.clusters_in_group(group), said = d->free_clusters();
        const bool uninit = g_.descriptor_checksum != format::DescriptorChecksum::none &&
                            (d->flags() & format::group_flag::block_uninit);
        // What is in use, and what is marked.
        std::fill(used.begin(), used.end(), std::byte{0});
        used_.put_bits(n, used);
        std::uint64_t free = clusters, leaked = 0, missing = 0;
        if (uninit) {
            // A bitmap that was never written stands for the file system's own blocks.
            for (std::uint32_t i = 0; used_.any_in(n) && i < clusters; ++i) {
                if (!bit_of(used, i)) continue;
                ++report_.used_clusters;
                if (is_system_cluster(group, i)) --free;
                else ++missing;
            }
        } else {
            Result<BufferRef> bitmap = fs_.buffers.read(d->block_bitmap(), "block bitmap");
            if (!bitmap) {
                problem(where, "{}", bitmap.error().what);
                continue;
            }
            const ConstBytes bits = std::as_const(**bitmap).data();
            if (!d->block_bitmap_ok(g_, bits)) problem(where, "block bitmap: bad checksum");
            if (!padded(bits, clusters)) problem(where, "block bitmap: padding after its last cluster is not set");
            for (std::uint32_t at = 0; at < clusters; at += 64) {
                const std::uint32_t left = clusters - at;
                const std::uint64_t stands = left < 64 ? (std::uint64_t{1} << left) - 1 : ~std::uint64_t{0};
                const std::uint64_t has = view_as<Le64>(ConstBytes(used), at / 8).get() & stands;
                const std::uint64_t marked = view_as<Le64>(bits, at / 8).get() & stands;
                report_.used_clusters += static_cast<unsigned>(std::popcount(has));
                free -= static_cast<unsigned>(std::popcount(marked));
                leaked += static_cast<unsigned>(std::popcount(marked & ~has));
                missing += static_cast<unsigned>(std::popcount(has & ~marked));
            }
        }
        free_total += free;
        // Those of damaged inodes are not known.
        if (leaked && damaged_.empty())
            problem(where, "block bitmap: {} marked, but without an owner", counted(leaked, "cluster"));
        if (missing)
            problem(where, "block bitmap: {} in use and not marked{}", counted(missing, "cluster"),
                    uninit ? " (it says BLOCK_UNINIT)" : "");
        if (free != said) problem(where, "the descriptor says {}, expected {}", counted(said, "free cluster"), free);
    }
    // Between a mount and its end the superblock's counters are old, even where the log has nothing to replay; and what
    // opening read-only recovered in memory, they do not know.
    if (volume_.was_not_unmounted() || volume_.orphans_processed() != 0 || volume_.options().backup_super) return;
    if (super_.free_blocks() != free_total * g_.cluster_ratio)
        problem("superblock", "s_free_blocks_count is {}, {} are free", super_.free_blocks(),
                free_total * g_.cluster_ratio);
    if (super_.free_inodes_count != free_inodes_)
        problem("superblock", "s_free_inodes_count is {}, {} are free", super_.free_inodes_count.get(), free_inodes_);
}

}  // namespace uext4
