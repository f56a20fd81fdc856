// A directory inside its inode: the parent's number in 4 bytes, a list of entries up to byte 60 (i_block), another one
// in the rest (the attribute system.data). "." and ".." are not stored.
#include "inode/inline_data.h"
#include "namespace/dir_layouts.h"
#include "namespace/hash_order.h"

#include <dirent.h>

#include <algorithm>

namespace uext4 {

namespace {

constexpr std::uint32_t parent_size = 4;
constexpr std::uint32_t in_inode = 60;  // bytes before the attribute's part
// How far a name moves when the names go to a block: "." and ".." come before, the parent's number goes.
constexpr std::uint32_t shift_to_block = names_offset - parent_size;

struct Region {
    std::uint32_t start = 0;
    std::uint32_t size = 0;
};

// The whole area in memory; changed there and written back as a whole.
struct Area {
    std::vector<std::byte> bytes;
    std::uint32_t block_size = 0;

    std::array<Region, 2> regions() const {
        const auto size = static_cast<std::uint32_t>(bytes.size());
        return {Region{parent_size, in_inode - parent_size}, Region{in_inode, size - in_inode}};
    }
    EntryList names_in(Region r) const { return {ConstBytes(bytes).subspan(r.start, r.size), block_size}; }
    MutableEntryList list(Region r) { return {Bytes(bytes).subspan(r.start, r.size), block_size}; }
    InodeNr parent() const { return InodeNr(view_as<Le32>(ConstBytes(bytes))); }
};

// map_lock held.
Result<Area> read_area(Inode& directory) {
    Area area {
        TRY(read_inline_data(directory))
        , directory.fs().block_size()
    };
    if (area.bytes.size() < in_inode || area.bytes.size() > area.block_size)
        return fail(EUCLEAN, "inline directory {}: {} bytes", directory.number(), area.bytes.size());
    for (const Region region : area.regions())
        TRY(check_entry_list(directory, ConstBytes(area.bytes).subspan(region.start, region.size), region.start));
    return area;
}

struct InlinePlace {
    Region region;
    ListedEntry entry;
};

std::optional<InlinePlace> locate(const Area& area, std::string_view name) {
    for (const Region region : area.regions())
        if (const auto entry = area.names_in(region).find(name)) return InlinePlace{region, *entry};
    return {};
}

}  // namespace

namespace inline_dir {

Result<std::optional<FoundEntry>> find(Inode& directory, std::string_view name) {
    if (name == ".") return FoundEntry{directory.number(), DT_DIR};
    if (name == "..") return FoundEntry {
            TRY(parent(directory))
            , DT_DIR
        };
    MutexLock map(directory.map_lock);
    const Area area = TRY(read_area(directory));
    const auto place = locate(area, name);
    if (!place) return std::nullopt;
    return TRY(checked_entry(directory, LogicalBlock(0), place->entry));
}

Result<InodeNr> parent(Inode& directory) {
    MutexLock map(directory.map_lock);
    const Area area = TRY(read_area(directory));
    ListedEntry dotdot;
    dotdot.inode = area.parent();
    dotdot.name = "..";
    return TRY(checked_entry(directory, LogicalBlock(0), dotdot))
    .inode;
}

Result<bool> is_empty(Inode& directory) {
    MutexLock map(directory.map_lock);
    const Area area = TRY(read_area(directory));
    for (const Region region : area.regions())
        if (area.names_in(region).has_names_after(0)) return false;
    return true;
}

Result<bool> add(Handle& handle, Inode& directory, std::string_view name, InodeNr inode, std::uint8_t type) {
    MutexLock map(directory.map_lock);
    Area area = TRY(read_area(directory));
    const std::uint8_t kind = disk_type(directory, type);
    for (const Region region : area.regions()) {
        if (!area.list(region).insert(name, inode, kind)) continue;
        TRY(write_inline_data(handle, directory, area.bytes));
        return true;
    }
    // The attribute's part grows by one record, if the inode has room.
    const auto old_size = static_cast<std::uint32_t>(area.bytes.size());
    const std::uint32_t needed = record_size(name.size());
    if (old_size + needed > max_inline_size(directory)) return false;
    area.bytes.resize(old_size + needed);
    area.list(Region{old_size, needed}).write_entry(0, needed, name, inode, kind);
    const auto written = write_inline_data(handle, directory, area.bytes);
    if (!written && written.error().code == ENOSPC) return false;
    TRY(written);
    directory.set_size(area.bytes.size());
    directory.set_disk_size(area.bytes.size());
    TRY(directory.store(handle));
    return true;
}

Result<void> remove(Handle& handle, Inode& directory, std::string_view name) {
    MutexLock map(directory.map_lock);
    Area area = TRY(read_area(directory));
    const auto place = locate(area, name);
    if (!place) return fail(ENOENT, "no such entry in directory {}", directory.number());
    area.list(place->region).remove(place->entry.offset);
    return write_inline_data(handle, directory, area.bytes);
}

Result<void> replace(Handle& handle, Inode& directory, std::string_view name, InodeNr inode, std::uint8_t type) {
    MutexLock map(directory.map_lock);
    Area area = TRY(read_area(directory));
    const auto place = locate(area, name);
    if (!place) return fail(ENOENT, "no such entry in directory {}", directory.number());
    area.list(place->region).set_inode(place->entry.offset, inode, disk_type(directory, type));
    return write_inline_data(handle, directory, area.bytes);
}

Result<void> set_parent(Handle& handle, Inode& directory, InodeNr parent) {
    MutexLock map(directory.map_lock);
    Area area = TRY(read_area(directory));
    view_as<Le32>(Bytes(area.bytes)) = static_cast<std::uint32_t>(parent.value);
    return write_inline_data(handle, directory, area.bytes);
}

Result<void> initialise(Handle& handle, Inode& directory, InodeNr parent) {
    MutexLock map(directory.map_lock);
    Area area{std::vector<std::byte>(in_inode), directory.fs().block_size()};
    view_as<Le32>(Bytes(area.bytes)) = static_cast<std::uint32_t>(parent.value);
    area.list(area.regions()[0]).clear();
    TRY(write_inline_data(handle, directory, area.bytes));
    directory.set_size(in_inode);
    directory.set_disk_size(in_inode);
    return directory.store(handle);
}

Result<void> convert(Handle& handle, Inode& directory, bool privileged) {
    Area area;
    std::vector<std::byte> block(directory.fs().block_size());
    const std::uint32_t capacity = leaf_capacity(directory);
    MutableEntryList list(Bytes(block).first(capacity), directory.fs().block_size());
    {
        MutexLock map(directory.map_lock);
        area = TRY(read_area(directory));
    }
    write_dot_entries(directory, list, area.parent(), names_offset);
    const std::size_t names_size = area.bytes.size() - parent_size;
    if (names_offset + names_size > capacity)
        return fail(EUCLEAN, "inline directory {}: {} bytes do not fit into a block", directory.number(), names_size);
    std::ranges::copy(ConstBytes(area.bytes).subspan(parent_size), block.begin() + names_offset);
    // The last record takes the rest of the block.
    std::uint32_t last = 0;
    const EntryList copied(ConstBytes(block).first(names_offset + names_size), directory.fs().block_size());
    copied.for_each([&](const ListedEntry& entry) {
        last = entry.offset;
        return true;
    });
    list.set_record_length(last, capacity - last);

    const DirBuffer fresh = TRY(append_first_block(handle, directory, privileged));
    std::ranges::copy(block, fresh.buffer->data().begin());
    fresh.buffer->set_kind(BlockKind::directory);
    set_dir_checksum(directory, fresh, DirBlock::leaf);
    return {};
}

Result<void> iterate(Inode& directory, std::uint64_t cookie, const VisitEntry& visit) {
    Area area;
    {
        MutexLock map(directory.map_lock);
        area = TRY(read_area(directory));
    }
    if (lists_in_hash_order(directory)) {
        HashOrderedListing order(directory, default_hash_version(directory), cookie);
        if (!order.visit_dot_entries(area.parent(), visit)) return {};
        for (const Region region : area.regions()) TRY(order.add(LogicalBlock(0), area.names_in(region), 0, ~0u));
        (void)order.visit(visit);
        return order.damage().first_error();
    }
    if (cookie == 0 && !visit({".", directory.number(), DT_DIR, dotdot_offset})) return {};
    if (cookie <= dotdot_offset && !visit({"..", area.parent(), DT_DIR, names_offset})) return {};
    DirErrors damage;
    for (const Region region : area.regions()) {
        const EntryList list = area.names_in(region);
        for (auto entry = list.at(0); entry; entry = list.at(entry->offset + entry->length)) {
            const std::uint64_t at = region.start + entry->offset + shift_to_block;
            if (!entry->used() || at < cookie) continue;
            Result<FoundEntry> found = checked_entry(directory, LogicalBlock(0), *entry);
            if (!found) (void)damage.note(std::move(found.error()));
            else if (!visit({entry->name, found->inode, found->type, at + entry->length, found->has_wrong_type}))
                return damage.first_error();
        }
    }
    return damage.first_error();
}

}  // namespace inline_dir
}  // namespace uext4
