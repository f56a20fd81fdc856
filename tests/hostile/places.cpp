#include "tests/hostile/places.h"

#include "format/directory.h"
#include "format/extent.h"
#include "format/group_desc.h"
#include "format/inode.h"
#include "format/orphan.h"
#include "format/xattr.h"
#include "tests/hostile/log_places.h"
#include "tests/hostile/logged_blocks.h"

#include <array>
#include <mutex>

namespace uext4::hostile {

namespace {

using format::FieldDescription;
using format::Structure;

class Finder {
public:
    explicit Finder(SeedKind kind) : device_(seed(kind).copy()) {
        if (has_log_to_replay(kind)) {
            logged_ = LoggedBlocks::find(device_);
            logged_->bring_home(*device_);
        }
        // What fast commits say is made of the structures as they are; it has no place of its own before.
        auto mounted = mount_seed(device_, kind == SeedKind::fast_commits ? "ro,norecovery" : "ro");
        if (!mounted) {
            fmt::print(stderr, "places: {}\n", mounted.error().what);
            std::abort();
        }
        fs_ = std::move(*mounted);
        g_ = fs_->volume().geometry();
        block_.resize(g_.block_size);
    }

    std::vector<Place> find() {
        add("superblock", Structure::superblock, format::super_offset,
            {"superblock", "s_", "ext2", "features", "journal", "mmp"}, [](BlockDevice& d) {
                format::SuperBlock super;
                (void)d.read(format::super_offset, std::as_writable_bytes(std::span(&super, 1)));
                super.checksum = 0u;
                format::SuperBlock copy = super;
                copy.feature_ro_compat = copy.feature_ro_compat | format::ro_compat::metadata_csum;
                format::set_super_checksum(copy);
                super.checksum = copy.checksum;
                (void)d.write(format::super_offset, bytes_of(super));
            });
        for (std::uint32_t n = 0; n < g_.group_count; n += std::max(1u, g_.group_count - 1)) group(n);
        if (g_.mmp_block) {
            const std::uint64_t at = g_.mmp_block * g_.block_size;
            const auto g = g_;
            add("mmp", Structure::mmp, at, {"mmp block"}, [at, g](BlockDevice& d) {
                format::MmpBlock block;
                (void)d.read(at, std::as_writable_bytes(std::span(&block, 1)));
                format::set_mmp_checksum(g, block);
                (void)d.write(at, bytes_of(block));
            });
        }
        for (std::uint64_t n : {std::uint64_t{2}, std::uint64_t{g_.journal_inode}})
            if (n) of_inode(InodeNr(n));
        for (const char* path : {"/plain", "/pieces", "/far", "/linear", "/linear/file1", "/linear/below", "/hashed",
                                 "/short_link", "/long_link", "/device", "/attributes", "/inherits", "/late", "/grows",
                                 "/folder", "/secret", "/folded"}) {
            auto inode = fs_->resolve(path, Credentials::root(), false);
            if (inode) of_inode((*inode)->number());
        }
        if (auto secret = fs_->resolve("/secret", Credentials::root())) entries_of(**secret);
        if (g_.orphan_file_inode) orphan_file();
        for (Place& place : places_) place.home = place.at;
        if (logged_) move_into_log();
        if (g_.journal_inode) add_log_places(*fs_, *device_, logged_, places_);
        return std::move(places_);
    }

private:
    Place& add(std::string name, std::vector<FieldDescription> fields, std::uint64_t at, std::vector<std::string> words,
               std::function<void(BlockDevice&)> seal) {
        const bool sealed =
            g_.metadata_csum() || (name == "group_desc" && g_.has_ro_compat(format::ro_compat::gdt_csum));
        Place place;
        place.has_own_sum = (sealed && seal) || name.ends_with("_tail");
        place.structure = std::move(name);
        place.fields = std::move(fields);
        place.at = at;
        place.words = std::move(words);
        if (sealed) place.seal = std::move(seal);
        places_.push_back(std::move(place));
        return places_.back();
    }
    Place& add(const std::string& name, Structure structure, std::uint64_t at, std::vector<std::string> words,
               std::function<void(BlockDevice&)> seal) {
        const auto fields = format::fields_of(structure);
        return add(name, std::vector<FieldDescription>(fields.begin(), fields.end()), at, std::move(words),
                   std::move(seal));
    }
    // What has names that nobody knows here.
    void entries_of(Inode& directory) {
        std::vector<InodeNr> numbers;
        (void)fs_->read_directory(directory, 0, [&](const DirectoryEntry& entry) {
            if (entry.name != "." && entry.name != "..") numbers.push_back(entry.inode);
            return true;
        });
        for (const InodeNr number : numbers) of_inode(number);
    }
    // What the log has is changed there, and what is not may be summed up by something that is. What recovery reads
    // before it knows of the log stays a place at home as well.
    void move_into_log() {
        std::vector<Place> moved;
        for (Place& place : places_) {
            const LoggedBlocks::Image* image = logged_->of_home(place.home / g_.block_size);
            const bool finds_log = place.structure == "superblock" || place.structure == "group_desc" ||
                                   place.words.front() == fmt::format("inode {}", g_.journal_inode);
            if (image && finds_log) {
                moved.push_back(place);
                moved.back().replayed = true;
            }
            place.seal = seal_of_logged(image, place.seal);
            if (image) {
                place.at = logged_->byte_in_log(place.home);
                if (logged_->has_sums())
                    place.log_seal = [logged = logged_, image](BlockDevice& d) { logged->seal(d, *image); };
            }
            moved.push_back(std::move(place));
        }
        places_ = std::move(moved);
    }
    std::function<void(BlockDevice&)> seal_of_logged(const LoggedBlocks::Image* image,
                                                     std::function<void(BlockDevice&)> own) {
        const bool sums_image = image && logged_->has_sums();
        if (!own && !sums_image) return nullptr;
        return [logged = logged_, image, own = std::move(own)](BlockDevice& d) {
            ReplayedView view(d, *logged);
            if (own) own(view);
            view.seal();
            if (image) logged->seal(d, *image);
        };
    }

