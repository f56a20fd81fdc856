// The cached contents of one file.
//
// Invariants
//   C1  A folio's bytes and block states change only under its lock; it is locked by one thread at a time.
//   C2  A folio under writeback is not changed: whoever locks it for a change waits for the writeback first.
//   C3  A dirty folio, one under writeback and one that a transaction owns is not reclaimed.
//   C4  A block that is not up to date is not dirty.
//   C5  A folio with client maps is writable by them only while it is dirty (or owned by a running transaction).
#pragma once

#include "base/bytes.h"
#include "base/result.h"
#include "pagecache/folio_tree.h"
#include "pagecache/page_cache.h"
#include "sync/condition.h"
#include "sync/mutex.h"

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

namespace uext4 {

using BlockMask = std::uint64_t;  // one bit a block of the folio

struct Folio;

// Somebody above who needs a folio's bytes until a transaction has copied them.
class JournaledFolioOwner {
public:
    virtual ~JournaledFolioOwner() = default;
    // The folio goes (it is locked): keep a copy of what is still needed.
    virtual void detach(Folio& folio) = 0;
};

struct Folio {
    FileCache* file = nullptr;
    std::uint64_t index = 0;  // in folios from the file's start
    std::byte* data = nullptr;
    // Guarded by the folio's lock:
    BlockMask uptodate = 0, dirty = 0;
    BlockMask lost_blocks = 0;  // their memory went while they were written: read anew when that is over
    std::shared_ptr<JournaledFolioOwner> owner;  // of the journaled blocks
    std::atomic<BlockMask> journaled_blocks{0};  // blocks that the running transaction owns; cleared by the commit
    std::uint32_t readahead_generation = 0;  // the turn in which it was read ahead; 0: it was not, or was locked since
    std::atomic<bool> mapped = false;        // client maps may show it; set under the lock, seen by commits without it
    // Guarded by the file's tree lock:
    bool locked = false, writeback = false;
    BlockMask writeback_blocks = 0;       // blocks on their way to the device
    std::uint32_t pins = 0;               // keeps it cached (transaction, I/O)
    bool in_client_memory = false;        // data belongs to the client maps' memory
    std::atomic<bool> referenced{false};  // second chance of reclaim
    Folio* older = nullptr;               // reclaim's list
    Folio* newer = nullptr;
};

// Proof that a folio is locked; unlocks it when it goes.
class LockedFolio {
public:
    LockedFolio() = default;
    LockedFolio(LockedFolio&& other) noexcept;
    LockedFolio& operator=(LockedFolio&& other) noexcept;
    ~LockedFolio() { unlock(); }
    Folio* operator->() const { return folio_; }
    Folio& operator*() const { return *folio_; }
    explicit operator bool() const { return folio_ != nullptr; }
    Bytes bytes() const;
    void unlock();

private:
    friend class FileCache;
    friend class LockedFolioRange;
    explicit LockedFolio(Folio* folio);
    Folio* folio_ = nullptr;
};

// The same of some that follow each other.
class LockedFolioRange {
public:
    static constexpr std::size_t max_folios = 256;
    static constexpr std::size_t max_folios_for_change = 16;
    LockedFolioRange() {}  // leaves the places as they are
    LockedFolioRange(LockedFolioRange&& other) noexcept;
    LockedFolioRange& operator=(LockedFolioRange&&) = delete;
    ~LockedFolioRange() { unlock(); }
    std::span<Folio* const> folios() const { return {folios_.data(), count_}; }
    std::size_t size() const { return count_; }
    void unlock();

private:
    friend class FileCache;
    std::array<Folio*, max_folios> folios_;  // the first `count_`
    std::size_t count_ = 0;
};

// What the maps of client programs must do when folios change (implemented in mmap). None of it waits for a lock of
// rank Device or further out.
class ClientMapsHook {
public:
    virtual ~ClientMapsHook() = default;
    // Stores fault again from now on. Called with the folio locked, under writeback, or owned by a commit.
    virtual void write_protect(std::uint64_t offset, std::uint64_t length) = 0;
    // Memory for a new folio, which client maps can show; what it holds is undefined. Under the file's tree lock.
    virtual Result<std::byte*> folio_memory(std::uint64_t index) = 0;
    // The folio goes: its memory is given back, and every access faults again. The folio is locked and still known.
    virtual void release_folio_memory(std::uint64_t index) = 0;
    // Pages of the folio whose memory is gone, one bit each: programs can throw away what a map shows (MADV_REMOVE).
    // The folio is locked.
    virtual std::uint64_t lost_blocks(std::uint64_t index) = 0;
    // The file is about to have at least this size: maps reach so far.
    virtual void extend(std::uint64_t size) = 0;
    // It is about to have only this size; its folios beyond are gone. Accesses beyond are refused.
    virtual void truncate(std::uint64_t size) = 0;
};

class FileCache {
public:
    // `order`: the lock order between files (inode number).
    FileCache(PageCache& cache, std::uint64_t order);
    ~FileCache();  // no folio may be locked
    FileCache(const FileCache&) = delete;

