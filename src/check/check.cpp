#include "check/check.h"

#include "format/group_desc.h"
#include "format/orphan.h"
#include "inode/body_attributes.h"
#include "inode/super_access.h"
#include "inode/xattr_block.h"

#include <map>
#include <set>
#include <unordered_map>

namespace uext4 {

namespace {

class Checker {
public:
    explicit Checker(Volume& volume) : volume_(volume), fs_(volume.fs()), g_(volume.geometry()) {}

    Result<CheckReport> run() {
        const std::uint64_t clusters = divide_up(g_.blocks_count, g_.cluster_ratio) + 1;
        used_.resize(clusters);
        mark_system();
        check_supers();
        for (std::uint32_t n = 0; n < g_.group_count; ++n) check_group_inodes(GroupNr(n));
        walk();
        check_links();
        check_bitmaps();
        return std::move(report_);
    }

private:
    template <class... Args>
    void problem(std::string where, fmt::format_string<Args...> text, Args&&... args) {
        if (report_.problems.size() == most_problems) return;
        if (report_.problems.size() + 1 == most_problems)
            report_.problems.push_back({"check", "more problems than are listed"});
        else report_.problems.push_back({std::move(where), fmt::format(text, std::forward<Args>(args)...)});
    }

    // The one that is used was good enough to open it. Where that is a backup, what about the first?
    void check_supers() {
        if (Result<format::SuperBlock> used = read_super(fs_)) super_ = *used;
        else problem("superblock", "{}", used.error().what);
        if (!volume_.options().backup_super) return;
        format::SuperBlock first;
        const Result<void> read = fs_.device.read(format::super_offset, std::as_writable_bytes(std::span(&first, 1)));
        if (!read) problem("superblock", "{}", read.error().what);
        else if (first.magic != format::super_magic) problem("superblock", "s_magic is {:#06x}", first.magic.get());
        else if (!format::super_checksum_ok(first)) problem("superblock", "bad checksum");
    }

    std::uint64_t cluster_of(BlockNr b) const {
        return g_.group_of(b).value * g_.clusters_per_group +
               (b.value - g_.first_block(g_.group_of(b)).value) / g_.cluster_ratio;
    }

    // `owner` 0: the file system itself. With clusters, one inode may name several blocks of one.
    void use(BlockNr first, std::uint64_t count, std::uint64_t owner) {
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
            if (used_[c] && owner != 0 && !(g_.cluster_ratio > 1 && mine_.contains(c))) {
                problem(fmt::format("inode {}", owner), "block {} belongs to something else as well", b);
            }
            used_[c] = true;
            if (g_.cluster_ratio > 1 && owner != 0) mine_.insert(c);
        }
    }

    // A bitmap or table. (A cluster may hold several of them.)
    void use_for_group(std::uint32_t group, BlockNr first, std::uint64_t count) {
        for (std::uint64_t i = 0; g_.cluster_ratio == 1 && i < count; ++i) {
            if (!used_[cluster_of(first + i)]) continue;
            problem(fmt::format("group {}", group), "its structure at block {} overlaps another at block {}", first,
                    first + i);
            break;
        }
        use(first, count, 0);
    }

    Result<format::GroupDescView> descriptor(GroupNr n) {
        const auto place = g_.descriptor_place(n);
        keep_ = TRY(fs_.buffers.read(place.block, "group descriptors"));
        return format::GroupDescView(keep_->data().subspan(place.offset, g_.desc_size), g_.desc_size);
    }