    ConstBytes load(std::uint64_t block) {
        (void)device_->read(block * g_.block_size, block_);
        return block_;
    }
    // Changes a block in place.
    template <class Change>
    auto on_block(std::uint64_t block, Change change) {
        return [block, size = g_.block_size, change](BlockDevice& d) {
            std::vector<std::byte> bytes(size);
            (void)d.read(block * size, bytes);
            change(Bytes(bytes));
            (void)d.write(block * size, bytes);
        };
    }

    void group(std::uint32_t n) {
        const auto place = g_.descriptor_place(GroupNr(n));
        const auto g = g_;
        auto seal = on_block(place.block.value, [g, n, place](Bytes block) {
            format::GroupDescView(block.subspan(place.offset), g.desc_size).set_checksum(g, GroupNr(n));
        });
        const auto fields = format::fields_of(Structure::group_desc);
        std::vector<FieldDescription> some;
        for (const auto& f : fields)
            if (f.offset + f.size <= g_.desc_size) some.push_back(f);
        const std::string words = fmt::format("group {}", n);
        add("group_desc", some, place.block.value * g_.block_size + place.offset, {words, "group descriptors"}, seal);
        load(place.block.value);
        const format::GroupDescView view(Bytes(block_).subspan(place.offset), g_.desc_size);
        const std::uint64_t blocks = view.block_bitmap().value, inodes = view.inode_bitmap().value;
        const std::vector<FieldDescription> bits{{"bits[0]", 0, 4}, {"bits[4]", 4, 4}, {"bits[60]", 60, 4}};
        auto seal_bitmaps = [g, n, place, blocks, inodes](BlockDevice& d) {
            std::vector<std::byte> descriptor(g.block_size), bitmap(g.block_size);
            (void)d.read(place.block.value * g.block_size, descriptor);
            format::GroupDescView v(Bytes(descriptor).subspan(place.offset), g.desc_size);
            (void)d.read(blocks * g.block_size, bitmap);
            v.sum_block_bitmap(g, bitmap);
            (void)d.read(inodes * g.block_size, bitmap);
            v.sum_inode_bitmap(g, bitmap);
            v.set_checksum(g, GroupNr(n));
            (void)d.write(place.block.value * g.block_size, descriptor);
        };
        if (!(view.flags() & format::group_flag::block_uninit))
            add("block_bitmap", bits, blocks * g_.block_size, {words}, seal_bitmaps);
        if (!(view.flags() & format::group_flag::inode_uninit))
            add("inode_bitmap", {{"bits[0]", 0, 4}, {"bits[4]", 4, 4}}, inodes * g_.block_size, {words, "inode"},
                seal_bitmaps);
    }

