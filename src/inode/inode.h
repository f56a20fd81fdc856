// An inode in memory.
//
// Locks: `rw` (rank Inode, ordered by number) for operations; `map_lock` (rank Map) for everything that the inode's own
// bytes say: attributes, size, places, inline area, attribute area. Methods say which they need.
//
// Invariants
//   I1  raw() is what the inode table gets; its i_size is the size on disk, never ahead of the data (size() is the
//       size that users see).
//   I2  Every change of raw() is stored by store() under a handle, or marked times_pending: times alone, and what a
//       store() has failed for.
//   I3  last_tid() is the newest transaction that holds a change of this inode; data_tid() the newest one that an
//       fdatasync needs; uncommitted_moves() those that have given the file's blocks another meaning.
#pragma once

#include "base/bytes.h"
#include "extent/block_map.h"
#include "extent_status/extent_mapper.h"
#include "extent_status/fs_context.h"
#include "extent_status/uncommitted_moves.h"
#include "format/inode.h"
#include "inode/readahead_state.h"
#include "inode/sizes_after_crash.h"
#include "pagecache/file_cache.h"
#include "sync/mutex.h"

#include <sys/stat.h>

#include <atomic>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace uext4 {

class InodeSlot;
class InodeTable;

class Inode final : public ExtentStatusOwner {
public:
    Inode(FsContext& fs, InodeTable& table, InodeNr number, std::vector<std::byte> raw);
    ~Inode() override;

    SharedMutex rw;  // Rank::Inode, order = number
    // A call that takes rw several times, touching the program's memory in between with nothing else held, keeps others
    // from the file: writes, truncate and fallocate exclusive, direct reads shared. Not on a mount, whose kernel does
    // it.
    SharedMutex call_lock{Rank::Call, "Inode::call"};
    Mutex map_lock{Rank::Map, "Inode::map_lock"};
    Mutex flush_lock{Rank::Flush, "Inode::flush_lock"};  // one writeback pass at a time

    FsContext& fs() const { return fs_; }
    InodeTable& table() const { return table_; }
    FileCache& pages() { return pages_; }

    // ---- identity, constant while the inode is in memory
    InodeNr number() const override { return number_; }
    std::uint32_t generation() const override;  // changes only when the number is given to a new file

    // ---- attributes. Reads need map_lock, or rw in any mode; mode's file type never changes.
    // The disk structure inside raw(); fields beyond i_extra_isize must not be used (has_field()).
    const format::InodeDisk& disk() const;
    format::InodeDisk& disk();  // map_lock held; then store() under a handle
    // The inode's bytes as the table has them. (In memory they are followed by zeros up to the size of the structure.)
    Bytes raw() { return Bytes(raw_).first(raw_size_); }
    ConstBytes raw() const { return ConstBytes(raw_).first(raw_size_); }
    std::uint16_t mode() const;
    bool is_directory() const { return S_ISDIR(mode()); }
    bool is_regular() const { return S_ISREG(mode()); }
    bool is_symlink() const { return S_ISLNK(mode()); }
    std::uint32_t uid() const;
    std::uint32_t gid() const;
    std::uint32_t links() const;  // 1 for a directory whose count overflowed (dir_nlink)
    // Without the lock; may be stale by the time it is used.
    bool has_links_hint() const { return has_links_.load(std::memory_order_acquire); }
    std::uint32_t flags() const;  // format::inode_flag bits
    bool has_flag(std::uint32_t flag) const { return (flags() & flag) != 0; }
    bool is_inline() const override;  // inline_data flag
    // i_block is a map: neither contents, nor the target of a short symlink, nor a device's number.
    bool has_map() const;
    void set_mode(std::uint16_t mode);
    void set_owner(std::uint32_t uid, std::uint32_t gid);
    void set_links(std::uint32_t links);
    void set_flags(std::uint32_t flags);
    format::Timestamp atime() const, mtime() const, ctime() const;
    std::optional<format::Timestamp> crtime() const;  // nothing where it has no room
    void set_atime(format::Timestamp), set_mtime(format::Timestamp), set_ctime(format::Timestamp);
    void bump_version();                    // i_version, when the inode has it
    std::uint64_t block_count_512() const;  // st_blocks
    BlockNr xattr_block() const;
    void set_xattr_block(BlockNr block);
    std::uint64_t device_number() const;  // st_rdev of a device node, as dev_t
    void fill_stat(struct stat& out);     // takes map_lock

