#include "pagecache/cache_memory_limit.h"

#include "pagecache/page_cache.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace uext4 {

namespace {
constexpr std::uint64_t part_of_available = 4;  // of so many parts the caches have one
constexpr std::uint64_t small_step = std::uint64_t{2} << 20;
constexpr std::chrono::seconds period{1};
}  // namespace

CacheMemoryLimit::CacheMemoryLimit(std::unique_ptr<MemoryInfo> source, bool watches)
    : watches_(watches), source_(std::move(source)) {}

CacheMemoryLimit::~CacheMemoryLimit() { free_chunks(0); }

CacheMemoryLimit& CacheMemoryLimit::process_wide() {
    // Never destroyed: a mount may live to the end of the program.
    static CacheMemoryLimit& budget = *new CacheMemoryLimit(std::make_unique<SystemMemoryInfo>(), true);
    return budget;
}

void CacheMemoryLimit::keep_files_open() {
    MutexLock guard(lock_);
    source_->keep_files_open();
}

void CacheMemoryLimit::add_cache(PageCache& cache) {
    MutexLock guard(lock_);
    caches_.push_back(&cache);
    cache_count_.store(caches_.size(), std::memory_order_relaxed);
}

void CacheMemoryLimit::remove_cache(PageCache& cache) {
    Thread ended;  // joined without the lock
    MutexLock guard(lock_);
    std::erase(caches_, &cache);
    cache_count_.store(caches_.size(), std::memory_order_relaxed);
    if (!caches_.empty() || !watcher_.joinable()) return;
    ++watcher_generation_;
    ended = std::move(watcher_);
    changed_.notify_all();
    guard.unlock();
}

std::uint64_t CacheMemoryLimit::limit_for_cache(std::uint64_t own) const {
    const std::uint64_t all = limit(), others = total() - std::min(total(), own);
    const std::uint64_t members = std::max<std::uint64_t>(1, cache_count_.load(std::memory_order_relaxed));
    return std::max(all / members, all - std::min(all, others));
}

void CacheMemoryLimit::recheck() {
    if (!lock_.try_lock()) return;
    recheck_locked();
    start_watching();
    lock_.unlock();
}

void CacheMemoryLimit::recheck_locked() {
    if (const auto available = source_->available()) {
        const std::uint64_t now = (*available + total()) / part_of_available, before = limit();
        // A little less is what the numbers do by themselves: memory that went and came would be faulted in again.
        if (now > before || now < before - before / 8) limit_.store(now, std::memory_order_relaxed);
    } else {
        limit_.store(default_limit, std::memory_order_relaxed);
    }
    if (total() > limit())
        for (PageCache* cache : caches_) cache->reclaim_local();
    const std::uint64_t all = total(), most = limit();
    const std::uint64_t step = all < most ? std::min(recheck_bytes, most - all) : 0;
    next_recheck_.store(all + std::max(step, small_step), std::memory_order_relaxed);
}

// Where the system refuses a thread, growth alone asks the source.
void CacheMemoryLimit::start_watching() {
    if (!watches_ || watcher_.joinable() || caches_.empty() || total() <= default_limit / 2) return;
    const auto body = [this, turn = watcher_generation_] { watch(turn); };
    if (Result<Thread> started = Thread::start("uext4-memory", body)) watcher_ = std::move(*started);
}

std::byte* CacheMemoryLimit::take_populated_chunk() {
    wants_chunks_.store(true, std::memory_order_relaxed);
    changed_.notify_all();
    for (std::atomic<std::byte*>& spare : chunks_)
        if (std::byte* const chunk = spare.exchange(nullptr)) return chunk;
    return nullptr;
}

std::size_t CacheMemoryLimit::populated_chunks() const {
    return static_cast<std::size_t>(
        std::ranges::count_if(chunks_, [](const std::atomic<std::byte*>& spare) { return spare.load() != nullptr; }));
}

// Only the watching thread adds chunks, so a place that is free stays free.
void CacheMemoryLimit::populate_chunks() {
    for (std::atomic<std::byte*>& spare : chunks_) {
        if (spare.load() != nullptr) continue;
        if (total() + (populated_chunks() + 1) * memory_chunk_bytes > limit()) return;
        std::byte* const chunk = map_memory_chunk();
        if (!chunk) return;
        allow_huge_page(chunk);
        touch_memory_chunk(chunk);
        spare.store(chunk);
    }
}

void CacheMemoryLimit::free_chunks(std::size_t kept) {
    for (std::atomic<std::byte*>& spare : chunks_) {
        if (populated_chunks() <= kept) return;
        if (std::byte* const chunk = spare.exchange(nullptr)) unmap_memory_chunk(chunk);
    }
}

void CacheMemoryLimit::watch(std::uint64_t turn) {
    auto last_look = monotonic_now();
    MutexLock guard(lock_);
    for (;;) {
        changed_.wait_for(lock_, period);
        if (turn != watcher_generation_) break;
        if (wants_chunks_.load(std::memory_order_relaxed)) {
            guard.unlock();
            populate_chunks();
            guard.lock();
            if (turn != watcher_generation_) break;
        }
        if (monotonic_now() - last_look < period) continue;
        last_look = monotonic_now();
        recheck_locked();
        for (PageCache* cache : caches_) cache->release_idle_memory();
        if (!wants_chunks_.exchange(false)) free_chunks(populated_chunks() / 2);
    }
    guard.unlock();
    free_chunks(0);
}

}  // namespace uext4
