// The memory of a mapped file's folios: a memory file that is mapped once here, plainly, and again by each client map.
// A page exists where a folio is, or where somebody has looked; the page cache's folios alone say what is valid.
//
// It is mapped in windows, which stay for as long as the memory does. The kernel keeps a table of pages for each
// section that was ever touched: those of sections without folios go, but for a few.
#pragma once

#include "base/result.h"
#include "sync/mutex.h"

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <unordered_map>
#include <utility>

namespace uext4 {

class FolioMemoryFile {
public:
    static constexpr const char* name = "uext4-file";  // of the memory file
    // `size`: bytes of the file; `unit`: of a folio, which is there as a whole or not at all.
    static Result<std::unique_ptr<FolioMemoryFile>> create(std::uint64_t size, std::uint32_t unit);
    ~FolioMemoryFile();
    FolioMemoryFile(const FolioMemoryFile&) = delete;

    int descriptor() const { return fd_; }
    // What the kernel calls it, where it tells what is mapped.
    using Identity = std::pair<dev_t, ino_t>;
    Identity identity() const { return identity_; }
    // Where the folio at `offset` lies, until unmap_folio(); it does not cross a section (its size is a power of two up
    // to 64 KiB, its offset a multiple of that). The memory file reaches so far afterwards. ENOMEM, EFBIG.
    Result<std::byte*> map_folio(std::uint64_t offset);
    // The folio is no more: its pages go, in every map.
    void unmap_folio(std::uint64_t offset);
    // The lowest address in [start, end) where the memory file is mapped here; `end` where it is not.
    std::uintptr_t first_own_window(std::uintptr_t start, std::uintptr_t end);
    // The pages of [offset, offset + length) that are gone, one bit each.
    std::uint64_t lost_pages(std::uint64_t offset, std::uint64_t length);
    // The memory file reaches at least, or only, so far: an access of a client beyond its last folio ends with SIGBUS.
    // What is in that folio but not in the last page faults again, to be refused.
    void extend(std::uint64_t size);
    // The same; it has to. EFBIG where the process's limit on file sizes is less.
    Result<void> ensure_size(std::uint64_t size);
    void truncate(std::uint64_t size);

private:
    FolioMemoryFile(int fd, std::uint64_t size, std::uint32_t unit);
    Result<std::byte*> map_window(std::uint64_t number);
    bool map_at(std::byte* place, std::uint64_t offset, std::uint64_t length) const;
    void drop_table(std::uint64_t section) UEXT4_REQUIRES(lock_);
    void punch(std::uint64_t offset, std::uint64_t length);
    bool is_resident(std::uint64_t offset, std::uint64_t length);
    void extend_file_locked(std::uint64_t size) UEXT4_REQUIRES(lock_);
    Result<void> ensure_size_locked(std::uint64_t size) UEXT4_REQUIRES(lock_);

    static constexpr std::uint64_t section = std::uint64_t{2} << 20;
    const int fd_;
    const std::uint64_t unit_, window_;
    Identity identity_;
    Mutex lock_{Rank::Leaf, "ClientMemory"};
    std::uint64_t size_ UEXT4_GUARDED_BY(lock_) = 0;  // of the memory file, whole units
    std::map<std::uint64_t, std::byte*> windows_ UEXT4_GUARDED_BY(lock_);
    std::unordered_map<std::uint64_t, std::uint64_t> folios_ UEXT4_GUARDED_BY(lock_);  // of each section that has any
    // The last sections that had some, and have none or have some again. What goes allocates nothing.
    std::array<std::uint64_t, 256> idle_ UEXT4_GUARDED_BY(lock_){};
    std::uint64_t idled_ UEXT4_GUARDED_BY(lock_) = 0;
};

}  // namespace uext4
