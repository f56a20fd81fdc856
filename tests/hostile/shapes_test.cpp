// Damage that takes more than one field: structures that contain themselves, images cut short, superblocks that claim
// the absurd, logs that lie. Each ends with an answer, in bounded time and memory.
#include "format/directory.h"
#include "format/extent.h"
#include "format/group_desc.h"
#include "format/journal.h"
#include "format/orphan.h"
#include "tests/hostile/batches.h"
#include "tests/hostile/places.h"
#include "tests/hostile/visit.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace uext4::hostile {
namespace {

struct Shape {
    std::string name;
    std::shared_ptr<MemoryDevice> device;
    std::vector<std::string> words;  // one of them is said; none: only an end is asked for
};

// Runs all of them as cases of batches.
void judge(const std::vector<Shape>& shapes) {
    const auto failures = run_in_batches(
        shapes.size(), [&](std::size_t i) { return shapes[i].name; },
        [&](std::size_t i) {
            const Shape& shape = shapes[i];
            const Visit looked = look_at(shape.device->clone());
            const Visit changed = change(shape.device->clone());
            std::vector<std::string> said = looked.said;
            said.insert(said.end(), changed.said.begin(), changed.said.end());
            std::vector<std::string> wrong;
            for (const std::string& text : said)
                if (!names_a_structure(text)) wrong.push_back("names no structure: " + text);
            const bool told =
                std::ranges::any_of(said, [&](const std::string& text) { return names_one_of(text, shape.words); });
            if (!shape.words.empty() && !told)
                wrong.push_back(fmt::format("is not told of ({} messages{})", said.size(),
                                            said.empty() ? "" : ", the last: " + said.back()));
            return wrong;
        });
    for (const std::string& failure : failures) ADD_FAILURE() << failure;
}

// Places by structure, of the seed.
std::vector<const Place*> all(SeedKind kind, std::string_view structure) {
    std::vector<const Place*> out;
    for (const Place& place : places_of(kind))
        if (place.structure == structure) out.push_back(&place);
    return out;
}

void set(MemoryDevice& device, const Place& place, std::string_view field, std::uint64_t value, bool seal = true) {
    const auto found = std::ranges::find(place.fields, field, &format::FieldDescription::name);
    ASSERT_NE(found, place.fields.end()) << place.structure << " has no " << field;
    write_field(device, place, *found, value);
    if (seal && place.seal) place.seal(device);
}

std::uint64_t get(MemoryDevice& device, const Place& place, std::string_view field) {
    const auto found = std::ranges::find(place.fields, field, &format::FieldDescription::name);
    return found == place.fields.end() ? 0 : read_field(device, place, *found);
}

// An index entry that points to the node it stands in, and to the root of another file.
TEST(Shapes, ExtentTreesThatContainThemselves) {
    std::vector<Shape> shapes;
    for (const SeedKind kind : {SeedKind::checksums, SeedKind::bare}) {
        for (const Place* place : all(kind, "extent_index")) {
            const std::uint64_t own = place->at / 1024;
            for (const std::uint64_t target : {own, own + 1, std::uint64_t{2}}) {
                auto device = seed(kind).copy();
                if (get(*device, *place, "ei_leaf_lo") == target) continue;
                set(*device, *place, "ei_leaf_lo", target);
                shapes.push_back(
                    {fmt::format("{}: extent index at {:#x} names block {}", seed_name(kind), place->at, target),
                     device, place->words});
            }
        }
        for (const Place* place : all(kind, "extent_header")) {
            for (const std::uint64_t depth : {1, 4, 5}) {
                auto device = seed(kind).copy();
                if (get(*device, *place, "eh_depth") == depth) continue;
                set(*device, *place, "eh_depth", depth);
                shapes.push_back(
                    {fmt::format("{}: extent header at {:#x}: depth {}", seed_name(kind), place->at, depth), device,
                     place->words});
            }
        }
    }
    ASSERT_GT(shapes.size(), 20u);
    judge(shapes);
}

TEST(Shapes, HashTreesThatContainThemselves) {
    std::vector<Shape> shapes;
    for (const SeedKind kind : {SeedKind::checksums, SeedKind::bare, SeedKind::indirect}) {
        for (const char* structure : {"index_root", "index_node", "index_pair"}) {
            for (const Place* place : all(kind, structure)) {
                for (const std::uint64_t target : {0, 1, 2, 100000}) {
                    auto device = seed(kind).copy();
                    if (get(*device, *place, "block") == target) continue;
                    set(*device, *place, "block", target);
                    shapes.push_back(
                        {fmt::format("{}: {} at {:#x} names block {}", seed_name(kind), structure, place->at, target),
                         device,
                         {}});
                }
            }
        }
        for (const Place* place : all(kind, "index_root")) {
            for (const std::uint64_t levels : {0, 1, 2, 3, 200}) {
                auto device = seed(kind).copy();
                set(*device, *place, "indirect_levels", levels);
                shapes.push_back({fmt::format("{}: index root with {} levels", seed_name(kind), levels), device, {}});
            }
        }
    }
    judge(shapes);
}

// "below" is named as its own parent, as its own child, and by its child's entry.
TEST(Shapes, DirectoriesThatContainThemselves) {
    std::vector<Shape> shapes;
    for (const SeedKind kind : {SeedKind::checksums, SeedKind::bare, SeedKind::inline_data, SeedKind::indirect}) {
        auto fs = mount_seed(seed(kind).copy(), "ro");
        ASSERT_TRUE(fs) << fs.error().what;
        std::vector<std::uint64_t> numbers{2};
        for (const char* path : {"/linear", "/linear/below", "/hashed"})
            numbers.push_back((*(*fs)->resolve(path, Credentials::root()))->number().value);
        for (const Place* place : all(kind, "dir_entry")) {
            for (const std::uint64_t number : numbers) {
                auto device = seed(kind).copy();
                set(*device, *place, "inode", number);
                shapes.push_back(
                    {fmt::format("{}: entry at {:#x} names inode {}", seed_name(kind), place->at, number), device, {}});
            }
        }
    }
    judge(shapes);
}

TEST(Shapes, ListsOfOrphansThatGoRound) {
    std::vector<Shape> shapes;
    const auto supers = all(SeedKind::indirect, "superblock");
    const auto inodes = all(SeedKind::indirect, "inode");
    ASSERT_EQ(supers.size(), 1u);
    auto scratch = seed(SeedKind::indirect).copy();
    auto number_of = [](const Place& place) {
        return std::strtoull(place.words.front().c_str() + std::string_view("inode ").size(), nullptr, 10);
    };
    for (const Place* first : inodes) {
        for (const Place* second : {first, inodes[2], inodes.back()}) {
            auto device = seed(SeedKind::indirect).copy();
            set(*device, *supers[0], "s_last_orphan", number_of(*first));
            set(*device, *first, "i_dtime", number_of(*second));
            set(*device, *second, "i_dtime", number_of(*first));
            shapes.push_back({fmt::format("orphans {} and {} name each other", number_of(*first), number_of(*second)),
                              device,
                              {"orphan"}});
        }
    }
    for (const std::uint64_t number : {1, 2, 3, 7, 8, 11, 500, 100000}) {
        auto device = seed(SeedKind::indirect).copy();
        set(*device, *supers[0], "s_last_orphan", number);
        shapes.push_back({fmt::format("the list of orphans begins with {}", number), device, {}});
        const auto entries = all(SeedKind::checksums, "orphan_entry");
        ASSERT_EQ(entries.size(), 1u);
        auto other = seed(SeedKind::checksums).copy();
        for (const char* entry : {"entry[0]", "entry[1]", "entry[5]"}) set(*other, *entries[0], entry, number);
        shapes.push_back({fmt::format("the orphan file names inode {} three times", number), other, {}});
    }
    judge(shapes);
}

// Maps that name one block again and again, and sizes that only such maps could fill.
TEST(Shapes, FilesLargerThanTheImage) {
    std::vector<Shape> shapes;
    for (const SeedKind kind : {SeedKind::bare, SeedKind::checksums, SeedKind::indirect}) {
        auto fs = mount_seed(seed(kind).copy(), "ro");
        ASSERT_TRUE(fs) << fs.error().what;
        const auto of = [&](const char* structure, std::uint64_t number) -> const Place* {
            for (const Place* place : all(kind, structure))
                if (place->words.front() == fmt::format("inode {}", number)) return place;
            return nullptr;
        };
        for (const char* path : {"journal", "/linear", "/hashed"}) {
            const bool journal = path[0] != '/';
            const std::uint64_t number = journal ? 8 : (*(*fs)->resolve(path, Credentials::root()))->number().value;
            const Place* inode = of("inode", number);
            ASSERT_TRUE(inode) << path;
            auto device = seed(kind).copy();
            set(*device, *inode, "i_size_lo", 12289 * 1024);
            shapes.push_back({fmt::format("{}: {} of 12289 blocks", seed_name(kind), path),
                              device,
                              {journal ? "journal inode 8: 12289 blocks, there can be 12288"
                                       : fmt::format("directory {}: size 12583936 is more than", number)}});
            const Place* pointers = of("block_pointers", number);
            if (!pointers || path == std::string_view("/hashed")) continue;
            device = seed(kind).copy();
            const std::uint64_t first = get(*device, *pointers, "i_block[0]");
            set(*device, *pointers, "i_block[1]", first);
            if (!journal) set(*device, *inode, "i_size_lo", 2048);
            shapes.push_back({fmt::format("{}: {} has block {} twice", seed_name(kind), path, first),
                              device,
                              {journal ? fmt::format("journal inode 8: block {} is named twice", first)
                                       : fmt::format("directory {}: block 1: it is block {}", number, first)}});
        }
        // The second pair of the root names what the first one does.
        const auto roots = all(kind, "index_root"), pairs = all(kind, "index_pair");
        ASSERT_FALSE(roots.empty() || pairs.empty());
        auto device = seed(kind).copy();
        set(*device, *pairs[0], "block", get(*device, *roots[0], "block"));
        shapes.push_back(
            {fmt::format("{}: an index with a block twice", seed_name(kind)), device, {"as one before it"}});
    }
    judge(shapes);
}

TEST(Shapes, ImagesThatWereCutShort) {
    std::vector<Shape> shapes;
    for (std::size_t k = 0; k < seed_kind_count; ++k) {
        const auto kind = static_cast<SeedKind>(k);
        if (kind == SeedKind::protected_mmp) continue;
        const auto whole = seed(kind).image;
        for (const std::uint64_t size :
             {0, 1, 1023, 1024, 1500, 2047, 2048, 3000, 65536, 1 << 20, 6 << 20, (12 << 20) - 1024, (12 << 20) - 1}) {
            std::vector<std::byte> bytes(size);
            (void)whole->read(0, bytes);
            auto device = std::make_shared<MemoryDevice>(size, "image");
            (void)device->write(0, bytes);
            shapes.push_back({fmt::format("{} cut to {} bytes", seed_name(kind), size),
                              device,
                              {"too few", "superblock", "no ext2"}});
        }
    }
    judge(shapes);
}

// Logs whose checksums are right and whose claims are not: blocks that the log must not write, rings without an end.
TEST(Shapes, LogsThatLie) {
    struct Claim {
        const char* field;
        std::uint64_t value;
    };
    const std::vector<std::vector<Claim>> rings{
        {{"s_start", 0xFFFFFFFF}},
        {{"s_start", 1}, {"s_first", 0}},
        {{"s_first", 900}, {"s_start", 900}},
        {{"s_maxlen", 0}},
        {{"s_maxlen", 2}, {"s_first", 1}, {"s_start", 1}},
        {{"s_maxlen", 0xFFFFFFFF}, {"s_start", 0xFFFFFFFE}},
        {{"s_sequence", 0xFFFFFFFF}},
        {{"s_blocksize", 0}},
        {{"s_blocksize", 4096}},
        {{"s_blocksize", 0x80000000}},
        {{"s_feature_incompat", 0xFFFFFFFF}},
        {{"s_feature_incompat", 0}, {"s_start", 1}},
        {{"s_feature_incompat", 0x1B}},
        {{"s_feature_incompat", 0x20}, {"s_num_fc_blocks", 0xFFFFFFFF}},
        {{"s_nr_users", 0xFFFFFFFF}, {"s_start", 5}},
        {{"s_error", 0xFFFFFFFB}},
    };
    std::vector<Shape> shapes;
    for (const SeedKind kind : {SeedKind::dirty_v3, SeedKind::dirty_bare}) {
        const auto supers = all(kind, "journal_super");
        ASSERT_EQ(supers.size(), 1u);
        const std::uint64_t log = supers[0]->at / 1024;
        for (const auto& claims : rings) {
            auto device = seed(kind).copy();
            std::string name{seed_name(kind)};
            for (const Claim& claim : claims) {
                set(*device, *supers[0], claim.field, claim.value);
                name += fmt::format(" {}={:#x}", claim.field, claim.value);
            }
            shapes.push_back({name, device, {}});
        }
        for (const char* structure : {"journal_tag", "journal_tag3"}) {
            for (const Place* place : all(kind, structure)) {
                // The log itself, the superblock, descriptors, inodes, and what no image of this size has.
                for (const std::uint64_t target : {log, log + 1, log + 2, std::uint64_t{0}, std::uint64_t{1},
                                                   std::uint64_t{2}, std::uint64_t{300}, std::uint64_t{0xFFFFFFFF}}) {
                    auto device = seed(kind).copy();
                    set(*device, *place, "t_blocknr", target);
                    std::vector<std::string> words;
                    if (target == 0xFFFFFFFF) words.emplace_back("journal");
                    shapes.push_back(
                        {fmt::format("{}: tag at {:#x} names block {}", seed_name(kind), place->at, target), device,
                         words});
                }
                for (const std::uint64_t flags : {0, 1, 2, 4, 8, 0xF, 0xFFFF}) {
                    auto device = seed(kind).copy();
                    set(*device, *place, "t_flags", flags);
                    shapes.push_back(
                        {fmt::format("{}: tag at {:#x} has flags {:#x}", seed_name(kind), place->at, flags),
                         device,
                         {}});
                }
            }
        }
        for (const Place* place : all(kind, "journal_revoke")) {
            for (const std::uint64_t count : {0, 15, 17, 1024, 1025, 0x7FFFFFFF}) {
                auto device = seed(kind).copy();
                set(*device, *place, "r_count", count);
                shapes.push_back(
                    {fmt::format("{}: revoke at {:#x} counts {}", seed_name(kind), place->at, count), device, {}});
            }
        }
    }
    ASSERT_GT(shapes.size(), 60u);
    judge(shapes);
}

// Two and three fields at a time that together claim the absurd.
TEST(Shapes, AbsurdSuperblocks) {
    struct Claim {
        const char* field;
        std::uint64_t value;
    };
    const std::vector<std::vector<Claim>> absurd{
        {{"s_blocks_count_lo", 0xFFFFFFFF}, {"s_blocks_count_hi", 0xFFFFFFFF}},
        {{"s_blocks_count_lo", 0}, {"s_blocks_count_hi", 0}},
        {{"s_blocks_count_lo", 0xFFFFFFFF}, {"s_inodes_count", 0xFFFFFFFF}, {"s_inodes_per_group", 8}},
        {{"s_blocks_per_group", 1}, {"s_clusters_per_group", 1}},
        {{"s_blocks_per_group", 8}, {"s_clusters_per_group", 8}, {"s_inodes_per_group", 1}},
        {{"s_inodes_per_group", 0xFFFFFFF8}, {"s_inodes_count", 0xFFFFFFFF}},
        {{"s_inode_size", 32768}, {"s_log_block_size", 6}},
        {{"s_inode_size", 1024}, {"s_want_extra_isize", 0xFFFF}, {"s_min_extra_isize", 0xFFFF}},
        {{"s_log_block_size", 31}},
        {{"s_log_block_size", 6}, {"s_log_cluster_size", 6}, {"s_first_data_block", 0}},
        {{"s_log_cluster_size", 63}, {"s_feature_ro_compat", 0x246B}},
        {{"s_desc_size", 1024}, {"s_feature_incompat", 0x2C2}},
        {{"s_desc_size", 0}, {"s_feature_incompat", 0x2C2}},
        {{"s_desc_size", 63}, {"s_feature_incompat", 0x2C2}},
        {{"s_first_meta_bg", 0xFFFFFFFF}, {"s_feature_incompat", 0x2D2}},
        {{"s_reserved_gdt_blocks", 0xFFFF}},
        {{"s_first_data_block", 0xFFFFFFFF}},
        {{"s_first_ino", 0xFFFFFFFF}},
        {{"s_first_ino", 2}},
        {{"s_rev_level", 0}},
        {{"s_rev_level", 0xFFFFFFFF}},
        {{"s_journal_inum", 2}},
        {{"s_journal_inum", 12}},
        {{"s_journal_inum", 0xFFFFFFFF}},
        {{"s_last_orphan", 8}},
        {{"s_last_orphan", 0xFFFFFFFF}},
        {{"s_log_groups_per_flex", 255}},
        {{"s_free_blocks_count_lo", 0xFFFFFFFF}, {"s_free_blocks_count_hi", 0xFFFFFFFF}},
        {{"s_r_blocks_count_lo", 0xFFFFFFFF}, {"s_r_blocks_count_hi", 0xFFFFFFFF}},
        {{"s_free_inodes_count", 0xFFFFFFFF}},
        {{"s_def_hash_version", 255}},
        {{"s_backup_bgs[0]", 0xFFFFFFFF}, {"s_feature_compat", 0x23C}},
        {{"s_feature_compat", 0xFFFFFFFF}},
        {{"s_feature_incompat", 0xFFFFFFFF}},
        {{"s_feature_ro_compat", 0xFFFFFFFF}},
        {{"s_feature_compat", 0}, {"s_feature_incompat", 0}, {"s_feature_ro_compat", 0}},
    };
    std::vector<Shape> shapes;
    for (std::size_t k = 0; k < seed_kind_count; ++k) {
        const auto kind = static_cast<SeedKind>(k);
        if (kind == SeedKind::protected_mmp) continue;
        const auto supers = all(kind, "superblock");
        if (supers.empty()) continue;
        for (const auto& claims : absurd) {
            auto device = seed(kind).copy();
            std::string name{seed_name(kind)};
            for (const Claim& claim : claims) {
                set(*device, *supers[0], claim.field, claim.value);
                name += fmt::format(" {}={:#x}", claim.field, claim.value);
            }
            shapes.push_back({name, device, {}});
        }
    }
    judge(shapes);
}

// Descriptors of all groups point into each other's tables.
TEST(Shapes, GroupsThatShareStructures) {
    std::vector<Shape> shapes;
    for (const SeedKind kind : {SeedKind::checksums, SeedKind::bare, SeedKind::bigalloc}) {
        for (const Place* place : all(kind, "group_desc")) {
            // Without the first group's table nothing is found, the journal least of all.
            std::vector<std::string> words = place->words;
            words.push_back("inode 8");
            // Where the block is another's or nobody's, the file or the bitmap that says so is named.
            words.push_back("belongs to something else");
            words.push_back("group 0: block bitmap");
            for (const char* field : {"bg_block_bitmap_lo", "bg_inode_bitmap_lo", "bg_inode_table_lo"}) {
                for (const std::uint64_t target : {0, 1, 2, 3, 300, 12287, 12288}) {
                    auto device = seed(kind).copy();
                    if (get(*device, *place, field) == target) continue;
                    set(*device, *place, field, target);
                    shapes.push_back({fmt::format("{}: {} at {:#x} is {}", seed_name(kind), field, place->at, target),
                                      device, words});
                }
            }
        }
    }
    judge(shapes);
}

}  // namespace
}  // namespace uext4::hostile
