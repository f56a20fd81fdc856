#include "pagecache/page_cache.h"

#include "pagecache/file_cache.h"
#include "pagecache/memory_chunk.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <iterator>
#include <span>
#include <utility>
#include <vector>

namespace uext4 {

namespace {
constexpr std::size_t chunk_bytes = memory_chunk_bytes;
constexpr std::uint64_t least_for_huge = 4 * chunk_bytes;
constexpr std::size_t populated_bytes = std::size_t{64} << 10;
constexpr unsigned reclaim_batch = 256;

std::uint64_t steady_milliseconds() {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(monotonic_now()).count());
}
}  // namespace

// Memory in chunks whose addresses are kept until the cache goes, the list of folios in the order of their use, and the
// row of files that have dirty ones.
struct PageCache::State {
    template <class T>
    struct List {
        T* oldest = nullptr;
        T* newest = nullptr;

        void append(T& one) {
            one.older = newest;
            one.newer = nullptr;
            (newest ? newest->newer : oldest) = &one;
            newest = &one;
        }
        void remove(T& one) {
            (one.older ? one.older->newer : oldest) = one.newer;
            (one.newer ? one.newer->older : newest) = one.older;
            one.older = one.newer = nullptr;
        }
    };

    Mutex lock{Rank::Leaf, "PageCache::list"};
    struct Chunk {
        std::byte* memory = nullptr;
        bool huge = false;  // the system may give it a huge page: one fault, and one place in the TLB, for all of it
    };
    std::vector<Chunk> chunks;  // by their addresses
    std::byte* newest = nullptr;
    std::vector<std::byte*> free;
    std::vector<std::byte*> released;  // free as well, and without pages of the system's
    bool newest_is_huge = false;
    // The cache may be large: a chunk that goes as a whole may be a huge page when it is used again.
    bool grows = false;
    std::byte* populated = nullptr;  // how far the newest chunk has pages of the system's, or more
    List<Folio> lru;
    std::uint64_t folios = 0;
    // What was used when all folios were looked at in vain, or less, if it was less since.
    std::uint64_t unreclaimable = none_unreclaimable;
    static constexpr std::uint64_t none_unreclaimable = ~std::uint64_t{0};

    Mutex dirty_lock{Rank::Leaf, "PageCache::dirty_files"};
    List<FileCache::DirtyListEntry> dirty_files UEXT4_GUARDED_BY(dirty_lock);

    // The first use of a page costs a fault, unless it is given some at a time. Where that fails it costs a fault. A
    // huge page is there as a whole or not.
    void populate(std::byte* memory, std::size_t wanted) {
        if (memory < populated || memory < newest || memory >= newest + chunk_bytes) return;
        const std::size_t left = static_cast<std::size_t>(newest + chunk_bytes - memory);
        const std::size_t bytes = newest_is_huge ? left : std::min(std::max(populated_bytes, wanted), left);
        populate_memory(memory, bytes);
        populated = memory + bytes;
    }
    void trim_idle(std::uint64_t bytes, std::uint32_t folio_size) {
        while (release_batch(bytes / folio_size, folio_size)) {
        }
    }
    // Gives memory of free folios back to the system until so many are left, a part of them at a time: the lock is
    // everybody's. False where it is done.
    bool release_batch(std::size_t kept, std::uint32_t folio_size) {
        constexpr std::size_t most_at_once = 65536;
        MutexLock guard(lock);
        if (free.size() <= kept) return false;
        const std::size_t count = std::min(free.size() - kept, most_at_once);
        const std::span<std::byte*> going = std::span(free).last(count);
        std::ranges::sort(going, std::less<>());
        for (std::size_t i = 0; i < count;) {
            std::byte* const first = going[i];
            const std::size_t together = run_of(going.subspan(i), folio_size), run_bytes = together * folio_size;
            if (!grows || run_bytes != chunk_bytes) stop_huge(first);
            ::madvise(first, run_bytes, MADV_DONTNEED);
            i += together;
        }
        // So that the lowest address is the first to be used again.
        released.insert(released.end(), going.rbegin(), going.rend());
        free.resize(free.size() - count);
        return free.size() > kept;
    }
    // How many of the first folios lie together in one chunk; the addresses ascend.
    static std::size_t run_of(std::span<std::byte* const> folios, std::uint32_t folio_size) {
        std::size_t n = 1;
        while (n < folios.size() && folios[n] == folios[0] + n * folio_size && !starts_chunk(folios[n])) ++n;
        return n;
    }
    // Some released folios are free again, with pages of the system's: a fault each would cost more.
    void repopulate_released(std::uint32_t folio_size) {
        const std::size_t most = std::max<std::size_t>(1, populated_bytes / folio_size), before = free.size();
        std::byte* const first = released.back();
        for (std::byte* next = first; free.size() - before < most && !released.empty(); next += folio_size) {
            if (released.back() != next || (next != first && starts_chunk(next))) break;
            free.push_back(next);
            released.pop_back();
        }
        populate_memory(first, (free.size() - before) * folio_size);
        std::ranges::reverse(std::span(free).subspan(before));
    }
    std::uint64_t idle_bytes(std::uint32_t folio_size) {
        MutexLock guard(lock);
        return free.size() * std::uint64_t{folio_size};
    }
    static bool starts_chunk(const std::byte* memory) {
        return reinterpret_cast<std::uintptr_t>(memory) % chunk_bytes == 0;
    }
    // For all folios at once, as giving one back, which destructors do, asks for no memory.
    void reserve(std::size_t chunk_count, std::uint32_t folio_size) {
        if (chunk_count <= chunks.capacity()) return;
        const std::size_t more = std::bit_ceil(chunk_count), folio_count = more * (chunk_bytes / folio_size);
        free.reserve(folio_count);
        released.reserve(folio_count);
        chunks.reserve(more);
    }
    // Or the system would fill the gaps that are given back to it, to make a huge page of the chunk again.
    void stop_huge(const std::byte* memory) {
        Chunk& chunk =
            *std::prev(std::ranges::upper_bound(chunks, memory, std::less<const std::byte*>(), &Chunk::memory));
        if (std::exchange(chunk.huge, false)) forbid_huge_page(chunk.memory);
    }
    // A small cache, and one of which little is used, take no more than they use.
    bool may_be_huge(std::uint64_t most) const { return most >= least_for_huge && !chunks.empty(); }
    void append(Folio& folio) {
        lru.append(folio);
        ++folios;
    }
    void remove(Folio& folio) {
        lru.remove(folio);
        --folios;
    }
};