    std::uint64_t inode_at(InodeNr n) {
        const auto place = g_.descriptor_place(g_.group_of(n));
        load(place.block.value);
        const format::GroupDescView view(Bytes(block_).subspan(place.offset), g_.desc_size);
        return view.inode_table().value * g_.block_size + std::uint64_t{g_.index_in_group(n)} * g_.inode_size;
    }
    std::function<void(BlockDevice&)> inode_seal(InodeNr n, std::uint64_t at) {
        const auto g = g_;
        return [g, n, at](BlockDevice& d) {
            std::vector<std::byte> raw(g.inode_size);
            (void)d.read(at, raw);
            format::set_inode_checksum(g, n, raw);
            (void)d.write(at, raw);
        };
    }

    void of_inode(InodeNr n) {
        InodeRef inode = *fs_->inode(n);
        MutexLock map(inode->map_lock);
        const std::uint64_t at = inode_at(n);
        std::vector<std::string> words{fmt::format("inode {}", n), fmt::format("directory {}", n)};
        // What mounting needs is named for what it is.
        if (n.value == g_.journal_inode) words.push_back("journal");
        const auto seal = inode_seal(n, at);
        std::vector<FieldDescription> some;
        for (const auto& f : format::fields_of(Structure::inode))
            if (f.offset + f.size <= g_.inode_size && (f.offset < 128 || g_.inode_size > 128)) some.push_back(f);
        add("inode", some, at, words, seal);
        const std::uint64_t root = at + offsetof(format::InodeDisk, block);
        const std::uint32_t node_seed = format::inode_seed(g_, n, inode->generation());
        const auto g = g_;
        if (inode->is_inline()) {
            if (inode->is_directory()) {
                add("inline_parent", {{"parent", 0, 4}}, root, words, seal);
                add("dir_entry", Structure::dir_entry, root + 4, words, seal);
            }
        } else if (inode->uses_extents() && (inode->is_regular() || inode->is_directory())) {
            extent_node(root, 60, words, seal);
            unsigned blocks = 0;
            (void)inode->map().for_each_tree_block([&](BlockNr b) {
                if (++blocks > 3) return false;
                load(b.value);
                const auto max = view_as<format::ExtentHeader>(ConstBytes(block_)).max.get();
                const auto node_seal = on_block(
                    b.value, [g, node_seed](Bytes block) { format::set_extent_checksum(g, node_seed, block); });
                extent_node(b.value * g_.block_size, g_.block_size, words, node_seal);
                if (g_.metadata_csum())
                    add("extent_tail", Structure::extent_tail, b.value * g_.block_size + 12 + max * 12u, words,
                        nullptr);
                return true;
            });
        } else if (!inode->uses_extents() && (inode->is_regular() || inode->is_directory())) {
            std::vector<FieldDescription> pointers{{"i_block[0]", 0, 4},
                                                   {"i_block[1]", 4, 4},
                                                   {"i_block[12]", 48, 4},
                                                   {"i_block[13]", 52, 4},
                                                   {"i_block[14]", 56, 4}};
            add("block_pointers", pointers, root, words, seal);
            unsigned blocks = 0;
            (void)inode->map().for_each_tree_block([&](BlockNr b) {
                if (++blocks > 2) return false;
                add("indirect_block", {{"pointer[0]", 0, 4}, {"pointer[1]", 4, 4}, {"pointer[100]", 400, 4}},
                    b.value * g_.block_size, words, nullptr);
                return true;
            });
        }
        if (inode->is_directory() && !inode->is_inline()) directory_blocks(*inode, words, node_seed);
        attributes(*inode, at, words, seal);
    }