    void mark_system() {
        if (g_.block_size == 1024 && g_.first_data_block == 0) use(BlockNr(0), 1, 0);
        for (std::uint32_t n = 0; n < g_.group_count; ++n) {
            const GroupNr group(n);
            std::uint64_t base = g_.base_meta_blocks(group);
            if (n == 0 && g_.block_size == 1024 && g_.first_data_block == 0) ++base;
            use(g_.first_block(group), base, 0);
            Result<format::GroupDescView> d = descriptor(group);
            if (!d) {
                problem(fmt::format("group {}", n), "{}", d.error().what);
                continue;
            }
            if (!d->checksum_ok(g_, group)) problem(fmt::format("group {}", n), "descriptor: bad checksum");
            for (const auto& [b, count] : {std::pair(d->block_bitmap(), 1u), std::pair(d->inode_bitmap(), 1u),
                                           std::pair(d->inode_table(), g_.inode_table_blocks)}) {
                if (g_.valid_block(b) && g_.valid_block(b + (count - 1))) use_for_group(n, b, count);
                else problem(fmt::format("group {}", n), "a structure lies at block {}", b);
            }
        }
        if (g_.mmp_block && g_.valid_block(BlockNr(g_.mmp_block))) use(BlockNr(g_.mmp_block), 1, 0);
    }

    void check_group_inodes(GroupNr n) {
        Result<format::GroupDescView> d = descriptor(n);
        if (!d) return;
        const std::string where = fmt::format("group {}", n);
        const bool sums = g_.descriptor_checksum != format::DescriptorChecksum::none;
        const bool empty = sums && (d->flags() & format::group_flag::inode_uninit);
        const std::uint32_t said = d->free_inodes(), dirs_said = d->used_dirs();
        std::uint32_t free = g_.inodes_per_group, dirs = 0;
        if (!empty) {
            Result<BufferRef> bitmap = fs_.buffers.read(d->inode_bitmap(), "inode bitmap");
            if (!bitmap) return problem(where, "{}", bitmap.error().what);
            if (!d->inode_bitmap_ok(g_, (*bitmap)->data())) problem(where, "inode bitmap: bad checksum");
            for (std::uint32_t i = 0; i < g_.inodes_per_group; ++i) {
                if (!(std::to_integer<unsigned>((*bitmap)->data()[i / 8]) >> (i % 8) & 1)) continue;
                --free;
                if (check_inode(InodeNr(n.value * g_.inodes_per_group + i + 1))) ++dirs;
            }
        }
        if (free != said) problem(where, "{} inodes are free, the descriptor says {}", free, said);
        if (dirs != dirs_said) problem(where, "{} directories, the descriptor says {}", dirs, dirs_said);
    }

    // What no place in the file depends on.
    void check_plain_fields(const Inode& inode, bool reserved, const std::string& where) {
        const auto& disk = inode.disk();
        if (!reserved && inode.links() != 0 && disk.dtime != 0)
            problem(where, "i_dtime is {}, though it has a name", disk.dtime.get());
        const bool without_contents = !reserved && !inode.is_regular() && !inode.is_directory() && !inode.is_symlink();
        if (without_contents && inode.disk_size() != 0)
            problem(where, "i_size is {}, for a device, fifo or socket", inode.disk_size());
        if (inode.is_regular() && inode.disk_size() > 0x7FFFFFFF &&
            !super_.has_ro_compat(format::ro_compat::large_file))
            problem(where, "i_size is {}, but the superblock lacks large_file", inode.disk_size());
        if (inode.xattr_block() && !super_.has_compat(format::compat::ext_attr))
            problem(where, "i_file_acl is {}, but the superblock lacks ext_attr", inode.xattr_block());
    }

