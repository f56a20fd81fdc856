// Extended attributes: entries and their hashes, blocks that inodes share, values in inodes of their own.
#include "check/checker.h"
#include "inode/inode_xattrs.h"
#include "inode/value_inode.h"
#include "inode/xattr_block.h"

#include <algorithm>
#include <utility>

namespace uext4 {

namespace {

using format::CharSign;
constexpr std::uint32_t first_entry = sizeof(format::XattrBlockHeader);

}  // namespace

// Entries that were parsed: hashes, the same name twice, values that overlap.
void Checker::check_area(const std::vector<format::XattrItem>& items, bool in_block, std::set<std::string>& names,
                         const std::string& where) {
    std::vector<std::pair<const std::byte*, const std::byte*>> values;
    for (const format::XattrItem& item : items) {
        const std::string name = format::full_xattr_name(item.index, item.name);
        if (!names.insert(name).second) problem(where, "attribute {}: there are two of that name", name);
        if (item.value_inode) {
            if (!g_.has_incompat(format::incompat::ea_inode))
                problem(where, "attribute {}: e_value_inum is {}, but the superblock lacks ea_inode", name,
                        item.value_inode);
            continue;
        }
        // In an inode the hash may be left out.
        if (in_block || item.hash != 0)
            if (const std::uint32_t hash = format::xattr_entry_hash(item.name, item.value);
                hash != item.hash && format::xattr_entry_hash(item.name, item.value, CharSign::with) != item.hash)
                problem(where, "attribute {}: e_hash is {:#x}, not {:#x}", name, item.hash, hash);
        if (!item.value.empty()) {
            const std::byte* start = item.value.data();
            values.emplace_back(start, start + round_up(item.value.size(), std::size_t{4}));
        }
    }
    std::ranges::sort(values);
    for (std::size_t i = 1; i < values.size(); ++i)
        if (values[i].first < values[i - 1].second) return problem(where, "attributes: two values lie at one place");
}

// map_lock held. Values in inodes are looked at later, without it.
void Checker::check_attributes(Inode& inode, Blocks& blocks, std::vector<Attribute>& in_inodes,
                               const std::string& where) {
    std::set<std::string> names;
    const std::uint64_t cluster_bytes = std::uint64_t{g_.block_size} * g_.cluster_ratio;
    const auto take = [&](const std::vector<format::XattrItem>& items, bool in_block, bool count) {
        check_area(items, in_block, names, where);
        for (const format::XattrItem& item : items) {
            if (!item.value_inode) continue;
            // They are charged to whoever has the attribute.
            blocks.attributes += divide_up(std::uint64_t{item.value_size}, cluster_bytes) * g_.cluster_ratio;
            ++blocks.value_inodes;
            if (count) in_inodes.push_back({std::string(item.name), item.value_inode, item.value_size, item.hash});
        }
    };
    Result<std::vector<format::XattrItem>> body = parse_inode_xattrs(inode);
    if (!body) problem(where, "{}", body.error().what);
    else take(*body, false, true);
    const BlockNr block = inode.xattr_block();
    if (!block) return;
    // Opened by its owner's rules first.
    if (Result<std::vector<format::XattrToStore>> opened = read_xattr_block(inode); !opened)
        return problem(where, "{}", opened.error().what);
    Result<BufferRef> buffer = fs_.buffers.read(block, "attribute block");
    if (!buffer) return problem(where, "{}", buffer.error().what);
    const ConstBytes bytes = std::as_const(**buffer).data();
    Result<std::vector<format::XattrItem>> items = format::parse_xattrs(bytes, first_entry, where);
    if (!items) return problem(where, "{}", items.error().what);
    SharedBlock& shared = attribute_blocks_[block.value];
    const bool first = shared.users++ == 0;
    shared.references = view_as<format::XattrBlockHeader>(bytes).refcount;
    take(*items, true, first);
    if (first) mark_used(block, 1, inode.number().value);
    if (g_.cluster_ratio == 1) ++blocks.attributes;
    else if (!first) blocks.attributes += g_.cluster_ratio;
}

void Checker::check_values(const std::vector<Attribute>& in_inodes, const std::string& where) {
    for (const Attribute& a : in_inodes) {
        if (!g_.has_incompat(format::incompat::ea_inode)) continue;
        ++value_references_[a.value_inode];
        const Result<InodeRef> inode = open_value_inode(volume_.inodes(), InodeNr(a.value_inode));
        const Result<std::vector<std::byte>> value =
            inode ? read_value_inode(*inode, a.value_size) : fail(inode.error());
        if (!value) {
            problem(where, "attribute '{}': {}", a.name, value.error().what);
            continue;
        }
        const std::uint32_t value_hash = format::xattr_value_hash(g_, ConstBytes(*value));
        if (const std::uint32_t hash = format::xattr_entry_hash_inode(a.name, value_hash);
            hash != a.hash && format::xattr_entry_hash_inode(a.name, value_hash, CharSign::with) != a.hash)
            problem(where, "attribute '{}': e_hash is {:#x}, not {:#x}", a.name, a.hash, hash);
    }
}

void Checker::check_references() {
    for (const auto& [block, shared] : attribute_blocks_)
        if (shared.references != shared.users)
            problem(fmt::format("attribute block {}", block), "h_refcount is {}, {} inodes name it", shared.references,
                    shared.users);
    for (const std::uint64_t number : value_inodes_) {
        Result<InodeRef> inode = volume_.inodes().get(InodeNr(number), true);
        if (!inode) continue;
        // The count lives in i_ctime (upper half) and i_version (lower half).
        const std::uint64_t said =
            std::uint64_t{(*inode)->disk().ctime.get()} << 32 | (*inode)->disk().version_lo.get();
        const auto found = value_references_.find(number);
        const std::uint64_t references = found == value_references_.end() ? 0 : found->second;
        if (said != references)
            problem(fmt::format("inode {}", number), "an attribute's value: it says {} references, there are {}", said,
                    references);
    }
}

}  // namespace uext4