    void extent_node(std::uint64_t at, std::uint32_t bytes, const std::vector<std::string>& words,
                     const std::function<void(BlockDevice&)>& seal) {
        std::vector<std::byte> node(bytes);
        (void)device_->read(at, node);
        const auto& header = view_as<format::ExtentHeader>(ConstBytes(node));
        if (header.magic != format::extent_magic) return;
        add("extent_header", Structure::extent_header, at, words, seal);
        for (std::uint32_t i = 0; i < std::min<std::uint32_t>(2, header.entries); ++i)
            add(header.depth ? "extent_index" : "extent_leaf",
                header.depth ? Structure::extent_index : Structure::extent_leaf, at + 12 + i * 12, words, seal);
    }

    void directory_blocks(Inode& inode, const std::vector<std::string>& words, std::uint32_t node_seed) {
        const auto g = g_;
        const bool hashed = inode.has_flag(format::inode_flag::index);
        unsigned leaves = 0, nodes = 0;
        std::vector<MappedRun> runs;
        (void)inode.map().for_each(LogicalBlock(0), [&](const MappedRun& run) {
            runs.push_back(run);
            return true;
        });
        for (const MappedRun& run : runs) {
            for (std::uint64_t i = 0; i < run.count; ++i) {
                const std::uint64_t b = run.physical.value + i, at = b * g_.block_size;
                load(b);
                const bool first = run.logical.value + i == 0;
                const auto& e = view_as<format::DirEntryDisk>(ConstBytes(block_));
                const bool node = hashed && !first && e.inode == 0u && e.rec_len == g_.block_size;
                if (hashed && (first || node)) {
                    if (node && ++nodes > 1) continue;
                    const std::uint32_t pairs = first ? 32 : 8;
                    const auto seal = on_block(b, [g, node_seed, pairs](Bytes block) {
                        format::set_dir_index_checksum(g, node_seed, block, pairs);
                    });
                    add(first ? "index_root" : "index_node", first ? Structure::index_root : Structure::index_node, at,
                        words, seal);
                    add("index_pair", Structure::index_pair, at + pairs + 8, words, seal);
                    if (g_.metadata_csum())
                        add("index_tail", Structure::index_tail, at + g_.block_size - 8, words, nullptr);
                } else if (++leaves <= 2) {
                    const auto seal = on_block(
                        b, [g, node_seed](Bytes block) { format::set_dir_leaf_checksum(g, node_seed, block); });
                    std::uint32_t offset = 0;
                    for (int n = 0; n < 4 && offset + 12 < g_.block_size; ++n) {
                        add("dir_entry", Structure::dir_entry, at + offset, words, seal);
                        offset += view_as<format::DirEntryDisk>(ConstBytes(block_), offset).rec_len;
                    }
                    if (g_.metadata_csum())
                        add("dir_tail", Structure::dir_tail, at + g_.block_size - 12, words, nullptr);
                }
            }
        }
    }

    void attributes(Inode& inode, std::uint64_t at, const std::vector<std::string>& words,
                    const std::function<void(BlockDevice&)>& seal) {
        const ConstBytes raw = inode.raw();
        if (raw.size() > 128) {
            const std::uint32_t header = 128u + view_as<format::InodeDisk>(raw.first(160)).extra_isize;
            if (header + 4 < raw.size() && view_as<Le32>(raw, header) == format::xattr_magic) {
                add("xattr_inode_header", Structure::xattr_inode_header, at + header, words, seal);
                entries(raw.subspan(header + 4), 0, at + header + 4, words, seal);
            }
        }
        if (const BlockNr b = inode.xattr_block()) {
            const auto g = g_;
            const auto block_seal =
                on_block(b.value, [g, b](Bytes block) { format::set_xattr_block_checksum(g, b, block); });
            std::vector<std::string> more = words;
            more.push_back(fmt::format("attribute block {}", b));
            load(b.value);
            add("xattr_block_header", Structure::xattr_block_header, b.value * g_.block_size, more, block_seal);
            entries(block_, 32, b.value * g_.block_size, more, block_seal);
        }
    }