PageCache::PageCache(std::uint64_t most, std::uint32_t folio_size, std::uint32_t block_size)
    : max_bytes_(most), folio_size_(folio_size), block_size_(block_size), arena_(std::make_unique<State>()) {}

PageCache::~PageCache() {
    for (const State::Chunk& chunk : arena_->chunks) unmap_memory_chunk(chunk.memory);
}

void PageCache::set_flusher(std::function<void()> wake) { wake_flusher_ = std::move(wake); }

void PageCache::wake_flusher() {
    if (wake_flusher_) wake_flusher_();
}

void PageCache::set_other_users(std::function<std::uint64_t()> bytes) { other_users_ = std::move(bytes); }

std::uint64_t PageCache::limit() const {
    const std::uint64_t least = max_bytes_ / 4,
                        most =
                            memory_limit_ ? std::max(least, memory_limit_->limit_for_cache(used_bytes())) : max_bytes_;
    return most - (other_users_ ? std::min(other_users_(), most - least) : 0);
}

void PageCache::join_memory_limit(CacheMemoryLimit& budget) {
    memory_limit_ = &budget;
    arena_->grows = true;
    budget.account(static_cast<std::int64_t>(used_bytes()));
    budget.add_cache(*this);
}

void PageCache::leave_memory_limit() {
    if (!memory_limit_) return;
    memory_limit_->remove_cache(*this);
    memory_limit_->account(-static_cast<std::int64_t>(used_bytes()));
    memory_limit_ = nullptr;
}

Result<void> PageCache::allocate_memory(std::span<std::byte*> places) {
    MutexLock guard(arena_->lock);
    std::vector<std::byte*>& free = arena_->free;
    const std::vector<std::byte*>& released = arena_->released;
    while (free.size() < places.size() && !released.empty()) arena_->repopulate_released(folio_size_);
    while (free.size() < places.size()) {
        arena_->reserve(arena_->chunks.size() + 1, folio_size_);
        const bool huge = arena_->may_be_huge(max_bytes_);
        std::byte* const prepared = memory_limit_ && huge ? memory_limit_->take_populated_chunk() : nullptr;
        std::byte* const chunk = prepared ? prepared : map_memory_chunk();
        if (!chunk) return fail(ENOMEM, "page cache: no memory for {} bytes", chunk_bytes);
        if (huge && !prepared) allow_huge_page(chunk);
        arena_->chunks.insert(
            std::ranges::upper_bound(arena_->chunks, chunk, std::less<const std::byte*>(), &State::Chunk::memory),
            {.memory = chunk, .huge = huge});
        arena_->newest = chunk;
        arena_->populated = prepared ? chunk + chunk_bytes : chunk;
        arena_->newest_is_huge = huge;
        // What is left of the chunk before is used first.
        const std::size_t left = free.size();
        for (std::size_t at = chunk_bytes; at >= folio_size_; at -= folio_size_)
            free.push_back(chunk + at - folio_size_);
        std::ranges::rotate(free, free.begin() + static_cast<std::ptrdiff_t>(left));
    }
    std::copy_n(free.rbegin(), places.size(), places.begin());
    free.resize(free.size() - places.size());
    if (!std::ranges::is_sorted(places, std::less<>())) std::ranges::sort(places, std::less<>());
    for (std::size_t i = 0; i < places.size(); ++i) arena_->populate(places[i], (places.size() - i) * folio_size_);
    account_used(static_cast<std::int64_t>(places.size() * folio_size_));
    return {};
}

