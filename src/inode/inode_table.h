// The inodes in memory, by number.
#pragma once

#include "inode/inode.h"

#include <functional>
#include <memory>

namespace uext4 {

struct NewInode {
    InodeNr parent;          // for placement and inheritance of flags
    std::uint16_t mode = 0;  // with the file type
    std::uint32_t uid = 0, gid = 0;
    std::uint64_t rdev = 0;             // dev_t, for device nodes
    std::uint32_t inherited_flags = 0;  // of the parent (the table masks them by file type)
};

class InodeTable {
public:
    explicit InodeTable(FsContext& fs);
    ~InodeTable();

    // The inode, from memory or from disk. Validated: number in range, bitmap not consulted, checksum, i_extra_isize,
    // mode, size against the format's limits, inline/extents flags. ENOENT-like ESTALE when it is not in use
    // (links 0 and not an orphan being opened: see allow_unlinked). EUCLEAN names inode and field.
    Result<InodeRef> get(InodeNr number, bool allow_unlinked = false);
    InodeRef find(InodeNr number);  // only if it is in memory
    // Allocates and initialises a new inode, stored under `handle` (links 0, times now, generation random, extents or
    // inline flag as the file system's features say). The caller holds nothing of it yet; it is returned with rw
    // unlocked.
    Result<InodeRef> create(Handle& handle, const NewInode& what);
    static constexpr unsigned create_credits() { return Allocator::inode_credits() + 2; }
    // Frees the number (links 0, no blocks left) under `handle`; called by the deleter.
    Result<void> free_inode(Handle& handle, Inode& inode);

    // Called (no lock held) when the last reference to an inode with links 0 goes: it queues the inode for deletion. It
    // receives the one reference that keeps it alive.
    void set_delete_callback(std::function<void(InodeRef)> queue);
    // How many inodes may stay in memory, but for those that are referenced, or have dirty pages or times that are not
    // stored yet.
    void set_limit(std::size_t inodes);
    // Evicts clean unreferenced inodes beyond the limit, and what is cached of them: locks folios. get() and create()
    // evict too, a few and only such that have no folios, as a handle may be open there. Nothing is held: where there
    // are far too many, a commit is waited for.
    void shrink_to_limit();
    // There are far too many: what they wait for does not keep up. A thread that stores the times of all of
    // oldest_times_pending() and calls shrink_to_limit() then ends it. No lock is taken.
    bool is_overcommitted() const;
    // There are more than the limit: because of such that have folios (or whose commit is awaited), which
    // shrink_to_limit() may help, or of such whose times wait to be stored. No lock is taken.
    enum class Excess { cached, times_pending };
    bool has_excess(Excess which) const;
    // Where more than the limit are in memory because their times wait to be stored: up to `most` of them, of the
    // oldest, and no more than have to be stored for that.
    std::vector<InodeRef> oldest_times_pending(std::size_t most);
    // Slots that eviction and oldest_times_pending() have looked at since the table was made.
    std::uint64_t scanned_inodes() const;
    // Visits inodes in memory that are in use or have something to write back (referenced while visited).
    void for_each(const std::function<void(InodeRef)>& visit);
    // How many for_each() has visited since the table was made.
    std::uint64_t visited_inodes() const;
    void evict_all();  // at unmount: everything is clean and unreferenced

private:
    friend class InodeRef;
    struct State;
    enum class Evict { without_folios, any };
    bool evict(Evict what);
    std::unique_ptr<State> state_;
};

}  // namespace uext4
