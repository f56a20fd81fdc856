#include "device/sparse_pages.h"

#include <cstring>
#include <vector>

namespace uext4 {

SparsePages::SparsePages(const SparsePages& other) {
    WriteLock guard(other.lock_);
    for (const auto& [index, entry] : other.pages_) entry.shared = true;
    pages_ = other.pages_;
}

void SparsePages::read(std::uint64_t offset, Bytes out) const {
    ReadLock guard(lock_);
    while (!out.empty()) {
        const std::uint64_t start = offset % page_size;
        const std::size_t step = std::min<std::uint64_t>(out.size(), page_size - start);
        if (const auto found = pages_.find(offset / page_size); found != pages_.end())
            std::memcpy(out.data(), found->second.page->data() + start, step);
        else std::memset(out.data(), 0, step);
        offset += step;
        out = out.subspan(step);
    }
}

SparsePages::Page& SparsePages::writable_page(std::uint64_t index, bool whole) {
    Entry& entry = pages_[index];
    if (!entry.page) {
        entry.page = std::make_shared<Page>();  // zeroed
    } else if (entry.shared) {
        entry.page = whole ? std::make_shared<Page>() : std::make_shared<Page>(*entry.page);
        entry.shared = false;
    }
    return *entry.page;
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

void SparsePages::erase(std::uint64_t offset, std::uint64_t length) {
    if (length == 0) return;
    WriteLock guard(lock_);
    const std::uint64_t end = offset + length;
    const std::uint64_t first_whole = divide_up(offset, page_size);
    const std::uint64_t end_whole = end / page_size;
    auto zero_part = [&](std::uint64_t from, std::uint64_t to) UEXT4_NO_THREAD_SAFETY_ANALYSIS {
        const std::uint64_t index = from / page_size;
        if (from < to && pages_.contains(index))
            std::memset(writable_page(index, false).data() + from % page_size, 0, to - from);
    };
    if (first_whole > end_whole) {  // within one page
        zero_part(offset, end);
        return;
    }
    zero_part(offset, first_whole * page_size);
    zero_part(end_whole * page_size, end);
    // By whichever is fewer: the pages of the range, or those that exist.
    if (end_whole - first_whole > pages_.size())
        std::erase_if(pages_, [&](const auto& item) { return item.first >= first_whole && item.first < end_whole; });
    else
        for (std::uint64_t index = first_whole; index < end_whole; ++index) pages_.erase(index);
}

bool SparsePages::has_page(std::uint64_t index) const {
    ReadLock guard(lock_);
    return pages_.contains(index);
}

std::size_t SparsePages::page_count() const {
    ReadLock guard(lock_);
    return pages_.size();
}

void SparsePages::for_each(const std::function<void(std::uint64_t, const Page&)>& visit) const {
    std::vector<std::pair<std::uint64_t, std::shared_ptr<Page>>> all;
    {
        ReadLock guard(lock_);
        all.reserve(pages_.size());
        for (const auto& [index, entry] : pages_) all.emplace_back(index, entry.page);
    }
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [index, page] : all) visit(index, *page);
}

}  // namespace uext4
