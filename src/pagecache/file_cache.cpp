#include "pagecache/file_cache.h"

#include "base/page.h"
#include "sync/atomic_point.h"
#include "sync/resource_tracking.h"

#include <algorithm>
#include <utility>

namespace uext4 {

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
    if (Folio* folio = std::exchange(folio_, nullptr)) folio->file->unlock({&folio, 1});
}

Bytes LockedFolio::bytes() const { return {folio_->data, folio_->file->folio_size()}; }

// ---- FileCache

FileCache::FileCache(PageCache& cache, std::uint64_t order)
    : invalidate(Rank::Invalidate, "FileCache::invalidate", order), cache_(cache), dirty_list_entry_{order} {}

FileCache::~FileCache() { remove(0, ~std::uint64_t{0}); }

// Clean blocks are read anew. What was not written back yet, and only there, is zeros as in a hole that was punched; it
// is written so. What is on its way is zeros until it is there, and then what the device got.
void FileCache::update_lost_blocks(Folio& folio, BlockMask writing) {
    ClientMapsHook* maps = client_maps();
    if (!folio.in_client_memory || !folio.uptodate || !maps) return;
    const std::uint64_t lost = maps->lost_blocks(folio.index), bs = block_size();
    if (lost == 0 && folio.lost_blocks == 0) return;
    BlockMask unwritten = 0;
    {
        // A writeback that fails makes blocks dirty while somebody else has the folio locked.
        MutexLock guard(tree_lock_);
        unwritten = folio.dirty | folio.journaled_blocks.load();
    }
    const BlockMask arrived = folio.lost_blocks & ~writing;
    folio.lost_blocks &= ~arrived;
    folio.uptodate &= ~arrived | unwritten;
    // A page that the kernel is moving looks lost for a moment: it is touched and not cleared. What is lost becomes
    // zeros by that, and what was only moved keeps its bytes; its clean blocks are then read once more than needed.
    for (std::uint64_t at = 0; at < folio_size(); at += page_size)
        if (lost >> (at / page_size) & 1) (void)*static_cast<volatile std::byte*>(folio.data + at);
    for (std::uint64_t at = 0; at < folio_size(); at += bs) {
        const BlockMask block = BlockMask{1} << (at / bs);
        const std::uint64_t pages = bs < page_size ? 1 : (std::uint64_t{1} << bs / page_size) - 1;
        if ((lost & pages << (at / page_size)) == 0 || (unwritten & block)) continue;
        if (writing & block) folio.lost_blocks |= block;
        else folio.uptodate &= ~block;
    }
}

// tree_lock held.
Result<Folio*> FileCache::add_folio(std::uint64_t index) {
    Folio* made = nullptr;
    (void)TRY(add_folios(index, {&made, 1}));  // one, or an error
    return made;
}

HeldResource FileCache::holdable(const Folio& folio) const {
    return {&folio, "folio", folio.index, dirty_list_entry_.order};
}

HeldResource FileCache::writeback_of(const Folio& folio) const {
    return {&folio.writeback, "writeback of folio", folio.index, dirty_list_entry_.order};
}

// tree_lock held.
void FileCache::note_locked(Folio& folio, SourceLocation where) {
    folio.locked = true;
    folio.readahead_generation = 0;
    folio.referenced.store(true, std::memory_order_relaxed);
    rank_checker::push_rank(Rank::Folio, holdable(folio), folio.index, false, where);
}

Result<LockedFolio> FileCache::lock(std::uint64_t index, bool create, SourceLocation where) {
    rank_checker::check_rank(Rank::Folio, this, "folio", index, where);
    MutexLock guard(tree_lock_, where);
    for (;;) {
        Folio* folio = folios_.find(index);
        if (!folio) {
            if (!create) return LockedFolio();
            folio = TRY(add_folio(index));
        }
        if (!folio->locked) {
            note_locked(*folio, where);
            const BlockMask writing = folio->writeback_blocks;
            guard.unlock(where);
            update_lost_blocks(*folio, writing);
            return LockedFolio(folio);
        }
        changed_.wait(tree_lock_, holdable(*folio), where);
    }
}

LockedFolio FileCache::try_lock(std::uint64_t index, SourceLocation where) {
    MutexLock guard(tree_lock_, where);
    Folio* folio = folios_.find(index);
    if (!folio || folio->locked) return {};
    folio->locked = true;
    rank_checker::push_rank(Rank::Folio, holdable(*folio), index, false, where);
    const BlockMask writing = folio->writeback_blocks;
    guard.unlock(where);
    update_lost_blocks(*folio, writing);
    return LockedFolio(folio);
}

