// Directories: entries and what they name, indexes, link counts.
#include "check/checker.h"
#include "format/directory.h"
#include "namespace/dir_layouts.h"
#include "namespace/hash_order.h"
#include "namespace/index_path.h"

#include <dirent.h>

#include <algorithm>
#include <string_view>
#include <unordered_set>
#include <utility>

namespace uext4 {

namespace {

constexpr std::uint32_t unused_flags_offset = 31;  // of an index's root

std::uint8_t file_type(const Inode& inode) {
    return static_cast<std::uint8_t>(format::file_type_of_mode(inode.mode()));
}

}  // namespace

// "." and ".." as they lie in block 0: reading a directory makes them up.
void Checker::check_first_entries(Inode& directory, const std::string& where) {
    if (directory.is_inline()) return;
    const bool hashed = is_hashed(directory);
    Result<DirBuffer> block = read_dir_block(directory, LogicalBlock(0), hashed ? DirBlock::root : DirBlock::leaf);
    if (!block) return;  // said where it was read
    const auto& dot = view_as<format::DirEntryDisk>(block->data());
    const auto& dotdot = view_as<format::DirEntryDisk>(block->data(), dotdot_offset);
    if (dot.inode != directory.number().value) problem(where, "'.' names inode {}", dot.inode.get());
    constexpr auto type = static_cast<std::uint8_t>(format::FileType::directory);
    for (const auto& [name, said] : {std::pair(".", dot.file_type), std::pair("..", dotdot.file_type)})
        if (has_file_types(said) && said != type) problem(where, "'{}' has type {}, no directory's", name, said);
}

// An entry of a directory whose names are encrypted.
void Checker::check_encrypted(const std::string& name, const Inode& child, const std::string& where) {
    constexpr std::size_t shortest = 22;  // 16 bytes, as encoded_encrypted_name() shows them
    if (name.size() < shortest) problem(where, "'{}' is too short for an encrypted name", name);
    const bool encrypted = child.is_regular() || child.is_directory() || child.is_symlink();
    if (encrypted && !child.has_flag(format::inode_flag::encrypt))
        problem(where, "'{}' names inode {}, which is not encrypted", name, child.number());
}

// Every block is the root, an inner block or a leaf, once; every name lies where its hash says.
void Checker::check_index(Inode& directory, const std::string& where) {
    const Result<std::uint64_t> blocks = dir_block_count(directory);
    Result<IndexPath> path = IndexPath::to(directory, 0);
    if (!blocks || !path) return;  // said where it was read
    if (byte_at(path->frames()[0].block.data(), unused_flags_offset) != 0)
        problem(where, "block 0, offset {}: unknown flags of the index", unused_flags_offset);
    std::unordered_set<std::uint64_t> leaves, inner;
    const bool folded = directory.has_flag(format::inode_flag::casefold | format::inode_flag::encrypt);
    for (;;) {
        for (const IndexPath::Frame& frame : path->frames()) inner.insert(frame.block.logical.value);
        if (!leaves.insert(path->leaf().value).second)
            return problem(where, "block {}: the index names it twice", path->leaf());
        Result<DirBuffer> leaf = path->read_leaf(directory);
        if (!leaf) return;
        const std::uint32_t low = path->range_start() & ~1u;
        const std::optional<std::uint32_t> next = path->next_start();
        const EntryList list(leaf->data().first(leaf_capacity(directory)), g_.block_size);
        list.for_each([&](const ListedEntry& entry) {
            if (!entry.used() || folded) return true;
            const Result<NameHash> hash = hash_name(directory, entry.name, path->version());
            // A range that starts with bit 0 set goes on with the hashes that end the one before it.
            if (hash && hash->major >= low && (!next || hash->major < *next)) return true;
            if (!hash) return false;
            problem(where, "block {}: '{}' has hash {:#x}, the index says {:#x} to {:#x}", leaf->logical, entry.name,
                    hash->major, low, next ? *next : ~0u);
            return false;
        });
        const Result<bool> more = path->advance(directory);
        if (!more) return problem(where, "{}", more.error().what);
        if (!*more) break;
    }
    for (std::uint64_t b = 0; b < *blocks; ++b)
        if (!leaves.contains(b) && !inner.contains(b)) problem(where, "block {}: the index does not name it", b);
}

void Checker::walk() {
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
            if (e.has_wrong_type) problem(where, "'{}' has a type that does not exist", e.name);
            return true;
        });
        if (!r) problem(where, "{}", r.error().what);
        else if ((*dir)->is_directory()) {
            check_first_entries(**dir, where);
            if (is_hashed(**dir) && !(*dir)->is_inline()) check_index(**dir, where);
        }
        std::unordered_set<std::string_view> names;
        for (std::size_t i = 0; i < entries.size(); ++i) {
            const auto& [name, child] = entries[i];
            ++named_[child.value];
            if (name == ".") continue;
            if (name == "..") {
                if (child != parent) problem(where, "'..' names inode {}, not {}", child, parent);
                continue;
            }
            if (!names.insert(name).second) problem(where, "'{}' is there twice", name);
            if (child.value == format::special_inode::root || g_.is_own_inode(child)) {
                problem(where, "'{}' names inode {}, which is the file system's own", name, child);
                continue;
            }
            if (damaged_.contains(child.value)) {
                // Its ".." would name this one.
                if (!g_.has_filetype() || types[i] != DT_DIR) continue;
                lost_directory_ = true;
                ++named_[number.value];
                continue;
            }
            if (!links_.contains(child.value)) {
                problem(where, "'{}' names inode {}, which is not in use", name, child);
                continue;
            }
            Result<InodeRef> inode = volume_.inodes().get(child, true);
            if (!inode) continue;
            if ((*inode)->has_flag(format::inode_flag::ea_inode))
                problem(where, "'{}' names inode {}, which holds an attribute's value", name, child);
            if ((*dir)->has_flag(format::inode_flag::encrypt)) check_encrypted(name, **inode, where);
            const std::uint8_t type = format::dt_of_file_type(file_type(**inode));
            if (has_file_types(types[i]) && types[i] != type)
                problem(where, "'{}' has type {}, its inode {}", name, types[i], type);
            if (!(*inode)->is_directory()) continue;
            if (seen.insert(child.value).second) todo.emplace_back(child, number);
            else problem(where, "'{}': directory {} is reached twice", name, child);
        }
    }
}

void Checker::check_links() {
    std::vector<std::pair<std::uint64_t, std::uint32_t>> in_order(links_.begin(), links_.end());
    std::ranges::sort(in_order);
    for (const auto& [number, links] : in_order) {
        if (number < g_.first_inode && number != format::special_inode::root) continue;
        if (g_.is_own_inode(InodeNr(number)) || number == super_.prj_quota_inum) continue;
        Result<InodeRef> inode = volume_.inodes().get(InodeNr(number), true);
        if (!inode || (*inode)->has_flag(format::inode_flag::ea_inode)) continue;
        const std::uint64_t named = named_.contains(number) ? named_[number] : 0;
        if (named == 0 && links == 0) continue;
        if (named == 0) {
            if (lost_directory_) continue;  // which may name it
            problem(fmt::format("inode {}", number), "in use, but no directory names it");
            continue;
        }
        // More than can be counted. (Where there were as many once, e2fsck counts again as well.)
        const bool uncounted = (*inode)->is_directory() && links == 1 && named > format::max_links &&
                               g_.has_ro_compat(format::ro_compat::dir_nlink);
        if (named != links && !uncounted)
            problem(fmt::format("inode {}", number),
                    "i_links_count is {}, expected {}, the number of entries that name it", links, named);
    }
}

}  // namespace uext4
