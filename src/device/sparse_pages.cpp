#include "device/sparse_pages.h"

#include <cstring>
#include <vector>

namespace uext4 {

SparsePages::SparsePages(const SparsePages& other) {
    WriteLock guard(other.lock_);
    for (const auto& [index, entry] : other.chunks_) entry.shared = true;
    chunks_ = other.chunks_;
}

const SparsePages::Page* SparsePages::find(std::uint64_t index) const {
    const auto found = chunks_.find(index / chunk_pages);
    return found == chunks_.end() ? nullptr : found->second.chunk->pages[index % chunk_pages].get();
}

void SparsePages::read(std::uint64_t offset, Bytes out) const {
    ReadLock guard(lock_);
    while (!out.empty()) {
        const std::uint64_t start = offset % page_size;
        const std::size_t step = std::min<std::uint64_t>(out.size(), page_size - start);
        if (const Page* page = find(offset / page_size)) std::memcpy(out.data(), page->data() + start, step);
        else std::memset(out.data(), 0, step);
        offset += step;
        out = out.subspan(step);
    }
}

SparsePages::Chunk& SparsePages::writable_chunk(Entry& entry) {
    if (!entry.chunk) {
        entry.chunk = std::make_shared<Chunk>();
    } else if (entry.shared) {
        entry.chunk = std::make_shared<Chunk>(*entry.chunk);
        entry.chunk->shared = ~std::uint64_t{0};
        entry.shared = false;
    }
    return *entry.chunk;
}

SparsePages::Page& SparsePages::writable_page(std::uint64_t index, bool whole) {
    Chunk& chunk = writable_chunk(chunks_[index / chunk_pages]);
    std::shared_ptr<Page>& page = chunk.pages[index % chunk_pages];
    const std::uint64_t bit = std::uint64_t{1} << index % chunk_pages;
    if (!page) page = std::make_shared<Page>();  // zeroed
    else if (chunk.shared & bit) page = whole ? std::make_shared<Page>() : std::make_shared<Page>(*page);
    chunk.shared &= ~bit;
    return *page;
}

void SparsePages::write(std::uint64_t offset, ConstBytes in) {
    WriteLock guard(lock_);
    while (!in.empty()) {
        const std::uint64_t start = offset % page_size;
        const std::size_t step = std::min<std::uint64_t>(in.size(), page_size - start);
        std::memcpy(writable_page(offset / page_size, step == page_size).data() + start, in.data(), step);
        offset += step;
        in = in.subspan(step);
    }
}

void SparsePages::erase_pages(std::uint64_t first, std::uint64_t end) {
    const auto erase_of = [&](std::uint64_t number, Entry& entry) {
        const std::uint64_t start = number * chunk_pages;
        const std::uint64_t from = std::max(first, start) - start, to = std::min(end, start + chunk_pages) - start;
        if (to - from == chunk_pages) return true;
        Chunk& chunk = writable_chunk(entry);
        for (std::uint64_t i = from; i < to; ++i) chunk.pages[i].reset();
        return std::ranges::none_of(chunk.pages, [](const auto& page) { return page != nullptr; });
    };
    if (first >= end) return;
    const std::uint64_t first_chunk = first / chunk_pages, last_chunk = (end - 1) / chunk_pages;
    // By whichever is fewer: the chunks of the range, or those that exist.
    if (last_chunk - first_chunk >= chunks_.size()) {
        for (auto it = chunks_.begin(); it != chunks_.end();) {
            const bool within = it->first >= first_chunk && it->first <= last_chunk;
            it = within && erase_of(it->first, it->second) ? chunks_.erase(it) : std::next(it);
        }
        return;
    }
    for (std::uint64_t number = first_chunk; number <= last_chunk; ++number)
        if (const auto found = chunks_.find(number); found != chunks_.end() && erase_of(number, found->second))
            chunks_.erase(found);
}

void SparsePages::erase(std::uint64_t offset, std::uint64_t length) {
    if (length == 0) return;
    WriteLock guard(lock_);
    const std::uint64_t end = offset + length;
    const std::uint64_t first_whole = divide_up(offset, page_size);
    const std::uint64_t end_whole = end / page_size;
    auto zero_part = [&](std::uint64_t from, std::uint64_t to) UEXT4_NO_THREAD_SAFETY_ANALYSIS {
        const std::uint64_t index = from / page_size;
        if (from < to && find(index)) std::memset(writable_page(index, false).data() + from % page_size, 0, to - from);
    };
    if (first_whole > end_whole) {  // within one page
        zero_part(offset, end);
        return;
    }
    zero_part(offset, first_whole * page_size);
    zero_part(end_whole * page_size, end);
    erase_pages(first_whole, end_whole);
}

bool SparsePages::has_page(std::uint64_t index) const {
    ReadLock guard(lock_);
    return find(index) != nullptr;
}

std::size_t SparsePages::page_count() const {
    ReadLock guard(lock_);
    std::size_t count = 0;
    for (const auto& [number, entry] : chunks_)
        count += static_cast<std::size_t>(std::ranges::count_if(entry.chunk->pages, [](const auto& p) { return !!p; }));
    return count;
}

void SparsePages::for_each(const std::function<void(std::uint64_t, const Page&)>& visit) const {
    std::vector<std::pair<std::uint64_t, std::shared_ptr<Chunk>>> all;
    {
        ReadLock guard(lock_);
        all.reserve(chunks_.size());
        for (const auto& [number, entry] : chunks_) all.emplace_back(number, entry.chunk);
    }
    std::ranges::sort(all, {}, [](const auto& chunk) { return chunk.first; });
    for (const auto& [number, chunk] : all)
        for (std::uint64_t i = 0; i < chunk_pages; ++i)
            if (chunk->pages[i]) visit(number * chunk_pages + i, *chunk->pages[i]);
}

}  // namespace uext4
