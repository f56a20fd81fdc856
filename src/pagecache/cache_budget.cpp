#include "pagecache/cache_budget.h"

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

CacheBudget::CacheBudget(std::unique_ptr<MemorySource> source, bool watches)
    : watches_(watches), source_(std::move(source)) {}

CacheBudget::~CacheBudget() { give_back_chunks(0); }

CacheBudget& CacheBudget::of_process() {
    // Never destroyed: a mount may live to the end of the program.
    static CacheBudget& budget = *new CacheBudget(std::make_unique<SystemMemory>(), true);
    return budget;
}

void CacheBudget::keep_open() {
    MutexLock guard(lock_);
    source_->keep_open();
}

void CacheBudget::join(PageCache& cache) {
    MutexLock guard(lock_);
    caches_.push_back(&cache);
    members_.store(caches_.size(), std::memory_order_relaxed);
}

void CacheBudget::leave(PageCache& cache) {
    Thread ended;  // joined without the lock
    MutexLock guard(lock_);
    std::erase(caches_, &cache);
    members_.store(caches_.size(), std::memory_order_relaxed);
    if (!caches_.empty() || !watcher_.joinable()) return;
    ++turn_;
    ended = std::move(watcher_);
    changed_.notify_all();
    guard.unlock();
}

std::uint64_t CacheBudget::most_for(std::uint64_t own) const {
    const std::uint64_t all = limit(), others = total() - std::min(total(), own);
    const std::uint64_t members = std::max<std::uint64_t>(1, members_.load(std::memory_order_relaxed));
    return std::max(all / members, all - std::min(all, others));
}

void CacheBudget::look() {
    if (!lock_.try_lock()) return;
    look_locked();
    start_watching();
    lock_.unlock();
}

void CacheBudget::look_locked() {
    if (const auto available = source_->available()) {
        const std::uint64_t now = (*available + total()) / part_of_available, before = limit();
        // A little less is what the numbers do by themselves: memory that went and came would be faulted in again.
        if (now > before || now < before - before / 8) limit_.store(now, std::memory_order_relaxed);
    } else {
        limit_.store(usual, std::memory_order_relaxed);
    }
    if (total() > limit())
        for (PageCache* cache : caches_) cache->reclaim_own();
    const std::uint64_t all = total(), most = limit();
    const std::uint64_t step = all < most ? std::min(look_bytes, most - all) : 0;
    next_look_.store(all + std::max(step, small_step), std::memory_order_relaxed);
}

// Where the system refuses a thread, growth alone asks the source.
void CacheBudget::start_watching() {
    if (!watches_ || watcher_.joinable() || caches_.empty() || total() <= usual / 2) return;
    const auto body = [this, turn = turn_] { watch(turn); };
    if (Result<Thread> started = Thread::start("uext4-memory", body)) watcher_ = std::move(*started);
}

std::byte* CacheBudget::take_chunk() {
    wants_chunks_.store(true, std::memory_order_relaxed);
    changed_.notify_all();
    for (std::atomic<std::byte*>& spare : spares_)
        if (std::byte* const chunk = spare.exchange(nullptr)) return chunk;
    return nullptr;
}

std::size_t CacheBudget::spare_chunks() const {
    return static_cast<std::size_t>(
        std::ranges::count_if(spares_, [](const std::atomic<std::byte*>& spare) { return spare.load() != nullptr; }));
}

// Only the watching thread adds chunks, so a place that is free stays free.
void CacheBudget::prepare_chunks() {
    for (std::atomic<std::byte*>& spare : spares_) {
        if (spare.load() != nullptr) continue;
        if (total() + (spare_chunks() + 1) * memory_chunk_bytes > limit()) return;
        std::byte* const chunk = map_memory_chunk();
        if (!chunk) return;
        allow_huge_page(chunk);
        touch_memory_chunk(chunk);
        spare.store(chunk);
    }
}

void CacheBudget::give_back_chunks(std::size_t kept) {
    for (std::atomic<std::byte*>& spare : spares_) {
        if (spare_chunks() <= kept) return;
        if (std::byte* const chunk = spare.exchange(nullptr)) unmap_memory_chunk(chunk);
    }
}

void CacheBudget::watch(std::uint64_t turn) {
    auto last_look = monotonic_now();
    MutexLock guard(lock_);
    for (;;) {
        changed_.wait_for(lock_, period);
        if (turn != turn_) break;
        if (wants_chunks_.load(std::memory_order_relaxed)) {
            guard.unlock();
            prepare_chunks();
            guard.lock();
            if (turn != turn_) break;
        }
        if (monotonic_now() - last_look < period) continue;
        last_look = monotonic_now();
        look_locked();
        for (PageCache* cache : caches_) cache->give_back_idle();
        if (!wants_chunks_.exchange(false)) give_back_chunks(spare_chunks() / 2);
    }
    guard.unlock();
    give_back_chunks(0);
}

}  // namespace uext4
