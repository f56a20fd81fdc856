#include "pagecache/file_cache.h"

#include "sync/atomic_point.h"

#include <chrono>

namespace uext4 {

namespace {

std::uint64_t steady_milliseconds() {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(monotonic_now()).count());
}

}  // namespace

// ---- LockedFolio

LockedFolio::LockedFolio(Folio* folio) : folio_(folio) {}

LockedFolio::LockedFolio(LockedFolio&& other) noexcept : folio_(std::exchange(other.folio_, nullptr)) {}

LockedFolio& LockedFolio::operator=(LockedFolio&& other) noexcept {
    if (this != &other) {
        unlock();
        folio_ = std::exchange(other.folio_, nullptr);
    }
    return *this;
}

void LockedFolio::unlock() {
    if (Folio* folio = std::exchange(folio_, nullptr)) folio->file->unlock(*folio);
}

Bytes LockedFolio::bytes() const { return {folio_->data, folio_->file->folio_size()}; }

// ---- FileCache

FileCache::FileCache(PageCache& cache, std::uint64_t order)
    : invalidate(Rank::Invalidate, "FileCache::invalidate", order), cache_(cache), in_dirty_row_{order} {}

FileCache::~FileCache() { remove(0, ~std::uint64_t{0}); }

Folio* FileCache::find(std::uint64_t index) const {
    auto it = folios_.find(index);
    return it == folios_.end() ? nullptr : it->second.get();
}

// Clean blocks are read anew. What was not written back yet, and only there, is zeros as in a hole that was punched; it
// is written so. What is on its way is zeros until it is there, and then what the device got.
void FileCache::notice_lost_memory(Folio& folio, BlockMask writing) {
    ClientMapsHook* maps = client_maps();
    if (!folio.in_client_memory || !folio.uptodate || !maps) return;
    constexpr std::uint64_t page = 4096;
    const std::uint64_t lost = maps->lost(folio.index), bs = block_size();
    if (lost == 0 && folio.lost == 0) return;
    BlockMask unwritten = 0;
    {
        // A writeback that fails makes blocks dirty while somebody else has the folio locked.
        MutexLock guard(tree_lock_);
        unwritten = folio.dirty | folio.journaled.load();
    }
    const BlockMask arrived = folio.lost & ~writing;
    folio.lost &= ~arrived;
    folio.uptodate &= ~arrived | unwritten;
    // A page that the kernel is moving looks lost for a moment: it is touched and not cleared. What is lost becomes
    // zeros by that, and what was only moved keeps its bytes; its clean blocks are then read once more than needed.
    for (std::uint64_t at = 0; at < folio_size(); at += page)
        if (lost >> (at / page) & 1) (void)*static_cast<volatile std::byte*>(folio.data + at);
    for (std::uint64_t at = 0; at < folio_size(); at += bs) {
        const BlockMask block = BlockMask{1} << (at / bs);
        const std::uint64_t pages = bs < page ? 1 : (std::uint64_t{1} << bs / page) - 1;
        if ((lost & pages << (at / page)) == 0 || (unwritten & block)) continue;
        if (writing & block) folio.lost |= block;
        else folio.uptodate &= ~block;
    }
}

Result<LockedFolio> FileCache::lock(std::uint64_t index, bool create) {
    rank_checker::check_rank(Rank::Folio, this, "folio", index, SourceLocation::current());
    MutexLock guard(tree_lock_);
    for (;;) {
        Folio* folio = find(index);
        if (!folio) {
            if (!create) return LockedFolio();
            auto made = std::make_unique<Folio>();
            made->file = this;
            made->index = index;
            if (ClientMapsHook* maps = client_maps()) {
                made->data = TRY(maps->memory(index));
                made->in_client_memory = true;
                cache_.account_client_memory(folio_size());
            } else {
                made->data = TRY(cache_.allocate_memory());
            }
            folio = made.get();
            folios_.emplace(index, std::move(made));
            cache_.link(*folio);
        }
        if (!folio->locked) {
            folio->locked = true;
            folio->used.store(true, std::memory_order_relaxed);
            rank_checker::push_rank(Rank::Folio, folio, "folio", index, false, SourceLocation::current());
            const BlockMask writing = folio->writing;
            guard.unlock();
            notice_lost_memory(*folio, writing);
            return LockedFolio(folio);
        }
        changed_.wait(tree_lock_);
    }
}