void FileCache::unlock(std::span<Folio* const> folios) {
    const SourceLocation where = rank_checker::taken_at(folios.front());
    for (Folio* folio : folios) rank_checker::pop_rank(Rank::Folio, folio);
    MutexLock guard(tree_lock_, where);
    for (Folio* folio : folios) folio->locked = false;
    changed_.notify_all(where);
}

Result<LockedFolio> FileCache::lock_for_change(std::uint64_t index, bool create, SourceLocation where) {
    LockedFolio folio = TRY(lock(index, create, where));
    if (folio) wait_for_writeback(folio, where);
    return folio;
}

void FileCache::wait_for_writeback(LockedFolio& folio, SourceLocation where) {
    MutexLock guard(tree_lock_, where);
    while (folio->writeback) changed_.wait(tree_lock_, writeback_of(*folio), where);
}

void FileCache::wait_for_writeback(std::uint64_t first, std::uint64_t end, SourceLocation where) {
    RankGuard rank(Rank::Writeback, "wait for writeback", 0, where);
    MutexLock guard(tree_lock_, where);
    for (;;) {
        const auto next = folios_.next(FolioTree::Tag::writeback, first);
        if (!next || *next >= end) return;
        changed_.wait(tree_lock_, writeback_of(*folios_.find(*next)), where);
    }
}

void FileCache::insert_dirty(Folio& folio) {
    if (folios_.count(FolioTree::Tag::dirty) == 0) cache_.link_dirty(*this);
    folios_.set(FolioTree::Tag::dirty, folio.index);
    cache_.account_dirty(folio_size());
}

void FileCache::erase_dirty(Folio& folio) {
    folios_.clear(FolioTree::Tag::dirty, folio.index);
    if (folios_.count(FolioTree::Tag::dirty) == 0) cache_.unlink_dirty(*this);
    cache_.account_dirty(-static_cast<std::int64_t>(folio_size()));
}

void FileCache::mark_dirty(LockedFolio& folio, BlockMask blocks) {
    const bool was = folio->dirty != 0;
    folio->dirty |= blocks;
    if (was || !blocks) return;
    MutexLock guard(tree_lock_);
    insert_dirty(*folio);
}

void FileCache::clear_dirty(LockedFolio& folio, BlockMask blocks) {
    const bool was = folio->dirty != 0;
    folio->dirty &= ~blocks;
    if (!was || folio->dirty) return;
    MutexLock guard(tree_lock_);
    erase_dirty(*folio);
}

void FileCache::begin_writeback(LockedFolio& folio, SourceLocation where) {
    MutexLock guard(tree_lock_, where);
    note_held(writeback_of(*folio), where);
    folio->writeback = true;
    folio->writeback_blocks = std::exchange(folio->dirty, 0);
    cache_.account_writeback(cache_.folio_size());
    folios_.set(FolioTree::Tag::writeback, folio->index);
    if (folio->writeback_blocks) erase_dirty(*folio);
}

void FileCache::end_writeback(std::span<Folio* const> folios) {
    MutexLock guard(tree_lock_);
    for (Folio* folio : folios) {
        note_released(&folio->writeback);
        folio->writeback = false;
        folio->writeback_blocks = 0;
        folios_.clear(FolioTree::Tag::writeback, folio->index);
    }
    cache_.account_writeback(-static_cast<std::int64_t>(folios.size() * cache_.folio_size()));
    changed_.notify_all();
}

