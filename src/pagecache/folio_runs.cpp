// Folios of a file that follow each other, locked together.
#include "pagecache/file_cache.h"

#include <algorithm>
#include <array>
#include <memory>
#include <new>
#include <utility>

namespace uext4 {

LockedFolioRange::LockedFolioRange(LockedFolioRange&& other) noexcept : count_(std::exchange(other.count_, 0)) {
    std::ranges::copy_n(other.folios_.begin(), static_cast<std::ptrdiff_t>(count_), folios_.begin());
}

void LockedFolioRange::unlock() {
    if (const std::size_t count = std::exchange(count_, 0)) folios_[0]->file->unlock({folios_.data(), count});
}

// As many as there are places, or as there is memory for; at least one. None of them is there. tree_lock held.
Result<std::size_t> FileCache::add_folios(std::uint64_t index, std::span<Folio*> made) {
    // What was added goes again, unless it has memory.
    struct Added {
        FolioTree& folios;
        std::span<Folio*> some;
        std::size_t added = 0, kept = 0;
        ~Added() {
            for (; added > kept; --added) (void)folios.remove(some[added - 1]->index);
        }
    } state{folios_, made};
    while (state.added < made.size()) {
        auto folio = std::make_unique<Folio>();
        folio->file = this;
        folio->index = index + state.added;
        made[state.added] = &folios_.add(std::move(folio));
        ++state.added;
    }
    if (ClientMapsHook* maps = client_maps()) {
        try {
            for (; state.kept < made.size(); ++state.kept) {
                const Result<std::byte*> memory = maps->folio_memory(index + state.kept);
                if (!memory && state.kept == 0) return fail(memory.error());
                if (!memory) break;
                made[state.kept]->data = *memory;
                made[state.kept]->in_client_memory = true;
            }
        } catch (const std::bad_alloc&) {
            if (state.kept == 0) throw;  // the others have theirs
        }
        cache_.account_client_memory(static_cast<std::int64_t>(state.kept * folio_size()));
    } else {
        std::array<std::byte*, LockedFolioRange::max_folios> memory;
        TRY(cache_.allocate_memory(std::span(memory).first(made.size())));
        for (; state.kept < made.size(); ++state.kept) made[state.kept]->data = memory[state.kept];
    }
    cache_.link(made.first(state.kept));
    return state.kept;
}

Result<LockedFolioRange> FileCache::lock_range_for_change(std::uint64_t index, std::size_t count,
                                                          SourceLocation where) {
    LockedFolio first = TRY(lock_for_change(index, true, where));
    LockedFolioRange run;
    run.folios_[run.count_++] = std::exchange(first.folio_, nullptr);
    count = std::min(count, LockedFolioRange::max_folios_for_change);
    if (count <= 1) return run;
    {
        MutexLock guard(tree_lock_, where);
        while (run.count_ < count) {
            const std::uint64_t next = index + run.count_;
            Folio* folio = folios_.find(next);
            if (!folio) {
                const Result<Folio*> made = add_folio(next);
                if (!made) break;
                folio = *made;
            }
            if (folio->locked || folio->writeback) break;
            note_locked(*folio, where);
            run.folios_[run.count_++] = folio;
        }
    }
    for (Folio* folio : run.folios().subspan(1)) update_lost_blocks(*folio, 0);
    return run;
}

LockedFolioRange FileCache::lock_uptodate_range(std::uint64_t index, std::size_t count, SourceLocation where) {
    LockedFolioRange run;
    const std::uint64_t blocks = folio_size() / block_size();
    const BlockMask all = blocks == 64 ? ~BlockMask{0} : (BlockMask{1} << blocks) - 1;
    count = std::min(count, LockedFolioRange::max_folios_for_change);
    MutexLock guard(tree_lock_, where);
    while (run.count_ < count) {
        Folio* folio = folios_.find(index + run.count_);
        // What is not locked does not become less while the tree is locked. Of the clients' memory a part may be lost,
        // for which lock() looks.
        if (!folio || folio->locked || folio->uptodate != all || folio->in_client_memory) break;
        note_locked(*folio, where);
        run.folios_[run.count_++] = folio;
    }
    return run;
}

Result<LockedFolioRange> FileCache::add_locked_range(std::uint64_t index, std::size_t count, SourceLocation where) {
    LockedFolioRange run;
    MutexLock guard(tree_lock_, where);
    std::uint64_t end = index + std::min(count, LockedFolioRange::max_folios);
    if (const auto there = folios_.next(FolioTree::Tag::present, index)) end = std::min(end, *there);
    if (end == index) return run;
    run.count_ = TRY(add_folios(index, std::span(run.folios_).first(end - index)));
    for (Folio* folio : run.folios()) note_locked(*folio, where);
    return run;
}

void FileCache::mark_dirty(LockedFolioRange& run, BlockMask blocks) {
    MutexLock guard(tree_lock_);
    for (Folio* folio : run.folios()) {
        const bool was = folio->dirty != 0;
        folio->dirty |= blocks;
        if (!was && blocks) insert_dirty(*folio);
    }
}

}  // namespace uext4