LockedFolio FileCache::try_lock(std::uint64_t index) {
    MutexLock guard(tree_lock_);
    Folio* folio = find(index);
    if (!folio || folio->locked) return {};
    folio->locked = true;
    rank_checker::push_rank(Rank::Folio, folio, "folio", index, false, SourceLocation::current());
    const BlockMask writing = folio->writing;
    guard.unlock();
    notice_lost_memory(*folio, writing);
    return LockedFolio(folio);
}

void FileCache::unlock(Folio& folio) {
    rank_checker::pop_rank(Rank::Folio, &folio);
    MutexLock guard(tree_lock_);
    folio.locked = false;
    changed_.notify_all();
}

Result<LockedFolio> FileCache::lock_for_change(std::uint64_t index, bool create) {
    LockedFolio folio = TRY(lock(index, create));
    if (folio) wait_for_writeback(folio);
    return folio;
}

void FileCache::wait_for_writeback(LockedFolio& folio) {
    MutexLock guard(tree_lock_);
    while (folio->writeback) changed_.wait(tree_lock_);
}

void FileCache::wait_for_writeback(std::uint64_t first, std::uint64_t end) {
    RankGuard rank(Rank::Writeback, "writeback");
    MutexLock guard(tree_lock_);
    for (;;) {
        auto it = writeback_.lower_bound(first);
        if (it == writeback_.end() || *it >= end) return;
        changed_.wait(tree_lock_);
    }
}

void FileCache::insert_dirty(Folio& folio) {
    folio.dirty_since = steady_milliseconds();
    if (dirty_.empty()) cache_.link_dirty(*this);
    dirty_.insert(folio.index);
}

void FileCache::erase_dirty(Folio& folio) {
    if (dirty_.erase(folio.index) && dirty_.empty()) cache_.unlink_dirty(*this);
}

void FileCache::mark_dirty(LockedFolio& folio, BlockMask blocks) {
    const bool was = folio->dirty != 0;
    folio->dirty |= blocks;
    if (was || !blocks) return;
    {
        MutexLock guard(tree_lock_);
        insert_dirty(*folio);
    }
    cache_.account_dirty(folio_size());
}

void FileCache::clear_dirty(LockedFolio& folio, BlockMask blocks) {
    const bool was = folio->dirty != 0;
    folio->dirty &= ~blocks;
    if (!was || folio->dirty) return;
    {
        MutexLock guard(tree_lock_);
        erase_dirty(*folio);
    }
    cache_.account_dirty(-static_cast<std::int64_t>(folio_size()));
}

void FileCache::begin_writeback(LockedFolio& folio) {
    MutexLock guard(tree_lock_);
    folio->writeback = true;
    folio->writing = folio->dirty;
    writeback_.insert(folio->index);
}

void FileCache::end_writeback(Folio& folio) {
    MutexLock guard(tree_lock_);
    folio.writeback = false;
    folio.writing = 0;
    writeback_.erase(folio.index);
    changed_.notify_all();
}

void FileCache::fail_writeback(Folio& folio, BlockMask blocks) {
    MutexLock guard(tree_lock_);
    if (!folio.dirty) {
        insert_dirty(folio);
        cache_.account_dirty(folio_size());
    }
    folio.dirty |= blocks;
    folio.writeback = false;
    folio.writing = 0;
    writeback_.erase(folio.index);
    changed_.notify_all();
}

void FileCache::pin(LockedFolio& folio) {
    MutexLock guard(tree_lock_);
    ++folio->pins;
}

void FileCache::unpin(Folio& folio) {
    MutexLock guard(tree_lock_);
    --folio.pins;
    changed_.notify_all();
}

