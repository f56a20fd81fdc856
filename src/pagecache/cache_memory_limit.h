// The memory that all caches of a process with cache=auto may have together: a quarter of what is available to the
// process, including what these caches have already. A cache takes it as it grows; when the machine has less, caches
// give back what they have above their part.
//
// Invariants
//   G1  Each of n caches may have one n-th of all, and whatever the others leave.
//   G2  The source of memory is asked again at the latest when all caches together have grown by `recheck_bytes`.
//   G3  A cache that is being asked for memory does not go: remove_cache() waits for that.
//   G4  While caches grow, a thread prepares at most `max_populated_chunks` chunks for them. When none was
//       taken for a second, half of them are given back.
#pragma once

#include "pagecache/memory_chunk.h"
#include "pagecache/memory_info.h"
#include "sync/condition.h"
#include "sync/mutex.h"
#include "sync/thread.h"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace uext4 {

class PageCache;

class CacheMemoryLimit {
public:
    // All may have so much until the source was asked, and where the source does not know.
    static constexpr std::uint64_t default_limit = std::uint64_t{128} << 20;
    static constexpr std::uint64_t recheck_bytes = std::uint64_t{64} << 20;

    // `watches`: once caches have more than half of `usual`, a thread asks the source each second and prepares chunks.
    // Without it only growth asks the source.
    CacheMemoryLimit(std::unique_ptr<MemoryInfo> source, bool watches);
    ~CacheMemoryLimit();  // every cache has left
    CacheMemoryLimit(const CacheMemoryLimit&) = delete;
    static CacheMemoryLimit& process_wide();
    // For a process that cannot open files from now on. Before there are caches.
    void keep_files_open();

    void add_cache(PageCache& cache);
    void remove_cache(PageCache& cache);
    void account(std::int64_t bytes) { total_.fetch_add(static_cast<std::uint64_t>(bytes), std::memory_order_relaxed); }
    std::uint64_t limit() const { return limit_.load(std::memory_order_relaxed); }
    std::uint64_t total() const { return total_.load(std::memory_order_relaxed); }
    // What a cache that has `own` bytes may have.
    std::uint64_t limit_for_cache(std::uint64_t own) const;
    // All have grown so much that recheck() is to be called.
    bool needs_recheck() const { return total() >= next_recheck_.load(std::memory_order_relaxed); }
    // Asks the source, and caches that have more than their part give it back. Nothing where another thread is at it.
    // No lock of rank Journal or further in is held.
    void recheck();
    // A chunk that has its pages already, which the caller owns from now on; null where none is prepared. The kernel
    // clears each page that it gives: the thread that prepares chunks takes that time off the threads that read.
    // Takes no lock.
    std::byte* take_populated_chunk();
    std::size_t populated_chunks() const;  // prepared, and not taken

private:
    static constexpr std::size_t max_populated_chunks = 16;
    void recheck_locked() UEXT4_REQUIRES(lock_);
    void watch(std::uint64_t turn);
    void populate_chunks();
    void free_chunks(std::size_t kept);
    void start_watching() UEXT4_REQUIRES(lock_);

    const bool watches_;
    std::atomic<std::uint64_t> limit_{default_limit}, total_{0}, next_recheck_{default_limit / 4};
    std::atomic<std::uint64_t> cache_count_{0};
    std::array<std::atomic<std::byte*>, max_populated_chunks> chunks_{};
    std::atomic<bool> wants_chunks_{false};  // a cache asked for one since the last look
    Mutex lock_{Rank::Journal, "CacheBudget"};
    std::unique_ptr<MemoryInfo> source_ UEXT4_GUARDED_BY(lock_);
    std::vector<PageCache*> caches_ UEXT4_GUARDED_BY(lock_);
    CondVar changed_{"cache budget"};
    std::uint64_t watcher_generation_ UEXT4_GUARDED_BY(lock_) = 0;  // of the watching thread; another one ends
    Thread watcher_ UEXT4_GUARDED_BY(lock_);
};

}  // namespace uext4
