// A file with client maps: its memory, and where in the program's address space it is seen. What the page cache and the
// commit call when folios change.
#pragma once

#include "mmap/folio_memory_file.h"
#include "mmap/userfault.h"
#include "pagecache/file_cache.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace uext4 {

class MappedFile final : public ClientMapsHook {
public:
    // `settled`: with the registry of maps locked, whether its ranges are where they are known to be.
    MappedFile(const Userfault& userfault, std::unique_ptr<FolioMemoryFile> memory, std::uint32_t folio_size,
               std::function<bool()> settled)
        : userfault_(const_cast<Userfault&>(userfault)),
          memory_(std::move(memory)),
          folio_size_(folio_size),
          settled_(std::move(settled)) {}

    int descriptor() const { return memory_->descriptor(); }
    FolioMemoryFile& contents() { return *memory_; }

    struct Range {
        std::uintptr_t start = 0;
        std::size_t length = 0;
        std::uint64_t offset = 0;
        bool stores = false;  // watched for stores: a shared map
        bool operator==(const Range&) const = default;
    };
    void add_range(const Range& range);
    void remove_range(const Range& range);  // one of those that are like it
    bool is_mapped() const;                 // there are ranges

    void write_protect(std::uint64_t offset, std::uint64_t length) override;
    Result<std::byte*> folio_memory(std::uint64_t index) override;
    void release_folio_memory(std::uint64_t index) override;
    std::uint64_t lost_blocks(std::uint64_t index) override {
        return memory_->lost_pages(index * folio_size_, folio_size_);
    }
    void extend(std::uint64_t size) override { memory_->extend(size); }
    void truncate(std::uint64_t size) override { memory_->truncate(size); }

private:
    Userfault& userfault_;
    std::unique_ptr<FolioMemoryFile> memory_;
    const std::uint32_t folio_size_;
    const std::function<bool()> settled_;
    mutable Mutex lock_{Rank::Leaf, "MappedFile"};
    std::vector<Range> ranges_ UEXT4_GUARDED_BY(lock_);
};

}  // namespace uext4
