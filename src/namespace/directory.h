// One directory inode as a table of names. Three layouts behind one interface: inside the inode (inline), a list of
// blocks (linear), and blocks found by the hash of the name (hashed). A directory grows from one into the next and
// never back.
//
// Locks: the directory's `rw` is held by the caller: any mode for the const methods, exclusively for those that take a
// handle. The methods take map_lock themselves, which guards where the blocks lie; rw guards what is in them.
//
// Invariants
//   D1  Every block was validated as a directory block of this inode before an entry of it is believed, and every entry
//       fills its block without gap.
//   D2  "." and ".." are the first two entries of block 0 (an inline directory stores only the parent's number).
//   D3  In a hashed directory a name lies in the leaf whose hash range holds its hash; a range that starts inside a run
//       of equal hashes has bit 0 of its start set.
#pragma once

#include "inode/inode.h"

#include <functional>
#include <optional>
#include <string_view>

namespace uext4 {

struct FoundEntry {
    InodeNr inode;
    std::uint8_t type = 0;        // DT_*
    bool has_wrong_type = false;  // what is on disk stands for no type; 0 stands for one that is not known
};

// An entry and where it lies, as long as no name is added to the directory.
struct LocatedEntry {
    FoundEntry entry;
    BufferRef block;  // none: in the inode; or nobody knows, of a name that is found by listing all
    LogicalBlock logical;
    std::uint32_t offset = 0;
    bool in_index_root = false;  // "." or ".." of a hashed directory
};

// It lies in a block that has joined the transaction: what is changed there needs nothing of the device, as long as the
// handle is open.
struct PinnedEntry {
    std::string_view name;
    LocatedEntry location;
};

class Directory {
public:
    explicit Directory(Inode& inode) : inode_(inode) {}

    // The entry of that name; nothing when there is none. "." and ".." are found too. Where names are encrypted, of
    // what stands for one (encrypted_name.h); where case does not count, of that very name.
    Result<std::optional<FoundEntry>> find(std::string_view name) const;
    Result<std::optional<LocatedEntry>> locate(std::string_view name) const;  // the same, for pin()
    Result<InodeNr> parent() const;
    // No entry but "." and "..".
    Result<bool> is_empty() const;
    // One entry for iterate(): `next` continues behind it.
    struct Entry {
        std::string_view name;
        InodeNr inode;
        std::uint8_t type = 0;
        std::uint64_t next_cookie = 0;
        bool has_wrong_type = false;
    };
    // Entries from `cookie` on in a stable order, "." and ".." first, until `visit` returns false. An entry or a block
    // that is damaged or cannot be read is passed over, and is the error behind the rest: so that what is visited
    // before an error is as good as any.
    Result<void> iterate(std::uint64_t cookie, const std::function<bool(const Entry&)>& visit) const;

    // ---- changes, under a handle with the credits below. The inode is stored when its size or blocks change; times,
    // link counts and version are the caller's.
    // A fresh inode (inline if it has the flag) becomes an empty directory.
    Result<void> initialise(Handle& handle, InodeNr parent, bool privileged);
    // The name must not be there. ENOSPC leaves the directory as it was, or reshaped but with the same names.
    Result<void> add(Handle& handle, std::string_view name, InodeNr inode, std::uint8_t type, bool privileged);
    // Reads all that a change of the entry needs (the inode's own block apart: names::join). ENOENT if it is not there.
    // `name` must outlive what is returned.
    Result<PinnedEntry> pin(Handle& handle, std::string_view name) const;
    Result<PinnedEntry> pin(Handle& handle, std::string_view name, LocatedEntry place) const;  // where it was found
    Result<void> remove(Handle& handle, const PinnedEntry& entry);
    Result<void> remove(Handle& handle, std::string_view name);
    // Of ".." only the inode counts: another parent.
    Result<void> replace(Handle& handle, const PinnedEntry& entry, InodeNr inode, std::uint8_t type);
    Result<void> set_parent(Handle& handle, InodeNr parent);

    // Worst-case blocks of one add or initialise; of one remove, replace or set_parent.
    unsigned add_credits() const;
    unsigned change_credits() const;

private:
    bool needs_linear_search(std::string_view name) const;
    Result<std::optional<FoundEntry>> find_linear(std::string_view name, std::string* stored = nullptr) const;
    Result<std::optional<LocatedEntry>> locate_stored(std::string_view name) const;
    // Names as they are on disk.
    Result<void> iterate_stored(std::uint64_t cookie, const std::function<bool(const Entry&)>& visit) const;
    unsigned max_new_blocks() const;
    Inode& inode_;
};

}  // namespace uext4