    // `area` starts where value offsets count from; the first entry lies at `first` in it.
    void entries(ConstBytes area, std::uint32_t first, std::uint64_t at, const std::vector<std::string>& words,
                 const std::function<void(BlockDevice&)>& seal) {
        for (std::uint32_t offset = first; offset + 16 <= area.size();) {
            const auto& e = view_as<format::XattrEntry>(area, offset);
            if (view_as<Le32>(area, offset) == 0u) break;
            add("xattr_entry", Structure::xattr_entry, at + offset, words, seal);
            const bool acl = e.name_index == 2 || e.name_index == 3;
            if (acl && e.value_inode == 0u && e.value_offset + 8u <= area.size())
                add("acl",
                    {{"a_version", 0, 4}, {"e_tag", 4, 2}, {"e_perm", 6, 2}, {"e_tag[1]", 8, 2}, {"e_id[1]", 12, 4}},
                    at + e.value_offset, words, seal);
            offset += static_cast<std::uint32_t>(round_up(16u + e.name_len, 4));
        }
    }

    void orphan_file() {
        InodeRef inode = *fs_->inode(InodeNr(g_.orphan_file_inode));
        MutexLock map(inode->map_lock);
        const auto run = inode->map().lookup(LogicalBlock(0), 1);
        const std::uint32_t node_seed = format::inode_seed(g_, inode->number(), inode->generation());
        const std::uint64_t at = run->physical.value * g_.block_size;
        const auto g = g_;
        const BlockNr number = run->physical;
        const auto seal = on_block(number.value, [g, node_seed, number](Bytes block) {
            format::set_orphan_checksum(g, node_seed, number, block);
        });
        add("orphan_entry", {{"entry[0]", 0, 4}, {"entry[1]", 4, 4}, {"entry[5]", 20, 4}}, at, {"orphan"}, seal);
        add("orphan_tail", Structure::orphan_tail, at + g_.block_size - 8, {"orphan"}, seal);
    }

    std::shared_ptr<MemoryDevice> device_;  // with what is in its log at home
    std::shared_ptr<const LoggedBlocks> logged_;
    std::unique_ptr<FileSystem> fs_;
    format::Geometry g_;
    std::vector<std::byte> block_;
    std::vector<Place> places_;
};

}  // namespace

const std::vector<Place>& places_of(SeedKind kind) {
    static std::array<std::vector<Place>, seed_kind_count> all;
    static std::array<std::once_flag, seed_kind_count> made;
    const auto index = static_cast<std::size_t>(kind);
    std::call_once(made[index], [&] { all[index] = Finder(kind).find(); });
    return all[index];
}

std::uint64_t read_field(MemoryDevice& device, const Place& place, const FieldDescription& field) {
    std::byte raw[8]{};
    const std::uint32_t size = std::min(field.size, 8u);
    (void)device.read(place.at + field.offset, Bytes(raw, size));
    std::uint64_t value = 0;
    for (std::uint32_t i = 0; i < size; ++i) {
        const std::uint32_t shift = 8 * (field.kind == format::FieldKind::big ? size - 1 - i : i);
        value |= std::to_integer<std::uint64_t>(raw[i]) << shift;
    }
    return value;
}

void write_field(MemoryDevice& device, const Place& place, const FieldDescription& field, std::uint64_t value) {
    std::byte raw[8]{};
    const std::uint32_t size = std::min(field.size, 8u);
    for (std::uint32_t i = 0; i < size; ++i) {
        const std::uint32_t shift = 8 * (field.kind == format::FieldKind::big ? size - 1 - i : i);
        raw[i] = static_cast<std::byte>(value >> shift);
    }
    write_bytes(device, place.at + field.offset, ConstBytes(raw, size));
}

void write_bytes(MemoryDevice& device, std::uint64_t at, ConstBytes bytes) { (void)device.write(at, bytes); }

}  // namespace uext4::hostile
