// The three layouts of a directory. Contracts and locks as in directory.h; each function wants a directory of its
// layout.
#pragma once

#include "namespace/dir_blocks.h"
#include "namespace/directory.h"
#include "namespace/entry_list.h"

namespace uext4 {

using VisitEntry = std::function<bool(const Directory::Entry&)>;

// The directory has an index. The flag alone counts: an index stays usable when the file system loses the feature.
bool is_hashed(const Inode& directory);
// Its entries hold ciphertext, which may have any byte. They are shown as encoded_encrypted_name() says.
bool has_encrypted_names(const Inode& directory);
bool lists_in_hash_order(const Inode& directory);  // cookies are hashes (now, or as soon as it becomes hashed)

// As the entry says: a number out of range is EUCLEAN.
Result<FoundEntry> checked_entry(const Inode& directory, LogicalBlock block, const ListedEntry& entry);
// The same, with the block that it lies in.
Result<LocatedEntry> located_entry(const Inode& directory, DirBuffer block, const ListedEntry& entry, bool in_root);
std::uint8_t disk_type(const Inode& directory, std::uint8_t dt);  // DT_* to the entry's byte (0 without filetype)
// The entries "." and ".." of block 0; `parent` by "..".
void write_dot_entries(const Inode& directory, MutableEntryList list, InodeNr parent, std::uint32_t end_of_dotdot);

// What a leaf of a list or of an index holds.
inline EntryList list_of(const Inode& directory, const DirBuffer& leaf) {
    return {leaf.data().first(leaf_capacity(directory)), directory.fs().block_size()};
}
inline MutableEntryList list_of(const Inode& directory, Bytes leaf) {
    return {leaf.first(leaf_capacity(directory)), directory.fs().block_size()};
}

inline bool is_dot_or_dotdot(std::string_view name) { return name == "." || name == ".."; }

// Where ".."'s record lies, and the first place for a name after it.
inline constexpr std::uint32_t dotdot_offset = 12;
inline constexpr std::uint32_t names_offset = 24;

namespace linear_dir {
Result<std::optional<LocatedEntry>> locate(Inode& directory, std::string_view name);
Result<bool> is_empty(Inode& directory);
// True: added. False: there was no room and nothing was changed (the directory should become hashed).
Result<bool> add_in_place(Handle& handle, Inode& directory, std::string_view name, InodeNr inode, std::uint8_t type);
Result<void> add_block(Handle& handle, Inode& directory, std::string_view name, InodeNr inode, std::uint8_t type,
                       bool privileged);
Result<void> iterate(Inode& directory, std::uint64_t cookie, const VisitEntry& visit);
}  // namespace linear_dir

namespace hashed_dir {
Result<std::optional<LocatedEntry>> locate(Inode& directory, std::string_view name);
Result<bool> is_empty(Inode& directory);
Result<void> add(Handle& handle, Inode& directory, std::string_view name, InodeNr inode, std::uint8_t type,
                 bool privileged);
// A full linear directory of one block becomes hashed, with the same names.
Result<void> convert(Handle& handle, Inode& directory, bool privileged);
Result<void> iterate(Inode& directory, std::uint64_t cookie, const VisitEntry& visit);
unsigned max_levels(const Inode& directory);  // index levels below the root
}  // namespace hashed_dir

namespace inline_dir {
Result<std::optional<FoundEntry>> find(Inode& directory, std::string_view name);
Result<InodeNr> parent(Inode& directory);
Result<bool> is_empty(Inode& directory);
// False: no room, nothing changed.
Result<bool> add(Handle& handle, Inode& directory, std::string_view name, InodeNr inode, std::uint8_t type);
Result<void> remove(Handle& handle, Inode& directory, std::string_view name);
Result<void> replace(Handle& handle, Inode& directory, std::string_view name, InodeNr inode, std::uint8_t type);
Result<void> set_parent(Handle& handle, Inode& directory, InodeNr parent);
Result<void> initialise(Handle& handle, Inode& directory, InodeNr parent);
// Moves the names to block 0, at the places that iterate() told for them.
Result<void> convert(Handle& handle, Inode& directory, bool privileged);
Result<void> iterate(Inode& directory, std::uint64_t cookie, const VisitEntry& visit);
}  // namespace inline_dir

}  // namespace uext4