    // True for a directory.
    bool check_inode(InodeNr ino) {
        const std::string where = fmt::format("inode {}", ino);
        Result<InodeRef> found = volume_.inodes().get(ino, true);
        const bool reserved = ino.value < g_.first_inode;
        if (!found) {
            if (!reserved || found.error().code == EUCLEAN) problem(where, "{}", found.error().what);
            return false;
        }
        Inode& inode = **found;
        ++report_.inodes;
        if (inode.links() == 0 && !reserved) problem(where, "in use without a link");
        check_plain_fields(inode, reserved, where);
        links_[ino.value] = inode.links();
        mine_.clear();
        std::uint64_t blocks = 0, last_written = 0;
        MutexLock map(inode.map_lock);
        const bool has_map =
            !inode.is_inline() &&
            (inode.is_regular() || inode.is_directory() || (inode.is_symlink() && inode.size() >= 60) || reserved) &&
            ino.value != format::special_inode::bad_blocks && ino.value != format::special_inode::resize;
        if (ino.value == format::special_inode::resize && g_.has_compat(format::compat::resize_inode)) {
            // Its double indirect block is its own; what that names are the reserved descriptor blocks, marked already.
            const BlockNr own(view_as<Le32>(ConstBytes(inode.map_root()), 13 * 4).get());
            if (own && g_.valid_block(own)) use(own, 1, ino.value);
        }
        if (has_map) {
            Result<void> r = inode.map().for_each(LogicalBlock(0), [&](const MappedRun& run) {
                blocks += run.count;
                if (!run.unwritten) last_written = run.logical.value + run.count - 1;
                use(run.physical, run.count, ino.value);
                return true;
            });
            // A tree of hashes lies past the end on purpose.
            if (inode.is_regular() && !reserved && inode.uses_extents() &&
                !inode.has_flag(format::inode_flag::verity) && inode.disk_size() < last_written * g_.block_size)
                problem(where, "i_size is {}, block {} of it has contents", inode.disk_size(), last_written);
            if (r)
                r = inode.map().for_each_tree_block([&](BlockNr b) {
                    ++blocks;
                    use(b, 1, ino.value);
                    return true;
                });
            if (!r) problem(where, "{}", r.error().what);
        }
        Result<std::vector<format::XattrItem>> body = parse_body(inode);
        if (!body) problem(where, "{}", body.error().what);
        // Values in inodes of their own are charged to whoever has the attribute.
        const auto charge = [&](const auto& items) {
            for (const auto& item : items)
                if (item.value_inode) blocks += divide_up(std::uint64_t{item.value_size}, std::uint64_t{g_.block_size});
        };
        if (body) charge(*body);
        if (inode.xattr_block()) {
            Result<std::vector<format::XattrToStore>> items = read_xattr_block(inode);
            if (items) charge(*items);
            if (!items) {
                problem(where, "{}", items.error().what);
            } else if (shared_.insert(inode.xattr_block().value).second) {
                use(inode.xattr_block(), 1, ino.value);
            }
            ++blocks;
        }
        const std::uint64_t sectors = (g_.cluster_ratio > 1 ? 0 : blocks) * (g_.block_size / 512);
        if (g_.cluster_ratio == 1 && !reserved && sectors != inode.block_count_512())
            problem(where, "i_blocks is {}, it has {}", inode.block_count_512(), sectors);
        return inode.is_directory();
    }

    void walk() {
        std::vector<std::pair<InodeNr, InodeNr>> todo{
            {InodeNr(format::special_inode::root), InodeNr(format::special_inode::root)}};
        std::set<std::uint64_t> seen{format::special_inode::root};
        while (!todo.empty()) {
            const auto [number, parent] = todo.back();
            todo.pop_back();
            ++report_.directories;
            const std::string where = fmt::format("directory {}", number);
            Result<InodeRef> dir = volume_.inodes().get(number, true);
            if (!dir) {
                problem(where, "{}", dir.error().what);
                continue;
            }
            std::vector<std::pair<std::string, InodeNr>> entries;
            std::vector<std::uint8_t> types;
            Result<void> r = volume_.names().read(**dir, 0, [&](const DirectoryEntry& e) {
                entries.emplace_back(std::string(e.name), e.inode);
                types.push_back(e.type);
                return true;
            });
            if (!r) problem(where, "{}", r.error().what);
            for (std::size_t i = 0; i < entries.size(); ++i) {
                const auto& [name, child] = entries[i];
                ++named_[child.value];
                if (name == ".") {
                    if (child != number) problem(where, "'.' names inode {}", child);
                    continue;
                }
                if (name == "..") {
                    if (child != parent) problem(where, "'..' names inode {}, not {}", child, parent);
                    continue;
                }
                if (!links_.contains(child.value)) {
                    problem(where, "'{}' names inode {}, which is not in use", name, child);
                    continue;
                }
                Result<InodeRef> inode = volume_.inodes().get(child, true);
                if (!inode) continue;
                const std::uint8_t type =
                    format::dt_of_file_type(static_cast<std::uint8_t>(format::file_type_of_mode((*inode)->mode())));
                if (g_.has_filetype() && types[i] != type)
                    problem(where, "'{}' has type {}, its inode {}", name, types[i], type);
                if (!(*inode)->is_directory()) continue;
                if (seen.insert(child.value).second) todo.emplace_back(child, number);
                else problem(where, "'{}': directory {} is reached twice", name, child);
            }
        }
    }