void FileCache::drop(LockedFolio&& folio) {
    // Stores end before the last bytes are looked at.
    protect(folio);
    if (folio->owner) folio->owner->detach(*folio);
    clear_dirty(folio, ~BlockMask{0});
    Folio* raw = std::exchange(folio.folio_, nullptr);
    rank_checker::pop_rank(Rank::Folio, raw);
    cache_.unlink(*raw);
    destroy(*raw);
}

// The folio is locked by the caller and off the cache's list.
void FileCache::destroy(Folio& folio) {
    // Once the lock is given up, whoever removes the file's folios may be done with the file.
    PageCache& cache = cache_;
    // While the folio is known and locked: memory that went later could be that of the next folio at this index.
    if (folio.in_client_memory) client_maps()->release_memory(folio.index);
    std::unique_ptr<Folio> owned;
    {
        MutexLock guard(tree_lock_);
        auto it = folios_.find(folio.index);
        owned = std::move(it->second);
        folios_.erase(it);
        changed_.notify_all();
    }
    if (owned->in_client_memory) cache.account_client_memory(-std::int64_t{cache.folio_size()});
    else cache.free_memory(owned->data);
}

bool FileCache::try_reclaim(Folio& folio) {
    if (!tree_lock_.try_lock()) return false;
    const bool can = !folio.locked && !folio.writeback && !folio.pins && !folio.dirty && !folio.journaled.load();
    if (can) folio.locked = true;
    tree_lock_.unlock();
    return can;
}

// Clean, so its maps cannot store: they lose it with its memory.
void FileCache::destroy_reclaimed(Folio& folio) { destroy(folio); }

void FileCache::set_client_maps(ClientMapsHook* hook) {
    MutexLock guard(tree_lock_);
    atomic_point("FileCache::client_maps", this);
    client_maps_.store(hook, std::memory_order_release);
}

void FileCache::protect(LockedFolio& folio) {
    ClientMapsHook* maps = client_maps();
    if (folio->mapped && maps) maps->protect(folio->index * folio_size(), folio_size());
}

std::optional<std::uint64_t> FileCache::next_dirty(std::uint64_t from) const {
    MutexLock guard(tree_lock_);
    auto it = dirty_.lower_bound(from);
    if (it == dirty_.end()) return std::nullopt;
    return *it;
}

std::optional<std::uint64_t> FileCache::next_cached(std::uint64_t from) const {
    MutexLock guard(tree_lock_);
    auto it = folios_.lower_bound(from);
    if (it == folios_.end()) return std::nullopt;
    return it->first;
}

std::optional<std::uint64_t> FileCache::next_busy(std::uint64_t from) const {
    MutexLock guard(tree_lock_);
    auto dirty = dirty_.lower_bound(from);
    auto writing = writeback_.lower_bound(from);
    if (dirty == dirty_.end() && writing == writeback_.end()) return std::nullopt;
    if (dirty == dirty_.end()) return *writing;
    if (writing == writeback_.end()) return *dirty;
    return std::min(*dirty, *writing);
}

std::uint64_t FileCache::dirty_folios() const {
    MutexLock guard(tree_lock_);
    return dirty_.size();
}

std::uint64_t FileCache::cached_folios() const {
    MutexLock guard(tree_lock_);
    return folios_.size();
}

std::uint64_t FileCache::oldest_dirty() const {
    MutexLock guard(tree_lock_);
    if (dirty_.empty()) return 0;
    return find(*dirty_.begin())->dirty_since;
}

bool FileCache::idle() const {
    MutexLock guard(tree_lock_);
    if (!dirty_.empty() || !writeback_.empty()) return false;
    for (const auto& [index, folio] : folios_)
        if (folio->locked || folio->pins || folio->journaled.load()) return false;
    return true;
}

void FileCache::remove(std::uint64_t first, std::uint64_t end) {
    std::uint64_t index = first;
    for (;;) {
        {
            MutexLock guard(tree_lock_);
            auto it = folios_.lower_bound(index);
            if (it == folios_.end() || it->first >= end) return;
            index = it->first;
        }
        Result<LockedFolio> folio = lock(index, false);
        if (folio && *folio) {
            wait_for_writeback(*folio);
            drop(std::move(*folio));
        }
        if (++index == 0) return;
    }
}

}  // namespace uext4
