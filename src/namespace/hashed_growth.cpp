// How a hashed directory grows: leaves split, then inner blocks, then the root moves down one level. One step at a
// time, each leaves a valid index, and the way to the leaf is looked up again after it.
#include "namespace/dir_layouts.h"
#include "namespace/hash_order.h"
#include "namespace/index_path.h"

#include <algorithm>

namespace uext4 {

namespace {

std::uint32_t tail_size(const Inode& directory) {
    return directory.fs().geometry.metadata_csum() ? index_tail_size : 0;
}
std::uint32_t node_limit(const Inode& directory) {
    return (directory.fs().block_size() - index_node_offset - tail_size(directory)) / index_entry_size;
}
std::uint32_t root_limit(const Inode& directory) {
    return (directory.fs().block_size() - index_root_offset - tail_size(directory)) / index_entry_size;
}

// A new inner block without pairs; its record covers it, so that it reads as an empty list of entries.
Result<DirBuffer> append_node(Handle& handle, Inode& directory, bool privileged) {
    DirBuffer node = TRY(append_block(handle, directory, privileged));
    const Bytes bytes = node.buffer->data();
    MutableEntryList(bytes, directory.fs().block_size()).clear();
    IndexEdit(bytes, index_node_offset).set_limit(node_limit(directory));
    node.buffer->set_kind(BlockKind::htree);
    return node;
}

std::uint32_t as_pointer(LogicalBlock block) { return static_cast<std::uint32_t>(block.value); }

// The root's pairs move to a new block, the root's only child.
Result<void> deepen(Handle& handle, Inode& directory, IndexPath& path, bool privileged) {
    const IndexPath::Frame& root = path.frames().front();
    if (path.frames().size() > hashed_dir::max_levels(directory))
        return fail(ENOSPC, "directory {}: its index is full", directory.number());
    const DirBuffer node = TRY(append_node(handle, directory, privileged));
    const Bytes root_bytes = TRY(get_dir_block_write_access(handle, root.block));
    IndexEdit from(root_bytes, index_root_offset);
    IndexEdit to(node.buffer->data(), index_node_offset);
    const std::uint32_t count = from.count();
    for (std::uint32_t i = 0; i < count; ++i) to.set(i, from.hash(i), from.block(i));
    to.set_count(count);
    from.set_count(1);
    from.set(0, 0, as_pointer(node.logical));
    root_bytes[index_levels_offset] = static_cast<std::byte>(path.frames().size());
    set_dir_checksum(directory, node, DirBlock::node);
    set_dir_checksum(directory, root.block, DirBlock::root);
    return {};
}

// The upper half of a full inner block moves to a new one; its parent has room for the new pair.
Result<void> split_node(Handle& handle, Inode& directory, IndexPath& path, std::size_t depth, bool privileged) {
    const IndexPath::Frame& full = path.frames()[depth];
    const IndexPath::Frame& parent = path.frames()[depth - 1];
    const DirBuffer fresh = TRY(append_node(handle, directory, privileged));
    const Bytes parent_bytes = TRY(get_dir_block_write_access(handle, parent.block));
    const Bytes full_bytes = TRY(get_dir_block_write_access(handle, full.block));
    IndexEdit lower(full_bytes, full.offset);
    IndexEdit upper(fresh.buffer->data(), index_node_offset);
    const std::uint32_t count = lower.count();
    const std::uint32_t keep = count / 2;
    const std::uint32_t boundary = lower.hash(keep);
    for (std::uint32_t i = keep; i < count; ++i) upper.set(i - keep, lower.hash(i), lower.block(i));
    upper.set_count(count - keep);
    lower.set_count(keep);
    IndexEdit(parent_bytes, parent.offset).insert(parent.position + 1, boundary, as_pointer(fresh.logical));
    set_dir_checksum(directory, fresh, DirBlock::node);
    set_dir_checksum(directory, full.block, DirBlock::node);
    set_dir_checksum(directory, parent.block, depth == 1 ? DirBlock::root : DirBlock::node);
    return {};
}

struct Sorted {
    std::uint32_t hash = 0;
    InodeNr inode;
    std::uint8_t type = 0;
    std::string name;
};

Result<std::vector<Sorted>> sorted_entries(const Inode& directory, const DirBuffer& leaf, std::uint8_t version) {
    std::vector<Sorted> entries;
    const EntryList list(leaf.data().first(leaf_capacity(directory)), directory.fs().block_size());
    for (auto entry = list.at(0); entry; entry = list.at(entry->offset + entry->length)) {
        if (!entry->used()) continue;
        const NameHash hash = TRY(hash_name(directory, entry->name, version));
        entries.push_back({hash.major, entry->inode, entry->type, std::string(entry->name)});
    }
    std::ranges::sort(
        entries, [](const Sorted& a, const Sorted& b) { return a.hash != b.hash ? a.hash < b.hash : a.name < b.name; });
    return entries;
}

// Where the upper part starts, so that both hold about as many bytes; at least one entry in each.
std::size_t middle_of(const std::vector<Sorted>& entries) {
    std::uint32_t total = 0;
    for (const Sorted& entry : entries) total += record_size(entry.name.size());
    std::uint32_t lower = 0;
    std::size_t at = 0;
    while (at + 1 < entries.size() && (at == 0 || lower + record_size(entries[at].name.size()) / 2 <= total / 2))
        lower += record_size(entries[at++].name.size());
    return at;
}

void write_entries(MutableEntryList list, std::span<const Sorted> entries, std::uint32_t capacity) {
    list.clear();
    std::uint32_t at = 0;
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const bool last = i + 1 == entries.size();
        const std::uint32_t length = last ? capacity - at : record_size(entries[i].name.size());
        list.write_entry(at, length, entries[i].name, entries[i].inode, entries[i].type);
        at += length;
    }
}

// The leaf at the path's end gives its upper names to a new one; the block above has room for the new pair.
Result<void> split_leaf(Handle& handle, Inode& directory, IndexPath& path, bool privileged) {
    const IndexPath::Frame& parent = path.frames().back();
    const DirBuffer leaf = TRY(path.read_leaf(directory));
    const std::vector<Sorted> entries = TRY(sorted_entries(directory, leaf, path.version()));
    if (entries.size() < 2)
        return fail(ENOSPC, "directory {}: block {} cannot be split", directory.number(), leaf.logical);
    const std::size_t middle = middle_of(entries);
    const std::uint32_t boundary = entries[middle].hash | (entries[middle - 1].hash == entries[middle].hash ? 1u : 0u);

    const DirBuffer fresh = TRY(append_block(handle, directory, privileged));
    const Bytes leaf_bytes = TRY(get_dir_block_write_access(handle, leaf));
    const Bytes parent_bytes = TRY(get_dir_block_write_access(handle, parent.block));
    const std::uint32_t capacity = leaf_capacity(directory);
    const std::span<const Sorted> all(entries);
    write_entries(list_of(directory, fresh.buffer->data()), all.subspan(middle), capacity);
    write_entries(list_of(directory, leaf_bytes), all.first(middle), capacity);
    fresh.buffer->set_kind(BlockKind::directory);
    IndexEdit(parent_bytes, parent.offset).insert(parent.position + 1, boundary, as_pointer(fresh.logical));
    set_dir_checksum(directory, fresh, DirBlock::leaf);
    set_dir_checksum(directory, leaf, DirBlock::leaf);
    set_dir_checksum(directory, parent.block, path.frames().size() == 1 ? DirBlock::root : DirBlock::node);
    return {};
}

// One step towards room in the leaf at the path's end.
Result<void> make_room(Handle& handle, Inode& directory, IndexPath& path, bool privileged) {
    const auto& frames = path.frames();
    if (!frames.back().view().full()) return split_leaf(handle, directory, path, privileged);
    std::size_t depth = frames.size() - 1;
    while (depth > 0 && frames[depth - 1].view().full()) --depth;
    if (depth == 0) return deepen(handle, directory, path, privileged);
    return split_node(handle, directory, path, depth, privileged);
}

}  // namespace