void FileCache::fail_writeback(Folio& folio, BlockMask blocks) {
    MutexLock guard(tree_lock_);
    if (!folio.dirty) insert_dirty(folio);
    folio.dirty |= blocks;
    note_released(&folio.writeback);
    folio.writeback = false;
    folio.writeback_blocks = 0;
    cache_.account_writeback(-std::int64_t{cache_.folio_size()});
    folios_.clear(FolioTree::Tag::writeback, folio.index);
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

void FileCache::remove(LockedFolio&& folio) {
    // Stores end before the last bytes are looked at.
    write_protect(folio);
    if (folio->owner) folio->owner->detach(*folio);
    clear_dirty(folio, ~BlockMask{0});
    Folio* raw = std::exchange(folio.folio_, nullptr);
    note_held(holdable(*raw), rank_checker::taken_at(raw));
    rank_checker::pop_rank(Rank::Folio, raw);
    cache_.unlink(*raw);
    destroy(*raw);
}

// The folio is locked by the caller and off the cache's list.
void FileCache::destroy(Folio& folio) {
    // Once the lock is given up, whoever removes the file's folios may be done with the file.
    PageCache& cache = cache_;
    // While the folio is known and locked: memory that went later could be that of the next folio at this index.
    if (folio.in_client_memory) client_maps()->release_folio_memory(folio.index);
    std::unique_ptr<Folio> owned;
    {
        MutexLock guard(tree_lock_);
        note_released(&folio);
        owned = folios_.remove(folio.index);
        changed_.notify_all();
    }
    if (owned->in_client_memory) cache.account_client_memory(-std::int64_t{cache.folio_size()});
    else cache.free_memory(owned->data);
}

bool FileCache::try_reclaim(Folio& folio) {
    if (!tree_lock_.try_lock()) return false;
    const bool can = !folio.locked && !folio.writeback && !folio.pins && !folio.dirty && !folio.journaled_blocks.load();
    if (can) {
        note_held(holdable(folio), SourceLocation::current());
        folio.locked = true;
    }
    tree_lock_.unlock();
    return can;
}

// Clean, so its maps cannot store: they lose it with its memory.
void FileCache::destroy_reclaimed(Folio& folio) {
    if (folio.readahead_generation) wasted_generation_.store(folio.readahead_generation, std::memory_order_relaxed);
    destroy(folio);
}

bool FileCache::take_wasted_readahead() {
    std::uint32_t turn = wasted_generation_.load(std::memory_order_relaxed);
    return turn == readahead_generation_.load(std::memory_order_relaxed) &&
           readahead_generation_.compare_exchange_strong(turn, std::max(turn + 1, 1U), std::memory_order_relaxed);
}

void FileCache::set_client_maps(ClientMapsHook* hook) {
    MutexLock guard(tree_lock_);
    atomic_point("FileCache::client_maps", this);
    client_maps_.store(hook, std::memory_order_release);
}

void FileCache::write_protect(LockedFolio& folio) {
    ClientMapsHook* maps = client_maps();
    if (folio->mapped && maps) maps->write_protect(folio->index * folio_size(), folio_size());
}

std::optional<std::uint64_t> FileCache::next_dirty(std::uint64_t from) const {
    MutexLock guard(tree_lock_);
    return folios_.next(FolioTree::Tag::dirty, from);
}

std::optional<std::uint64_t> FileCache::next_cached(std::uint64_t from) const {
    MutexLock guard(tree_lock_);
    return folios_.next(FolioTree::Tag::present, from);
}

std::optional<std::uint64_t> FileCache::next_dirty_or_writeback(std::uint64_t from) const {
    MutexLock guard(tree_lock_);
    const auto dirty = folios_.next(FolioTree::Tag::dirty, from);
    const auto writing = folios_.next(FolioTree::Tag::writeback, from);
    return dirty && writing ? std::min(*dirty, *writing) : dirty ? dirty : writing;
}

std::uint64_t FileCache::dirty_folios() const {
    MutexLock guard(tree_lock_);
    return folios_.count(FolioTree::Tag::dirty);
}

std::uint64_t FileCache::dirty_or_writeback_folios() const {
    MutexLock guard(tree_lock_);
    return folios_.count(FolioTree::Tag::dirty) + folios_.count(FolioTree::Tag::writeback);
}

std::uint64_t FileCache::cached_folios() const {
    MutexLock guard(tree_lock_);
    return folios_.count(FolioTree::Tag::present);
}

bool FileCache::has_dirty_or_writeback() const {
    MutexLock guard(tree_lock_);
    return folios_.count(FolioTree::Tag::dirty) != 0 || folios_.count(FolioTree::Tag::writeback) != 0;
}

// Reclaim takes clean folios, which count in neither.
bool FileCache::has_dirty_or_writeback_unlocked() const {
    return folios_.count(FolioTree::Tag::dirty) != 0 || folios_.count(FolioTree::Tag::writeback) != 0;
}

void FileCache::remove(std::uint64_t first, std::uint64_t end, SourceLocation where) {
    std::uint64_t index = first;
    for (;;) {
        {
            MutexLock guard(tree_lock_, where);
            const auto next = folios_.next(FolioTree::Tag::present, index);
            if (!next || *next >= end) return;
            index = *next;
        }
        Result<LockedFolio> folio = lock(index, false, where);
        if (folio && *folio) {
            wait_for_writeback(*folio, where);
            remove(std::move(*folio));
        }
        if (++index == 0) return;
    }
}

}  // namespace uext4