    // ---- size. map_lock held.
    std::uint64_t size() const override { return size_; }  // what users see
    void set_size(std::uint64_t size);
    std::uint64_t disk_size() const override;  // i_size in raw()
    void set_disk_size(std::uint64_t size);
    // The least size behind byte `from`, and within a block, that the file may have on disk after a cut: what that
    // block gets in its place lies behind the end then. None without a log, as nothing is kept from a cut. map_lock
    // held.
    std::optional<std::uint64_t> size_after_crash(std::uint64_t from);
    // Without the lock, for hints and unlocked readers; may be stale by the time it is used.
    std::uint64_t size_hint() const { return __atomic_load_n(&size_, __ATOMIC_ACQUIRE); }

    // map_lock held for all methods of these
    ExtentStatusTree& extent_status() { return extent_status_; }
    DelallocSpace& delalloc() { return delalloc_; }
    ExtentMapper& extent_mapper() { return extent_mapper_; }
    BlockMap& map() { return map_; }  // map_lock held for all its methods
    bool journals_data() const;       // data=journal, by option or flag `j` (regular files)

    // ---- storing. map_lock held.
    // Copies raw() with its checksum to the inode table under `handle` (one credit) and notes its tid. `data`: the
    // change matters to fdatasync (size, mapping). What it cannot store a later sync does.
    Result<void> store(Handle& handle, bool data = true);
    // store() has failed for what matters to fdatasync.
    bool has_failed_store() const { return unstored_; }
    // The block of the table that it goes to. While somebody holds it, store() reads nothing.
    Result<BufferRef> read_inode_table_block();
    void note_times_pending() { set_times_pending(true); }
    bool times_pending() const { return times_pending_; }
    Tid last_tid() const { return last_tid_; }
    Tid data_tid() const { return data_tid_; }
    void note_tid(Tid tid, bool data) {
        if (tid > last_tid_) last_tid_ = tid;
        if (data && tid > data_tid_) data_tid_ = tid;
    }
    const UncommittedMoves& uncommitted_moves() const { return uncommitted_moves_; }
    void note_uncommitted_shift(Tid tid) { uncommitted_moves_.note_shift(tid); }
    void note_uncommitted_unmap(Tid tid, LogicalBlock first, LogicalBlock end) override {
        uncommitted_moves_.note_unmap(tid, first, end, fs_.journal);
    }

    // It is being deleted: what it has counts as free from now on, and is looked at again as it goes. map_lock held.
    void count_as_deleting();
    void end_counting_as_deleting();

    // ---- ExtentStatusOwner and ExtentOwner (map_lock held)
    Result<void> clear_inline(Handle& handle) override;
    bool uses_extents() const override;
    // Its blocks are, or will be once it leaves the inode, an extent tree's.
    bool will_use_extents() const;
    // Directory blocks and attribute values are written as metadata.
    bool has_journaled_data() const override {
        return journals_data() || !is_regular() || has_flag(format::inode_flag::ea_inode);
    }
    Result<void> revoke_data(Handle& handle, BlockNr first, std::uint64_t count) const override;
    Bytes i_block() override;
    Result<void> get_write_access(Handle& handle) override;
    Result<void> store_i_block(Handle& handle) override { return store(handle); }
    Result<void> add_blocks(Handle& handle, std::int64_t fs_blocks) override;
    void note_corruption(const Error& error) const override { (void)report_corruption(fs_, error); }