namespace hashed_dir {

Result<void> add(Handle& handle, Inode& directory, std::string_view name, InodeNr inode, std::uint8_t type,
                 bool privileged) {
    // A level more, a split on each level and a few splits of leaves (long names in small blocks) always suffice.
    constexpr int most_steps = 6;
    for (int step = 0; step <= most_steps; ++step) {
        NameHash hash;
        IndexPath path = TRY(IndexPath::to_name(directory, name, hash));
        const DirBuffer leaf = TRY(path.read_leaf(directory));
        const EntryList list(leaf.data().first(leaf_capacity(directory)), directory.fs().block_size());
        if (const auto room = list.find_space(name.size())) {
            const Bytes bytes = TRY(get_dir_block_write_access(handle, leaf));
            list_of(directory, bytes).insert_at(*room, name, inode, disk_type(directory, type));
            set_dir_checksum(directory, leaf, DirBlock::leaf);
            return {};
        }
        TRY(make_room(handle, directory, path, privileged));
    }
    return fail(ENOSPC, "directory {}: no room for a name of {} bytes", directory.number(), name.size());
}

Result<void> convert(Handle& handle, Inode& directory, bool privileged) {
    const std::uint32_t block_size = directory.fs().block_size();
    const DirBuffer root = TRY(read_dir_block(directory, LogicalBlock(0), DirBlock::leaf));
    const InodeNr parent = TRY(Directory(directory).parent());
    const std::vector<Sorted> entries = TRY(sorted_entries(directory, root, default_hash_version(directory)));
    std::vector<Sorted> names;
    std::ranges::copy_if(entries, std::back_inserter(names), [](const Sorted& e) { return !is_dot_or_dotdot(e.name); });

    const DirBuffer leaf = TRY(append_block(handle, directory, privileged));
    const Bytes bytes = TRY(get_dir_block_write_access(handle, root));
    write_entries(list_of(directory, leaf.buffer->data()), names, leaf_capacity(directory));
    leaf.buffer->set_kind(BlockKind::directory);
    set_dir_checksum(directory, leaf, DirBlock::leaf);

    std::ranges::fill(bytes, std::byte{0});
    write_dot_entries(directory, MutableEntryList(bytes, block_size), parent, block_size);
    bytes[hash_version_offset] = static_cast<std::byte>(default_hash_version(directory));
    bytes[info_length_offset] = static_cast<std::byte>(index_info_length);
    bytes[index_levels_offset] = std::byte{0};
    IndexEdit pairs(bytes, index_root_offset);
    pairs.set_limit(root_limit(directory));
    pairs.set_count(1);
    pairs.set(0, 0, as_pointer(leaf.logical));
    root.buffer->set_kind(BlockKind::htree);
    set_dir_checksum(directory, root, DirBlock::root);

    MutexLock map(directory.map_lock);
    directory.set_flags(directory.flags() | format::inode_flag::index);
    return directory.store(handle);
}

}  // namespace hashed_dir
}  // namespace uext4