    PageCache& cache() const { return cache_; }
    std::uint32_t folio_size() const { return cache_.folio_size(); }
    std::uint32_t block_size() const { return cache_.block_size(); }

    // Faults and read-in hold it shared, truncate and punch exclusive.
    SharedMutex invalidate;

    // The folio at `index`, locked; made (nothing up to date) when `create`, else empty when absent. ENOMEM.
    Result<LockedFolio> lock(std::uint64_t index, bool create, SourceLocation where = SourceLocation::current());
    // The same without waiting for its lock; empty when it is locked by somebody.
    LockedFolio try_lock(std::uint64_t index, SourceLocation where = SourceLocation::current());
    // For a change: also waits until its writeback has ended.
    Result<LockedFolio> lock_for_change(std::uint64_t index, bool create,
                                        SourceLocation where = SourceLocation::current());
    // The folios from `index` on, made where there are none; at least the first, for which it waits, and at most
    // `count` (or LockedFolioRange::max_folios_for_change): the run ends at one that is locked by somebody or under
    // writeback.
    Result<LockedFolioRange> lock_range_for_change(std::uint64_t index, std::size_t count,
                                                   SourceLocation where = SourceLocation::current());
    // For a reader: the folios from `index` on that are there and up to date, at most `count` (or
    // max_folios_for_change). None where the first is not so, is locked by somebody, or lies in the clients' memory.
    // Waits for nobody.
    LockedFolioRange lock_uptodate_range(std::uint64_t index, std::size_t count,
                                         SourceLocation where = SourceLocation::current());
    // New folios from `index` on, locked, with nothing up to date: at most `count` (or LockedFolioRange::max_folios),
    // and none where there is one already. Waits for nobody. ENOMEM.
    Result<LockedFolioRange> add_locked_range(std::uint64_t index, std::size_t count,
                                              SourceLocation where = SourceLocation::current());
    void wait_for_writeback(LockedFolio& folio, SourceLocation where = SourceLocation::current());
    // Waits for the writeback of every folio in [first, end).
    void wait_for_writeback(std::uint64_t first, std::uint64_t end, SourceLocation where = SourceLocation::current());

    // ---- states; the folio is locked
    void mark_dirty(LockedFolio& folio, BlockMask blocks);
    void mark_dirty(LockedFolioRange& run, BlockMask blocks);  // the same blocks of each
    void clear_dirty(LockedFolio& folio, BlockMask blocks);
    // Of its dirty blocks, which are clean from now on.
    void begin_writeback(LockedFolio& folio, SourceLocation where = SourceLocation::current());
    // By whoever began it; the folios are not locked.
    void end_writeback(std::span<Folio* const> folios);
    // Its writeback failed: these blocks are dirty again.
    void fail_writeback(Folio& folio, BlockMask blocks);
    void remove(LockedFolio&& folio);  // removed from the cache, dirty or not; its writeback has ended
    void pin(LockedFolio& folio);
    void unpin(Folio& folio);

