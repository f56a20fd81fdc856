// Metadata buffers: one cached block of the device each.
//
// Invariants
//   B1  A block has at most one Buffer; whoever holds a BufferRef keeps it cached.
//   B2  A buffer's bytes change only through Handle::get_write_access or get_create_access, while that handle is open.
//   B3  A buffer in the running or the committing transaction, or waiting for its checkpoint, is referenced by the
//   journal
//       and so not evicted.
//   B4  Contents are stable whenever no handle is open: the commit copies them then.
//   B5  What is written to a block's home is its newest committed image, never an uncommitted one.
// Who may read or change the bytes is the owner's business: an extent block is guarded by its inode's map_lock, a
// directory block by its inode's rw, a bitmap and a descriptor by its Group lock; blocks with several owners (inode
// table, superblock) by the buffer's own lock.
#pragma once

#include "base/bytes.h"
#include "base/numbers.h"
#include "base/result.h"
#include "device/block_device.h"
#include "journal/block_pool.h"
#include "sync/mutex.h"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace uext4 {

// What a buffer's contents were validated as; whoever reads it as something else validates again.
enum class BlockKind : std::uint8_t {
    unchecked,
    super,
    group_descriptors,
    block_bitmap,
    inode_bitmap,
    inode_table,
    extent_node,
    indirect,
    directory,
    htree,
    xattr,
    orphan_file,
    journaled_data,
    other
};

class BufferCache;
struct JournalState;

class Buffer {
public:
    BlockNr block() const { return block_; }
    Bytes data() { return {data_.get(), size_}; }
    ConstBytes data() const { return {data_.get(), size_}; }

    BlockKind kind() const { return kind_.load(std::memory_order_acquire); }
    void set_kind(BlockKind k) { kind_.store(k, std::memory_order_release); }

    Mutex lock{Rank::Buffer, "Buffer::lock"};  // only for blocks with several owners

private:
    friend class BufferCache;
    friend class BufferRef;
    friend class Journal;
    friend class Handle;
    friend struct JournalState;
    BlockNr block_;
    std::uint32_t size_ = 0;
    std::unique_ptr<std::byte[], BlockPool::Deleter> data_;
    std::atomic<BlockKind> kind_{BlockKind::unchecked};
    std::atomic<std::uint32_t> references_{0};
    std::atomic<bool> uptodate_{false};
    std::atomic<bool> recently_used_{false};
    Mutex read_lock_{Rank::Journal, "Buffer::reading"};
    // The journal's part, guarded by its lists lock (joined_ may be read without it by the thread whose handle is
    // open).
    std::atomic<std::uint64_t> transaction_{0};  // the newest transaction that has the block
    std::uint64_t checkpoint_tid_ = 0;           // the durable transaction whose image is not home yet; 0: none
};

// A counted reference.
class BufferRef {
public:
    BufferRef() = default;
    explicit BufferRef(Buffer* adopted) : buffer_(adopted) {}  // takes over one reference
    BufferRef(const BufferRef& other) : buffer_(other.buffer_) {
        if (buffer_) buffer_->references_.fetch_add(1);
    }
    BufferRef(BufferRef&& other) noexcept : buffer_(std::exchange(other.buffer_, nullptr)) {}
    BufferRef& operator=(BufferRef other) noexcept {
        std::swap(buffer_, other.buffer_);
        return *this;
    }
    ~BufferRef() {
        if (buffer_) buffer_->references_.fetch_sub(1);
    }
    Buffer* operator->() const { return buffer_; }
    Buffer& operator*() const { return *buffer_; }
    Buffer* get() const { return buffer_; }
    explicit operator bool() const { return buffer_ != nullptr; }

private:
    Buffer* buffer_ = nullptr;
};

// All metadata blocks in memory. Thread-safe, sharded by block number; evicts clean unreferenced buffers (clock) beyond
// the limit.
class BufferCache {
public:
    // limit: bytes of clean buffers kept.
    BufferCache(BlockDevice& device, std::uint32_t block_size, std::uint64_t blocks_count, std::uint64_t limit);
    ~BufferCache();
    BufferCache(const BufferCache&) = delete;

    // The block, read from the device unless it is cached. EUCLEAN when the number is outside the file system
    // (`what` names the structure that led there), EIO when it cannot be read.
    Result<BufferRef> read(BlockNr block, const char* what);
    // The block without reading it: the caller fills it whole under get_create_access. Never fails on a valid number.
    Result<BufferRef> get(BlockNr block, const char* what);
    // The same for file contents, which are many and go together: their memory goes back to the system with the last.
    Result<BufferRef> get_for_journaled_data(BlockNr block);
    // Only if it is cached and up to date.
    BufferRef find(BlockNr block);
    // Starts reading blocks that will be wanted soon, in one request where they adjoin; errors are left to read().
    void read_ahead(BlockNr first, std::uint32_t count);
    // Drops the contents of a block that no transaction holds (it was freed): the next read() goes to the device.
    void invalidate(BlockNr block);
    void invalidate_all_clean();

    // Hears of each block that cannot be read, whatever locks its reader holds. Before there are users.
    void set_read_error_callback(std::function<void(const Error&)> told);

    std::uint32_t block_size() const;
    std::uint64_t blocks_count() const;
    std::uint64_t cached_bytes() const;
    BlockDevice& device();

private:
    struct State;
    using Memory = std::unique_ptr<std::byte[], BlockPool::Deleter>;
    BufferRef find_or_add(BlockNr block, Memory&& memory);
    std::unique_ptr<State> state_;
};

}  // namespace uext4
