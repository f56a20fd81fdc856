// What the operations on names share: their state, the checks before them, the locks around them.
#pragma once

#include "namespace/dentry_cache.h"
#include "namespace/dir_layouts.h"
#include "namespace/namespace.h"

#include <array>
#include <vector>

namespace uext4 {

namespace names {

struct NamespaceState {
    FsContext& fs;
    InodeTable& inodes;
    OrphanList& orphans;
    // Held by a rename that moves something from one directory to another, so that ".." and ancestry stand still.
    Mutex topology{Rank::Topology, "Namespace::topology"};
    DentryCache dentries{dentry_cache_slots(fs)};

    static std::size_t dentry_cache_slots(const FsContext& fs);
};

inline constexpr std::uint32_t link_max = 65000;
inline constexpr std::size_t name_max = 255;

// ENOENT for the empty name, ENAMETOOLONG, EINVAL for '/' or a zero byte.
Result<void> check_name(std::string_view name);
using uext4::is_dot_or_dotdot;

// The directory's rw held. ENOTDIR, ENOENT for a removed one.
Result<void> check_not_removed(const Inode& directory);
// The group of what is made in the directory.
std::uint32_t group_for_new_inode(const FsContext& fs, const Inode& directory, const Credentials& who);
// May a name be made (removed) in the directory: permission (when `check`), and the immutable and append-only flags.
Result<void> check_may_create(Inode& directory, const Credentials& who, bool check);
Result<void> check_may_remove(Inode& directory, const Inode& victim, const Credentials& who, bool check);

// Names that this program cannot write stay as they are: ENOKEY in an encrypted directory, to which a name cannot be
// added without its key; EOPNOTSUPP in one whose names are looked up by folding their case.
Result<void> check_can_link(const Inode& directory);
// The same of a name that goes: without the key it can be taken away.
Result<void> check_can_unlink(const Inode& directory);

// Exclusive rw of several inodes, taken in the order given: the caller passes ancestors first, then ascending numbers,
// directories before others. An inode that is given twice is locked once.
class LockedInodes {
public:
    void add(Inode& inode, SourceLocation where = SourceLocation::current());
    // A directory below one that is held is not waited for, as in a damaged image it may lie above it as well: false
    // where somebody has it. The caller then gives up what he holds, waits, and begins again.
    [[nodiscard]] bool try_add(Inode& inode, SourceLocation where = SourceLocation::current());
    static void wait_for(Inode& inode, SourceLocation where = SourceLocation::current());  // nothing held
    void release();
    ~LockedInodes() { release(); }
    LockedInodes() { held_.reserve(most); }
    LockedInodes(const LockedInodes&) = delete;
    LockedInodes& operator=(const LockedInodes&) = delete;

private:
    static constexpr std::size_t most = 4;  // two directories, what moves and what it replaces
    bool holds(const Inode& inode) const;

    std::vector<std::pair<Inode*, UniqueWriteLock>> held_;
};

// One lookup with the directory's rw held: ENOENT when absent. `get` reports an entry whose inode is not in use as
// EUCLEAN.
Result<InodeRef> find_inode(NamespaceState& state, Inode& directory, std::string_view name);
Result<InodeRef> find_inode_optional(NamespaceState& state, Inode& directory,
                                     std::string_view name);  // null when absent
// Whether the directory has the name.
Result<bool> has_name(NamespaceState& state, Inode& directory, std::string_view name);
Result<InodeRef> get_entry_inode(NamespaceState& state, Inode& directory, std::string_view name, InodeNr number);
std::uint8_t type_of_mode(std::uint16_t mode);  // DT_*

// ---- with a handle open and rw held exclusively; they take map_lock and store the inode.
// The inodes' blocks join the transaction, so that storing them later reads nothing. It goes before the first change: a
// device that fails in between would leave a name without an inode, or an inode that no list knows. Null is nothing.
Result<void> get_write_access(Handle& handle, std::initializer_list<Inode*> inodes);
// The inode loses a name: if that is its last, it becomes an orphan. True then.
Result<bool> prepare_drop_link(NamespaceState& state, Handle& handle, Inode& inode);
// mtime and ctime of a directory whose entries changed.
Result<void> update_directory_times(Handle& handle, Inode& directory);
// Adds `delta` subdirectories to its link count as well.
Result<void> update_directory_times(Handle& handle, Inode& directory, int delta);
// One name less (or all, for a directory): ctime; with no link left it becomes an orphan.
Result<void> drop_link(NamespaceState& state, Handle& handle, Inode& inode);
// One name more: ctime.
Result<void> add_link(Handle& handle, Inode& inode);
Result<void> change_ctime(Handle& handle, Inode& inode);
// A new inode that got no name: it becomes an orphan, so that its last reference deletes it. The error that led here is
// what the caller reports.
void undo_create(NamespaceState& state, Handle& handle, Inode& inode);
// EMLINK when the directory cannot have one more subdirectory.
Result<void> check_subdirectory_limit(const Inode& directory);

}  // namespace names

struct Namespace::State final : names::NamespaceState {};

}  // namespace uext4
