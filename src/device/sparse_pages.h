// Bytes by offset in 4 KiB pages that exist once written. Copies share pages, and the chunks that pages are kept in,
// until one of them writes: a copy costs an entry for each 256 KiB, and a write the chunk and the page that it changes.
#pragma once

#include "base/bytes.h"
#include "sync/mutex.h"

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <unordered_map>
#include <utility>

namespace uext4 {

// Thread-safe. A write is atomic towards reads of the same bytes.
class SparsePages {
public:
    static constexpr std::uint64_t page_size = 4096;
    using Page = std::array<std::byte, page_size>;

    SparsePages() = default;
    SparsePages(const SparsePages& other);
    SparsePages& operator=(const SparsePages&) = delete;

    // Where no page exists, `out` becomes zero.
    void read(std::uint64_t offset, Bytes out) const;

    void write(std::uint64_t offset, ConstBytes in);

    // Drops whole pages, zeroes the rest of the range where pages exist.
    void erase(std::uint64_t offset, std::uint64_t length);

    bool has_page(std::uint64_t index) const;

    // As write(), for pages over something else: where no page exists, `fill(index, page)` first makes one; if it
    // fails the pages written before stay.
    template <class Fill>
    auto write_with_fill(std::uint64_t offset, ConstBytes in, Fill&& fill) -> decltype(fill(0, std::declval<Page&>()));

    std::size_t page_count() const;

    // Calls visit(index, page) for every page in ascending order; the content may not be changed meanwhile.
    void for_each(const std::function<void(std::uint64_t, const Page&)>& visit) const;

private:
    static constexpr std::uint64_t chunk_pages = 64;
    struct Chunk {
        std::array<std::shared_ptr<Page>, chunk_pages> pages;
        std::uint64_t shared = 0;  // a bit for each page that another chunk may have too: replace it before writing
    };
    struct Entry {
        std::shared_ptr<Chunk> chunk;
        mutable bool shared = false;  // a copy of this object may have the chunk too: nothing in it changes any more
    };

    const Page* find(std::uint64_t index) const UEXT4_REQUIRES_SHARED(lock_);
    static Chunk& writable_chunk(Entry& entry);
    // Whole new pages are left for the caller to fill.
    Page& writable_page(std::uint64_t index, bool whole) UEXT4_REQUIRES(lock_);
    void erase_pages(std::uint64_t first, std::uint64_t end) UEXT4_REQUIRES(lock_);

    mutable SharedMutex lock_{Rank::Leaf, "SparsePages::lock"};
    std::unordered_map<std::uint64_t, Entry> chunks_ UEXT4_GUARDED_BY(lock_);
};

template <class Fill>
auto SparsePages::write_with_fill(std::uint64_t offset, ConstBytes in, Fill&& fill)
    -> decltype(fill(0, std::declval<Page&>())) {
    while (!in.empty()) {
        const std::uint64_t index = offset / page_size;
        const std::uint64_t start = offset % page_size;
        const ConstBytes part = in.first(std::min<std::uint64_t>(in.size(), page_size - start));
        if (!has_page(index) && part.size() < page_size) {
            // Filled without the lock, because filling reads a device; whoever comes first wins.
            auto page = std::make_shared<Page>();
            if (auto filled = fill(index, *page); !filled) return filled;
            WriteLock guard(lock_);
            if (!find(index)) writable_chunk(chunks_[index / chunk_pages]).pages[index % chunk_pages] = std::move(page);
        }
        write(offset, part);
        offset += part.size();
        in = in.subspan(part.size());
    }
    return {};
}

}  // namespace uext4