    void check_links() {
        for (const auto& [number, links] : links_) {
            if (number < g_.first_inode && number != format::special_inode::root) continue;
            if (number == g_.orphan_file_inode || number == super_.prj_quota_inum) continue;
            Result<InodeRef> inode = volume_.inodes().get(InodeNr(number), true);
            if (!inode || (*inode)->has_flag(format::inode_flag::ea_inode)) continue;
            const std::uint64_t named = named_.contains(number) ? named_[number] : 0;
            if ((*inode)->is_directory() && links == 1) continue;  // more than can be counted
            if (named == 0 && links == 0) continue;
            if (named == 0) problem(fmt::format("inode {}", number), "in use, but no directory names it");
            else if (named != links)
                problem(fmt::format("inode {}", number), "i_links_count is {}, {} entries name it", links, named);
        }
    }

    void check_bitmaps() {
        std::uint64_t free_total = 0;
        for (std::uint32_t n = 0; n < g_.group_count; ++n) {
            const GroupNr group(n);
            Result<format::GroupDescView> d = descriptor(group);
            if (!d) continue;
            const std::string where = fmt::format("group {}", n);
            const std::uint32_t clusters = g_.clusters_in_group(group), said = d->free_clusters();
            const bool uninit = g_.descriptor_checksum != format::DescriptorChecksum::none &&
                                (d->flags() & format::group_flag::block_uninit);
            Result<BufferRef> bitmap = fs_.buffers.read(d->block_bitmap(), "block bitmap");
            if (!bitmap) {
                problem(where, "{}", bitmap.error().what);
                continue;
            }
            if (!uninit && !d->block_bitmap_ok(g_, (*bitmap)->data())) problem(where, "block bitmap: bad checksum");
            std::uint64_t free = 0, leaked = 0, missing = 0;
            for (std::uint32_t i = 0; i < clusters; ++i) {
                const bool used = used_[std::uint64_t{n} * g_.clusters_per_group + i];
                const bool marked =
                    uninit ? used : (std::to_integer<unsigned>((*bitmap)->data()[i / 8]) >> (i % 8) & 1) != 0;
                if (!marked) ++free;
                if (marked && !used) ++leaked;
                if (!marked && used) ++missing;
                report_.used_clusters += used;
            }
            free_total += free;
            if (leaked) problem(where, "block bitmap: {} clusters are marked and belong to nobody", leaked);
            if (missing) problem(where, "block bitmap: {} clusters are in use and not marked", missing);
            if (free != said) problem(where, "{} clusters are free, the descriptor says {}", free, said);
        }
        // What opening read-only recovered in memory, the superblock's counters do not know.
        const bool as_closed = !volume_.recovery().needed && volume_.orphans_finished() == 0;
        if (as_closed && !volume_.options().backup_super && !super_.has_incompat(format::incompat::recover) &&
            super_.free_blocks() != free_total * g_.cluster_ratio)
            problem("superblock", "s_free_blocks_count is {}, {} are free", super_.free_blocks(),
                    free_total * g_.cluster_ratio);
    }

    Volume& volume_;
    FsContext& fs_;
    const format::Geometry& g_;
    format::SuperBlock super_{};
    CheckReport report_;
    BufferRef keep_;
    std::vector<bool> used_;
    std::set<std::uint64_t> mine_, shared_;
    std::unordered_map<std::uint64_t, std::uint32_t> links_;
    std::unordered_map<std::uint64_t, std::uint64_t> named_;
};

}  // namespace

Result<CheckReport> check(Volume& volume) { return Checker(volume).run(); }

}  // namespace uext4