void PageCache::free_memory(std::byte* memory) {
    MutexLock guard(arena_->lock);
    arena_->free.push_back(memory);
    account_used(-std::int64_t{folio_size_});
}

void PageCache::account_client_memory(std::int64_t bytes) {
    const std::uint64_t most = limit(), now = account_used(bytes);
    if (bytes > 0) arena_->trim_idle(most > now ? most - now : 0, folio_size_);
}

void PageCache::release_idle_memory() {
    const std::uint64_t most = limit(), now = used_bytes(), room = most > now ? most - now : 0;
    // What is idle for some seconds goes; a file that is written anew finds most of its memory again.
    if (memory_limit_)
        return arena_->trim_idle(std::min(room, std::max(arena_->idle_bytes(folio_size_) / 2, max_bytes_ / 4)),
                                 folio_size_);
    if (most != max_bytes_) arena_->trim_idle(room, folio_size_);
}

void PageCache::link(std::span<Folio* const> folios) {
    MutexLock guard(arena_->lock);
    for (Folio* folio : folios) arena_->append(*folio);
}

void PageCache::unlink(Folio& folio) {
    MutexLock guard(arena_->lock);
    arena_->remove(folio);
}

void PageCache::link_dirty(FileCache& file) {
    const std::uint64_t now = steady_milliseconds();
    MutexLock guard(arena_->dirty_lock);
    file.dirty_list_entry_.since = now;
    file.dirty_list_entry_.is_listed = true;
    arena_->dirty_files.append(file.dirty_list_entry_);
}

void PageCache::unlink_dirty(FileCache& file) {
    MutexLock guard(arena_->dirty_lock);
    file.dirty_list_entry_.is_listed = false;
    arena_->dirty_files.remove(file.dirty_list_entry_);
}

std::vector<PageCache::DirtyFile> PageCache::oldest_dirty_files(std::size_t most) {
    std::vector<DirtyFile> files;
    files.reserve(most);
    MutexLock guard(arena_->dirty_lock);
    for (const FileCache::DirtyListEntry* at = arena_->dirty_files.oldest; at && files.size() < most; at = at->newer)
        files.push_back({at->order, at->since});
    return files;
}

void PageCache::requeue_dirty_file(FileCache& file) {
    const std::uint64_t now = steady_milliseconds();
    MutexLock guard(arena_->dirty_lock);
    if (!file.dirty_list_entry_.is_listed) return;
    arena_->dirty_files.remove(file.dirty_list_entry_);
    file.dirty_list_entry_.since = now;
    arena_->dirty_files.append(file.dirty_list_entry_);
}

std::optional<std::uint64_t> PageCache::next_dirty_file() {
    MutexLock guard(arena_->dirty_lock);
    FileCache::DirtyListEntry* first = arena_->dirty_files.oldest;
    if (!first) return std::nullopt;
    arena_->dirty_files.remove(*first);
    arena_->dirty_files.append(*first);
    return first->order;
}

std::uint64_t PageCache::reclaim() {
    if (memory_limit_ && memory_limit_->needs_recheck()) memory_limit_->recheck();
    return reclaim_local();
}

// Victims are locked under the list lock, so they cannot go away; what blocks happens after it is given up.
std::uint64_t PageCache::reclaim_local() {
    std::uint64_t freed = 0;
    std::uint64_t looked_at = 0;
    while (is_above_limit()) {
        std::array<Folio*, reclaim_batch> locked{};  // nothing can fail once the first of them is
        std::size_t victims = 0;
        {
            MutexLock guard(arena_->lock);
            std::uint64_t& in_vain = arena_->unreclaimable;
            if (in_vain != State::none_unreclaimable) {
                in_vain = std::min(in_vain, used_bytes());
                if (used_bytes() < in_vain + reclaim_step()) return freed;
            }
            const std::uint64_t before = looked_at;
            const std::uint64_t budget = std::min<std::uint64_t>(arena_->folios, 4 * reclaim_batch);
            for (std::uint64_t n = 0; n < budget && victims < reclaim_batch; ++n) {
                Folio* folio = arena_->lru.oldest;
                if (!folio) break;
                ++looked_at;
                arena_->remove(*folio);
                if (!folio->referenced.exchange(false) && folio->file->try_reclaim(*folio)) {
                    locked[victims++] = folio;
                    continue;
                }
                arena_->append(*folio);
            }
            scanned_folios_.fetch_add(looked_at - before, std::memory_order_relaxed);
            // Also when others have taken all there are: they free them.
            if (victims == 0 && looked_at >= 2 * arena_->folios) {
                in_vain = used_bytes();
                return freed;
            }
            if (victims != 0) in_vain = State::none_unreclaimable;
        }
        for (Folio* folio : std::span(locked).first(victims)) {
            folio->file->destroy_reclaimed(*folio);
            freed += folio_size_;
        }
        release_idle_memory();
    }
    return freed;
}

}  // namespace uext4