    // ---- looking around; answers may be stale at once unless a lock of the caller's prevents it
    std::optional<std::uint64_t> next_dirty(std::uint64_t from) const;  // index of the first dirty folio >= from
    std::optional<std::uint64_t> next_cached(std::uint64_t from) const;
    std::optional<std::uint64_t> next_dirty_or_writeback(
        std::uint64_t from) const;  // dirty, journaled or under writeback
    std::uint64_t dirty_folios() const;
    std::uint64_t dirty_or_writeback_folios() const;  // dirty and under writeback; what is both counts twice
    std::uint64_t cached_folios() const;
    bool has_dirty_or_writeback() const;  // something is dirty or under writeback
    // The same without the lock: no other thread has the file, though the cache may reclaim its folios.
    bool has_dirty_or_writeback_unlocked() const UEXT4_NO_THREAD_SAFETY_ANALYSIS;
    // Read ahead, for nobody yet: a locked one.
    void mark_readahead(Folio& folio) const {
        folio.readahead_generation = readahead_generation_.load(std::memory_order_relaxed);
    }
    // Folios read ahead were reclaimed before anybody used them. Those read before somebody was told so do not count:
    // they were too many then already.
    bool take_wasted_readahead();

    // Removes every folio in [first, end) (waits for locks and writeback). Invalidate exclusive, or at eviction.
    void remove(std::uint64_t first, std::uint64_t end, SourceLocation where = SourceLocation::current());

    // No folio may be cached. Invalidate exclusive.
    void set_client_maps(ClientMapsHook* hook);
    ClientMapsHook* client_maps() const { return client_maps_.load(std::memory_order_acquire); }
    // Stores through client maps fault again; the folio is locked.
    void write_protect(LockedFolio& folio);

private:
    friend class LockedFolio;
    friend class LockedFolioRange;
    friend class PageCache;
    Result<Folio*> add_folio(std::uint64_t index) UEXT4_REQUIRES(tree_lock_);
    Result<std::size_t> add_folios(std::uint64_t index, std::span<Folio*> made) UEXT4_REQUIRES(tree_lock_);
    HeldResource holdable(const Folio& folio) const;
    HeldResource writeback_of(const Folio& folio) const;
    void note_locked(Folio& folio, SourceLocation where) UEXT4_REQUIRES(tree_lock_);
    void unlock(std::span<Folio* const> folios);
    void update_lost_blocks(Folio& folio, BlockMask writing);
    void insert_dirty(Folio& folio) UEXT4_REQUIRES(tree_lock_);
    void erase_dirty(Folio& folio) UEXT4_REQUIRES(tree_lock_);
    bool try_reclaim(Folio& folio);
    void destroy_reclaimed(Folio& folio);
    void destroy(Folio& folio);

    PageCache& cache_;
    mutable Mutex tree_lock_{Rank::Device, "FileCache::tree_lock"};  // outside the cache's list lock
    CondVar changed_{"folio"};                                       // a folio was unlocked, or its writeback ended
    FolioTree folios_ UEXT4_GUARDED_BY(tree_lock_);
    std::atomic<ClientMapsHook*> client_maps_{nullptr};
    std::atomic<std::uint32_t> readahead_generation_{1}, wasted_generation_{0};
    struct DirtyListEntry {
        std::uint64_t order;
        std::uint64_t since = 0;  // PageCache::DirtyFile
        bool is_listed = false;
        DirtyListEntry* older = nullptr;
        DirtyListEntry* newer = nullptr;
    };
    DirtyListEntry dirty_list_entry_;  // of the cache
};

}  // namespace uext4
