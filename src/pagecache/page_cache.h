// The page cache: memory for file contents, shared by all files of a volume. Knows no ext4.
#pragma once

#include "base/bytes.h"
#include "base/result.h"
#include "pagecache/cache_memory_limit.h"
#include "sync/condition.h"
#include "sync/mutex.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace uext4 {

class FileCache;
struct Folio;

class PageCache {
public:
    // most: bytes of file contents; folio_size: bytes, a power of two, at least 4096 and the block size.
    PageCache(std::uint64_t most, std::uint32_t folio_size, std::uint32_t block_size);
    ~PageCache();
    PageCache(const PageCache&) = delete;

    std::uint32_t folio_size() const { return folio_size_; }
    std::uint32_t block_size() const { return block_size_; }
    // Its size grows with what is used, up to the part of the budget that it may have; what it was made with bounds
    // only what is dirty. After set_other_users, before there are users.
    void join_memory_limit(CacheMemoryLimit& budget);
    // No longer: before what set_other_users asks goes.
    void leave_memory_limit();
    // What it was made with, or its part of the budget, less what others have taken of it (set_other_users); at least a
    // quarter of what it was made with.
    std::uint64_t limit() const;
    std::uint64_t used_bytes() const { return used_.load(std::memory_order_relaxed); }
    std::uint64_t dirty_bytes() const { return dirty_.load(std::memory_order_relaxed); }
    // Neither dirty nor clean until its writeback has ended.
    std::uint64_t writeback_bytes() const { return writeback_bytes_.load(std::memory_order_relaxed); }
    // Above this much dirty data writers write back themselves before they add more.
    std::uint64_t dirty_limit() const { return max_bytes_ / 4; }
    std::uint64_t background_limit() const { return max_bytes_ / 8; }

    // Called (no lock of ours held, perhaps many times) when background writeback should start.
    void set_flusher(std::function<void()> wake);
    void wake_flusher();
    // Asked, whatever locks are held, how many bytes of the cache's memory are in use for something else. Before there
    // are users.
    void set_other_users(std::function<std::uint64_t()> bytes);
    // Where somebody else caches the same files: of what is written already so many bytes are enough, and memory that
    // is in use anyway is better than fresh. Before there are users.
    void set_clean_limit(std::uint64_t bytes) { clean_limit_ = bytes; }
    // Whoever adds folios calls reclaim() then.
    bool needs_reclaim() const { return is_above_limit() || (memory_limit_ && memory_limit_->needs_recheck()); }
    // Of the files with dirty folios the one (its `order`) that is first in their row; it goes to the row's end.
    std::optional<std::uint64_t> next_dirty_file();
    // Up to `most` of them from the row's front, and since when (steady milliseconds) each has been in the row without
    // a try to write it. They stay where they are.
    struct DirtyFile {
        std::uint64_t order = 0, since = 0;
    };
    std::vector<DirtyFile> oldest_dirty_files(std::size_t most);
    // It was tried to write the file: if it is dirty all the same it goes to the row's end, as if it was new there.
    void requeue_dirty_file(FileCache& file);
    // Folios that reclaim has looked at since the cache was made.
    std::uint64_t scanned_folios() const { return scanned_folios_.load(std::memory_order_relaxed); }
    // Frees clean folios until the cache is not crowded; try-locks only, never writes back. Bytes freed. Where
    // nothing could be freed it looks again only when a little more is used than was then.
    std::uint64_t reclaim();
    // The same of this cache alone, for the budget.
    std::uint64_t reclaim_local();
    // Where others have some of the cache, memory that no folio is in is the system's, but for what folios may take; of
    // a cache with a budget, but for a quarter of what it was made with, or half of what is idle.
    void release_idle_memory();

private:
    friend class FileCache;
    // For as many folios as there are places; all or ENOMEM. By ascending addresses.
    Result<void> allocate_memory(std::span<std::byte*> places);
    void free_memory(std::byte* memory);
    bool is_above_limit() const {
        const std::uint64_t now = used_bytes(), unwritten = dirty_bytes() + writeback_bytes();
        return now > limit() || now - std::min(now, unwritten) > clean_limit_;
    }
    std::uint64_t account_used(std::int64_t bytes) {
        if (memory_limit_) memory_limit_->account(bytes);
        const auto more = static_cast<std::uint64_t>(bytes);
        return used_.fetch_add(more, std::memory_order_relaxed) + more;
    }
    // Folios of mapped files live in memory of the maps, but count here: what is idle of the cache's own makes room.
    void account_client_memory(std::int64_t bytes);
    void account_dirty(std::int64_t bytes) {
        dirty_.fetch_add(static_cast<std::uint64_t>(bytes), std::memory_order_relaxed);
    }
    void account_writeback(std::int64_t bytes) {
        writeback_bytes_.fetch_add(static_cast<std::uint64_t>(bytes), std::memory_order_relaxed);
    }
    void link(std::span<Folio* const> folios);
    void unlink(Folio& folio);
    // It has its first dirty folio, or has none any more. Under its tree lock.
    void link_dirty(FileCache& file);
    void unlink_dirty(FileCache& file);
    // So much more than was used when it looked in vain makes reclaim look again.
    std::uint64_t reclaim_step() const { return max_bytes_ / 64 / folio_size_ * folio_size_; }

    struct State;
    const std::uint64_t max_bytes_;
    std::uint64_t clean_limit_ = ~std::uint64_t{0};
    std::uint32_t folio_size_, block_size_;
    std::atomic<std::uint64_t> used_{0}, dirty_{0}, writeback_bytes_{0}, scanned_folios_{0};
    std::unique_ptr<State> arena_;
    CacheMemoryLimit* memory_limit_ = nullptr;
    std::function<void()> wake_flusher_;
    std::function<std::uint64_t()> other_users_;
};

}  // namespace uext4
