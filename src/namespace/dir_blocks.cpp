#include "namespace/dir_blocks.h"

#include "format/dir_hash.h"
#include "format/directory.h"
#include "namespace/dir_layouts.h"
#include "namespace/index_node.h"

#include <algorithm>

namespace uext4 {

namespace {

constexpr std::uint32_t smallest_record = 12;
constexpr std::uint8_t last_hash_version = 2;

std::uint32_t seed_of(const Inode& directory) {
    return format::inode_seed(directory.fs().geometry, directory.number(), directory.generation());
}

std::uint32_t pairs_offset(DirBlock what) { return what == DirBlock::root ? index_root_offset : index_node_offset; }

// Names the place of what is wrong.
struct Spot {
    const Inode& directory;
    LogicalBlock block;
    template <class... Args>
    std::unexpected<Error> bad(std::uint32_t offset, fmt::format_string<Args...> text, Args&&... args) const {
        return fail(EUCLEAN, "directory {}: block {}, offset {}: {}", directory.number(), block, offset,
                    fmt::format(text, std::forward<Args>(args)...));
    }
};

// That records follow each other. What is wrong with a name or a number costs that entry only (checked_entry()).
Result<void> check_record(const Spot& spot, ConstBytes list, std::uint32_t offset, std::uint32_t start) {
    const auto& disk = view_as<format::DirEntryDisk>(list, offset);
    const std::uint32_t length = format::decode_rec_len(disk.rec_len, spot.directory.fs().block_size());
    const auto at = start + offset;
    if (length < smallest_record || length % 4 != 0 || length > list.size() - offset)
        return spot.bad(at, "record length {}", length);
    if (8u + disk.name_len > length) return spot.bad(at, "name length {} in a record of {}", disk.name_len, length);
    return {};
}

Result<void> check_records(const Spot& spot, ConstBytes list, std::uint32_t start) {
    const std::uint32_t block_size = spot.directory.fs().block_size();
    for (std::uint32_t offset = 0; offset < list.size();) {
        if (list.size() - offset < smallest_record)
            return spot.bad(start + offset, "{} bytes are too few for a record", list.size() - offset);
        TRY(check_record(spot, list, offset, start));
        offset += format::decode_rec_len(view_as<format::DirEntryDisk>(list, offset).rec_len, block_size);
    }
    return {};
}

// D2, in block 0 of a linear directory and in the root of a hashed one.
Result<void> check_dots(const Spot& spot, ConstBytes block, std::uint32_t dotdot_length) {
    const EntryList list(block, spot.directory.fs().block_size());
    const auto dot = list.at(0);
    if (!dot || !dot->used() || dot->name != "." || dot->length != dotdot_offset)
        return spot.bad(0, "the first entry is not \".\"");
    const auto dotdot = list.at(dotdot_offset);
    if (!dotdot || !dotdot->used() || dotdot->name != ".." || (dotdot_length && dotdot->length != dotdot_length))
        return spot.bad(dotdot_offset, "the second entry is not \"..\"");
    if (dotdot->inode.value > spot.directory.fs().geometry.inodes_count)
        return spot.bad(dotdot_offset, "inode number {} is out of range", dotdot->inode);
    return {};
}

Result<void> check_leaf(const Spot& spot, ConstBytes block) {
    const Inode& directory = spot.directory;
    const std::uint32_t capacity = leaf_capacity(directory);
    if (directory.fs().geometry.metadata_csum()) {
        if (!format::dir_tail_present(block))
            return spot.bad(capacity, "the record that holds the checksum is missing");
        if (!format::dir_leaf_checksum_ok(directory.fs().geometry, seed_of(directory), block))
            return spot.bad(capacity, "the checksum does not match");
    }
    TRY(check_records(spot, block.first(capacity), 0));
    if (spot.block.value == 0) return check_dots(spot, block.first(capacity), 0);
    return {};
}

std::uint32_t tail_of_index(const Inode& directory) {
    return directory.fs().geometry.metadata_csum() ? index_tail_size : 0;
}

// What keeps every access to the pairs within the block. Looked at each time: the buffer may have been validated as
// another directory's index block, if two of them claim it.
Result<void> check_bounds(const Spot& spot, ConstBytes block, DirBlock what) {
    const std::uint32_t offset = pairs_offset(what);
    const std::uint32_t room = spot.directory.fs().block_size() - offset - tail_of_index(spot.directory);
    const std::uint32_t limit = view_as<Le16>(block, offset);
    const std::uint32_t count = view_as<Le16>(block, offset + 2);
    if (limit != room / index_entry_size)
        return spot.bad(offset, "the index's limit is {}, not {}", limit, room / index_entry_size);
    if (count == 0 || count > limit) return spot.bad(offset + 2, "the index's count is {} of {}", count, limit);
    return {};
}

Result<void> check_pairs(const Spot& spot, ConstBytes block, DirBlock what) {
    const Inode& directory = spot.directory;
    TRY(check_bounds(spot, block, what));
    const std::uint32_t offset = pairs_offset(what);
    const IndexView pairs(block, offset);
    const std::uint32_t count = pairs.count();
    for (std::uint32_t i = 1; i < count; ++i)
        if (pairs.hash(i) < pairs.hash(i - 1))
            return spot.bad(offset + i * index_entry_size, "the index is not in ascending order");
    if (!format::dir_index_checksum_ok(directory.fs().geometry, seed_of(directory), block, offset))
        return spot.bad(directory.fs().block_size() - tail_of_index(directory), "the index's checksum does not match");
    return {};
}

Result<void> check_root(const Spot& spot, ConstBytes block) {
    const std::uint32_t block_size = spot.directory.fs().block_size();
    TRY(check_dots(spot, block, block_size - dotdot_offset));
    if (view_as<Le32>(block, index_info_offset) != 0) return spot.bad(index_info_offset, "reserved bytes are not zero");
    const unsigned version = byte_at(block, hash_version_offset);
    const bool sip = version == static_cast<unsigned>(format::HashVersion::siphash) &&
                     has_encrypted_names(spot.directory) && spot.directory.has_flag(format::inode_flag::casefold);
    if (version > last_hash_version && !sip)
        return spot.bad(hash_version_offset, "hash version {} is unknown", version);
    const unsigned info_length = byte_at(block, info_length_offset);
    if (info_length != index_info_length) return spot.bad(info_length_offset, "info length {}", info_length);
    const unsigned levels = byte_at(block, index_levels_offset);
    if (levels > hashed_dir::max_levels(spot.directory))
        return spot.bad(index_levels_offset, "{} index levels below the root", levels);
    return check_pairs(spot, block, DirBlock::root);
}

Result<void> check_node(const Spot& spot, ConstBytes block) {
    const auto& disk = view_as<format::DirEntryDisk>(block);
    const std::uint32_t block_size = spot.directory.fs().block_size();
    if (disk.inode != 0 || format::decode_rec_len(disk.rec_len, block_size) != block_size)
        return spot.bad(0, "not an index block");
    return check_pairs(spot, block, DirBlock::node);
}

}  // namespace

std::uint32_t leaf_capacity(const Inode& directory) {
    const bool tail = directory.fs().geometry.metadata_csum();
    return directory.fs().block_size() - (tail ? static_cast<std::uint32_t>(sizeof(format::DirTail)) : 0);
}

Result<void> check_entry_list(const Inode& directory, ConstBytes bytes, std::uint32_t start) {
    return check_records(Spot{directory, LogicalBlock(0)}, bytes, start);
}

Result<std::uint64_t> dir_block_count(Inode& directory) {
    const std::uint64_t size = directory.size_hint();
    const std::uint32_t block_size = directory.fs().block_size();
    if (size == 0 || size % block_size != 0)
        return fail(EUCLEAN, "directory {}: i_size is {}, expected a multiple of {}", directory.number(), size,
                    block_size);
    // It has no holes, so that many blocks have to be there.
    if (const std::uint64_t most = directory.fs().geometry.blocks_count; size / block_size > most)
        return fail(EUCLEAN, "directory {}: size {} is more than the {} blocks of the file system", directory.number(),
                    size, most);
    return size / block_size;
}

std::uint64_t readable_dir_blocks(Inode& directory, DirErrors& damage) {
    Result<std::uint64_t> blocks = dir_block_count(directory);
    if (blocks) return *blocks;
    (void)damage.note(std::move(blocks.error()));
    const std::uint64_t reached = divide_up(directory.size_hint(), std::uint64_t{directory.fs().block_size()});
    return std::min(reached, directory.fs().geometry.blocks_count);
}

Result<DirBuffer> read_dir_block(Inode& directory, LogicalBlock logical, DirBlock what) {
    const Spot spot{directory, logical};
    if (logical.value >= divide_up(directory.size_hint(), std::uint64_t{directory.fs().block_size()}))
        return spot.bad(0, "beyond the directory's size");
    MappedRun run;
    {
        MutexLock map(directory.map_lock);
        run = TRY(directory.map().lookup(logical, 1));
    }
    if (run.hole() || run.unwritten) return spot.bad(0, "a hole");
    BufferRef buffer = TRY(directory.fs().buffers.read(run.physical, "directory block"));
    const BlockKind kind = what == DirBlock::leaf ? BlockKind::directory : BlockKind::htree;
    // Block 0 and the inner blocks are told apart by their number; a leaf is never block 0 of a hashed directory.
    if (buffer->kind() != kind) {
        const ConstBytes block = buffer->data();
        if (what == DirBlock::leaf) TRY(check_leaf(spot, block));
        else if (what == DirBlock::root) TRY(check_root(spot, block));
        else TRY(check_node(spot, block));
        buffer->set_kind(kind);
    } else if (what != DirBlock::leaf) {
        TRY(check_bounds(spot, buffer->data(), what));
    }
    return DirBuffer{std::move(buffer), logical};
}

Result<void> VisitedDirBlocks::add(const Inode& directory, const DirBuffer& block) {
    const BlockNr place = block.buffer->block();
    if (blocks_.insert(place.value).second) return {};
    return fail(EUCLEAN, "directory {}: block {}: it is block {}, as one before it", directory.number(), block.logical,
                place);
}

bool DirErrors::note(Error error) {
    constexpr unsigned most = 1000;
    if (first_) first_ = fail(std::move(error));
    return ++count_ < most;
}

Result<Bytes> get_dir_block_write_access(Handle& handle, const DirBuffer& block) {
    TRY(handle.get_write_access(block.buffer));
    return block.buffer->data();
}

void set_dir_checksum(Inode& directory, const DirBuffer& block, DirBlock what) {
    const Bytes bytes = block.buffer->data();
    const format::Geometry& geometry = directory.fs().geometry;
    if (what == DirBlock::leaf) format::set_dir_leaf_checksum(geometry, seed_of(directory), bytes);
    else format::set_dir_index_checksum(geometry, seed_of(directory), bytes, pairs_offset(what));
}

}  // namespace uext4
