// Chooses the layout, and the steps from one to the next.
#include "namespace/directory.h"

#include "inode/inline_data.h"
#include "namespace/dir_layouts.h"
#include "namespace/encrypted_name.h"

#include <dirent.h>

#include <algorithm>

namespace uext4 {

bool is_hashed(const Inode& directory) { return directory.has_flag(format::inode_flag::index); }

bool has_encrypted_names(const Inode& directory) { return directory.has_flag(format::inode_flag::encrypt); }

bool lists_in_hash_order(const Inode& directory) {
    if (is_hashed(directory)) return true;
    if (!directory.fs().geometry.has_compat(format::compat::dir_index)) return false;
    return directory.is_inline() || directory.size_hint() <= directory.fs().block_size();
}

Result<FoundEntry> checked_entry(const Inode& directory, LogicalBlock block, const ListedEntry& entry) {
    if (!entry.inode || entry.inode.value > directory.fs().geometry.inodes_count)
        return fail(EUCLEAN, "directory {}: block {}, offset {}: inode number {} is out of range", directory.number(),
                    block, entry.offset, entry.inode);
    if (entry.name.empty())
        return fail(EUCLEAN, "directory {}: block {}, offset {}: an empty name", directory.number(), block,
                    entry.offset);
    if (entry.name.find_first_of(std::string_view("\0/", 2)) != std::string_view::npos &&
        !has_encrypted_names(directory))
        return fail(EUCLEAN, "directory {}: block {}, offset {}: a name with a zero byte or '/'", directory.number(),
                    block, entry.offset);
    const std::uint8_t type = format::dt_of_file_type(entry.type);
    return FoundEntry{entry.inode, type,
                      type == DT_UNKNOWN && entry.type != 0 && directory.fs().geometry.has_filetype()};
}

std::uint8_t disk_type(const Inode& directory, std::uint8_t dt) {
    return directory.fs().geometry.has_filetype() ? format::file_type_of_dt(dt) : 0;
}

void write_dot_entries(const Inode& directory, MutableEntryList list, InodeNr parent, std::uint32_t end_of_dotdot) {
    const std::uint8_t type = disk_type(directory, DT_DIR);
    list.write_entry(0, dotdot_offset, ".", directory.number(), type);
    list.write_entry(dotdot_offset, end_of_dotdot - dotdot_offset, "..", parent, type);
}

Result<LocatedEntry> located_entry(const Inode& directory, DirBuffer block, const ListedEntry& entry, bool in_root) {
    const FoundEntry found = TRY(checked_entry(directory, block.logical, entry));
    return LocatedEntry{found, std::move(block.buffer), block.logical, entry.offset, in_root};
}

// The hashes of an index are those of other names than the ones that are shown.
bool Directory::needs_linear_search(std::string_view name) const {
    const bool folded = inode_.has_flag(format::inode_flag::casefold) && is_hashed(inode_);
    return (has_encrypted_names(inode_) || folded) && !is_dot_or_dotdot(name);
}

Result<std::optional<FoundEntry>> Directory::find(std::string_view name) const {
    if (needs_linear_search(name)) return find_linear(name);
    const auto place = TRY(locate_stored(name));
    if (!place) return std::nullopt;
    return place->entry;
}

Result<std::optional<LocatedEntry>> Directory::locate(std::string_view name) const {
    if (!needs_linear_search(name)) return locate_stored(name);
    std::string stored;
    const auto found = TRY(find_linear(name, &stored));
    if (!found) return std::nullopt;
    if (!inode_.has_flag(format::inode_flag::casefold)) return locate_stored(stored);
    return LocatedEntry{*found, {}, {}};  // a hash with a key, or of the folded name: nothing is changed there
}

Result<std::optional<LocatedEntry>> Directory::locate_stored(std::string_view name) const {
    if (is_hashed(inode_) && !inode_.is_inline()) return hashed_dir::locate(inode_, name);
    if (!inode_.is_inline()) return linear_dir::locate(inode_, name);
    const auto found = TRY(inline_dir::find(inode_, name));
    if (!found) return std::nullopt;
    return LocatedEntry{*found, {}, {}};
}

Result<std::optional<FoundEntry>> Directory::find_linear(std::string_view name, std::string* stored) const {
    std::optional<FoundEntry> found;
    const bool cipher = has_encrypted_names(inode_);
    const Result<void> listed = iterate_stored(0, [&](const Entry& entry) {
        const bool as_it_is = !cipher || is_dot_or_dotdot(entry.name);
        if (as_it_is ? entry.name != name : encoded_encrypted_name(entry.name, entry.inode) != name) return true;
        found = FoundEntry{entry.inode, entry.type, entry.has_wrong_type};
        if (stored) *stored = entry.name;
        return false;
    });
    if (!found) TRY(listed);
    return found;
}

Result<InodeNr> Directory::parent() const {
    if (inode_.is_inline()) return inline_dir::parent(inode_);
    const auto found = TRY(find(".."));
    if (!found) return fail(EUCLEAN, "directory {}: block 0 has no entry \"..\"", inode_.number());
    return found->inode;
}

Result<bool> Directory::is_empty() const {
    if (inode_.is_inline()) return inline_dir::is_empty(inode_);
    if (is_hashed(inode_)) return hashed_dir::is_empty(inode_);
    return linear_dir::is_empty(inode_);
}

Result<void> Directory::iterate(std::uint64_t cookie, const std::function<bool(const Entry&)>& visit) const {
    if (!has_encrypted_names(inode_)) return iterate_stored(cookie, visit);
    return iterate_stored(cookie, [&](const Entry& entry) {
        if (is_dot_or_dotdot(entry.name)) return visit(entry);
        const std::string name = encoded_encrypted_name(entry.name, entry.inode);
        return visit({name, entry.inode, entry.type, entry.next_cookie, entry.has_wrong_type});
    });
}

Result<void> Directory::iterate_stored(std::uint64_t cookie, const std::function<bool(const Entry&)>& visit) const {
    if (inode_.is_inline()) return inline_dir::iterate(inode_, cookie, visit);
    if (is_hashed(inode_)) return hashed_dir::iterate(inode_, cookie, visit);
    return linear_dir::iterate(inode_, cookie, visit);
}

Result<void> Directory::initialise(Handle& handle, InodeNr parent, bool privileged) {
    const bool was_inline = inode_.is_inline();
    if (was_inline) {
        // Inherited attributes may have taken the room.
        const auto done = inline_dir::initialise(handle, inode_, parent);
        if (done || done.error().code != ENOSPC) return done;
    }
    const DirBuffer block =
        TRY(was_inline ? append_first_block(handle, inode_, privileged) : append_block(handle, inode_, privileged));
    const std::uint32_t capacity = leaf_capacity(inode_);
    MutableEntryList list(block.buffer->data().first(capacity), inode_.fs().block_size());
    write_dot_entries(inode_, list, parent, capacity);
    block.buffer->set_kind(BlockKind::directory);
    set_dir_checksum(inode_, block, DirBlock::leaf);
    return {};
}

Result<void> Directory::add(Handle& handle, std::string_view name, InodeNr inode, std::uint8_t type, bool privileged) {
    if (inode_.is_inline()) {
        if (TRY(inline_dir::add(handle, inode_, name, inode, type))) return {};
        TRY(inline_dir::convert(handle, inode_, privileged));
    }
    if (!is_hashed(inode_)) {
        if (TRY(linear_dir::add_in_place(handle, inode_, name, inode, type))) return {};
        const bool indexes = inode_.fs().geometry.has_compat(format::compat::dir_index);
        const bool becomes_hashed = indexes && TRY(dir_block_count(inode_))
        == 1;
        if (!becomes_hashed) return linear_dir::add_block(handle, inode_, name, inode, type, privileged);
        TRY(hashed_dir::convert(handle, inode_, privileged));
    }
    return hashed_dir::add(handle, inode_, name, inode, type, privileged);
}

Result<PinnedEntry> Directory::pin(Handle& handle, std::string_view name) const {
    auto place = TRY(locate_stored(name));
    if (!place) return fail(ENOENT, "no such entry in directory {}", inode_.number());
    if (place->block) TRY(handle.get_write_access(place->block));
    return PinnedEntry{name, std::move(*place)};
}

Result<PinnedEntry> Directory::pin(Handle& handle, std::string_view name, LocatedEntry place) const {
    // A block that two owners claim may have been freed by the other one meanwhile.
    if (!place.block || place.block->kind() == BlockKind::unchecked) {
        auto again = TRY(locate(name));
        if (!again) return fail(ENOENT, "no such entry in directory {}", inode_.number());
        place = std::move(*again);
    }
    if (!place.block) return PinnedEntry{name, std::move(place)};
    TRY(handle.get_write_access(place.block));
    return PinnedEntry{name, std::move(place)};
}

namespace {

MutableEntryList list_around(const Inode& directory, const PinnedEntry& entry) {
    const Bytes block = entry.location.block->data();
    return {entry.location.in_index_root ? block : block.first(leaf_capacity(directory)), directory.fs().block_size()};
}

void sum_up(Inode& directory, const PinnedEntry& entry) {
    set_dir_checksum(directory, DirBuffer{entry.location.block, entry.location.logical},
                     entry.location.in_index_root ? DirBlock::root : DirBlock::leaf);
}

}  // namespace

Result<void> Directory::remove(Handle& handle, const PinnedEntry& entry) {
    if (is_dot_or_dotdot(entry.name)) return fail(EINVAL, "\".\" and \"..\" cannot be removed");
    if (!entry.location.block) return inline_dir::remove(handle, inode_, entry.name);
    list_around(inode_, entry).remove(entry.location.offset);
    sum_up(inode_, entry);
    return {};
}

Result<void> Directory::remove(Handle& handle, std::string_view name) { return remove(handle, TRY(pin(handle, name))); }

Result<void> Directory::replace(Handle& handle, const PinnedEntry& entry, InodeNr inode, std::uint8_t type) {
    if (!entry.location.block) {
        if (entry.name == "..") return inline_dir::set_parent(handle, inode_, inode);
        return inline_dir::replace(handle, inode_, entry.name, inode, type);
    }
    list_around(inode_, entry).set_inode(entry.location.offset, inode, disk_type(inode_, type));
    sum_up(inode_, entry);
    return {};
}

Result<void> Directory::set_parent(Handle& handle, InodeNr parent) {
    return replace(handle, TRY(pin(handle, "..")), parent, DT_DIR);
}

// New blocks that one name may cost: leaving the inode, becoming hashed, a split on each level or one level more, and
// up to three splits of leaves, which long names in small blocks may take.
unsigned Directory::max_new_blocks() const {
    constexpr unsigned leaf_splits = 3;
    if (is_hashed(inode_)) return hashed_dir::max_levels(inode_) + 1 + leaf_splits;
    if (lists_in_hash_order(inode_)) return (inode_.is_inline() ? 1 : 0) + 1 + leaf_splits;
    return inode_.is_inline() ? 2 : 1;
}

unsigned Directory::add_credits() const {
    // Changed blocks: the way through the index.
    return append_credits(inode_, max_new_blocks()) + hashed_dir::max_levels(inode_) + 2 + Inode::store_credits();
}

unsigned Directory::change_credits() const { return 2 + Inode::store_credits(); }

}  // namespace uext4
