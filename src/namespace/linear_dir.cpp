// A directory as a list of blocks, each a list of entries.
#include "namespace/dir_layouts.h"
#include "namespace/hash_order.h"

namespace uext4 {

namespace linear_dir {

// In a block that cannot be read there may be any name, so nothing is missing then.
Result<std::optional<LocatedEntry>> locate(Inode& directory, std::string_view name) {
    DirErrors damage;
    const std::uint64_t blocks = readable_dir_blocks(directory, damage);
    for (std::uint64_t i = 0; i < blocks; ++i) {
        Result<DirBuffer> block = read_dir_block(directory, LogicalBlock(i), DirBlock::leaf);
        if (!block) {
            if (!damage.note(std::move(block.error()))) break;
            continue;
        }
        if (const auto entry = list_of(directory, *block).find(name))
            return TRY(located_entry(directory, std::move(*block), *entry, false));
    }
    TRY(damage.first_error());
    return std::nullopt;
}

Result<bool> is_empty(Inode& directory) {
    const std::uint64_t blocks = TRY(dir_block_count(directory));
    for (std::uint64_t i = 0; i < blocks; ++i) {
        const DirBuffer block = TRY(read_dir_block(directory, LogicalBlock(i), DirBlock::leaf));
        bool empty = true;
        list_of(directory, block).for_each([&](const ListedEntry& entry) {
            const bool dots = i == 0 && entry.offset <= dotdot_offset;
            return empty = !entry.used() || dots;
        });
        if (!empty) return false;
    }
    return true;
}

Result<bool> add_in_place(Handle& handle, Inode& directory, std::string_view name, InodeNr inode, std::uint8_t type) {
    const std::uint64_t blocks = TRY(dir_block_count(directory));
    for (std::uint64_t i = 0; i < blocks; ++i) {
        const DirBuffer block = TRY(read_dir_block(directory, LogicalBlock(i), DirBlock::leaf));
        const auto room = list_of(directory, block).find_space(name.size());
        if (!room) continue;
        const Bytes bytes = TRY(get_dir_block_write_access(handle, block));
        list_of(directory, bytes).insert_at(*room, name, inode, disk_type(directory, type));
        set_dir_checksum(directory, block, DirBlock::leaf);
        return true;
    }
    return false;
}

Result<void> add_block(Handle& handle, Inode& directory, std::string_view name, InodeNr inode, std::uint8_t type,
                       bool privileged) {
    const DirBuffer fresh = TRY(append_block(handle, directory, privileged));
    MutableEntryList list = list_of(directory, fresh.buffer->data());
    list.clear();
    list.insert(name, inode, disk_type(directory, type));
    fresh.buffer->set_kind(BlockKind::directory);
    set_dir_checksum(directory, fresh, DirBlock::leaf);
    return {};
}

namespace {

// One block that will become hashed when it is full: the order and the cookies of the hashed directory.
Result<void> iterate_by_hash(Inode& directory, std::uint64_t cookie, const VisitEntry& visit) {
    HashOrderedListing order(directory, default_hash_version(directory), cookie);
    (void)readable_dir_blocks(directory, order.damage());
    const DirBuffer block = TRY(read_dir_block(directory, LogicalBlock(0), DirBlock::leaf));
    if (!order.visit_dot_entries(TRY(Directory(directory).parent()), visit)) return {};
    TRY(order.add(block.logical, list_of(directory, block), 0, ~0u));
    (void)order.visit(visit);
    return order.damage().first_error();
}

}  // namespace

// Without hashes a cookie is the byte offset behind an entry. Entries never move, so whatever starts there or later has
// not been visited.
Result<void> iterate(Inode& directory, std::uint64_t cookie, const VisitEntry& visit) {
    if (lists_in_hash_order(directory)) return iterate_by_hash(directory, cookie, visit);
    DirErrors damage;
    const std::uint64_t blocks = readable_dir_blocks(directory, damage);
    const std::uint32_t block_size = directory.fs().block_size();
    VisitedDirBlocks met;
    for (std::uint64_t i = cookie / block_size; i < blocks; ++i) {
        Result<DirBuffer> block = read_dir_block(directory, LogicalBlock(i), DirBlock::leaf);
        if (!block) {
            if (!damage.note(std::move(block.error()))) break;
            continue;
        }
        TRY(met.add(directory, *block));
        const EntryList list = list_of(directory, *block);
        for (auto entry = list.at(0); entry; entry = list.at(entry->offset + entry->length)) {
            const std::uint64_t at = i * block_size + entry->offset;
            if (!entry->used() || at < cookie) continue;
            Result<FoundEntry> found = checked_entry(directory, block->logical, *entry);
            if (!found) {
                if (!damage.note(std::move(found.error()))) return damage.first_error();
                continue;
            }
            if (!visit({entry->name, found->inode, found->type, at + entry->length, found->has_wrong_type}))
                return damage.first_error();
        }
    }
    return damage.first_error();
}

}  // namespace linear_dir
}  // namespace uext4