    // ---- errors of writeback that an fsync must report: per-open cursors compare this counter.
    std::atomic<std::uint64_t> writeback_errors{0};
    std::atomic<int> writeback_error{0};  // the newest errno
    std::atomic<bool> last_writeback_failed{false};
    std::atomic<bool> has_unreserved_data{false};  // what has no space is not to get the blocks reserved for root
    std::atomic<bool> eof_block_is_zeroed{false};  // behind the end of the file its last block has zeros on the device
    // A truncation has failed behind its new size: blocks behind the end hold what was cut off. Changed under rw.
    std::atomic<bool> truncate_incomplete{false};
    // How often dirty blocks began to leave the cache, or a transaction got what took them away (DirtyDataDiscard).
    std::atomic<std::uint64_t> discard_sequence{0};
    std::atomic<bool> replace_on_close{false};  // truncated to 0: flush at last close (auto_da_alloc)
    std::atomic<std::uint32_t> open_files{0};
    std::atomic<bool> deleted{false};     // its number was freed; operations answer ESTALE
    std::atomic<bool> is_tmpfile{false};  // made without a name (O_TMPFILE): may be linked
    // A write has nothing to take away: no set-id bits, no security.capability (file_remove_privs() found none).
    // Cleared by whoever may bring them.
    std::atomic<bool> nosec{false};
    ReadaheadState readahead;
    // Of a file that ended within a block and grew: near which the last block is kept until it is full. flush_lock
    // held.
    BlockNr eof_block_goal;

private:
    void set_times_pending(bool pending) {
        if (std::exchange(times_pending_, pending) == pending) return;
        fs_.times_pending.fetch_add(pending ? 1 : -1, std::memory_order_relaxed);
    }
    Result<BufferRef> get_table_write_access(Handle& handle);
    Result<BufferRef> get_store_access(Handle& handle);
    friend class InodeTable;
    friend class InodeRef;
    FsContext& fs_;
    InodeTable& table_;
    InodeSlot* slot_ = nullptr;  // the table's, under its lock; null once the number belongs to a new inode
    InodeNr number_;
    std::size_t raw_size_;
    std::vector<std::byte> raw_;
    std::atomic<std::uint32_t> flags_;  // as in raw(): many ask without a lock
    std::uint64_t size_;
    std::atomic<bool> has_links_{false};
    bool times_pending_ = false, unstored_ = false;
    std::optional<Allocator::InodeLocation> location_;  // in the table; known when it was stored once
    bool counts_as_deleting_ = false;
    std::int64_t deleting_blocks_ = 0;  // blocks that the allocator was told of then
    Tid last_tid_ = 0, data_tid_ = 0;
    UncommittedMoves uncommitted_moves_;
    SizesAfterCrash sizes_after_crash_;
    std::atomic<std::uint32_t> references_{0};
    BlockMap map_;
    ExtentStatusTree extent_status_;
    DelallocSpace delalloc_{extent_status_};
    ExtentMapper extent_mapper_{extent_status_, delalloc_};
    FileCache pages_;
};

class InodeRef {
public:
    InodeRef() = default;
    explicit InodeRef(Inode* adopted) : inode_(adopted) {}  // takes over one reference
    InodeRef(const InodeRef& other);
    InodeRef(InodeRef&& other) noexcept : inode_(std::exchange(other.inode_, nullptr)) {}
    InodeRef& operator=(InodeRef other) noexcept {
        std::swap(inode_, other.inode_);
        return *this;
    }
    ~InodeRef() { reset(); }
    void reset();  // may queue a deleted inode for the deleter
    Inode* operator->() const { return inode_; }
    Inode& operator*() const { return *inode_; }
    Inode* get() const { return inode_; }
    explicit operator bool() const { return inode_ != nullptr; }
    friend bool operator==(const InodeRef& a, const InodeRef& b) { return a.inode_ == b.inode_; }

private:
    Inode* inode_ = nullptr;
};

}  // namespace uext4
