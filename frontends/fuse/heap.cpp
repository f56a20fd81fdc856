#include "fuse/heap.h"

#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <vector>

namespace uext4::fuse {

#if defined(__GLIBC__)

namespace {

constexpr int heap_bytes = 32 << 20;  // what metadata and inodes have beside the cache
constexpr int kept_bytes = 40 << 20;  // free at the heap's end; more goes back to the system
constexpr int usual_pad = 128 << 10;  // glibc's own
// What is larger has pages of its own for as long as it is used. (glibc learns where that begins from what is freed,
// but not where the other limits are set.)
constexpr int apart_bytes = 1 << 20;
constexpr std::size_t piece = 64 << 10;

// Until the heap has grown, pieces come from what it has.
void grow() {
    const void* const end = sbrk(0);
    std::vector<void*> pieces;
    for (std::size_t had = 0; sbrk(0) == end && had < heap_bytes; had += piece) {
        void* const memory = std::malloc(piece);
        if (!memory) break;
        pieces.push_back(memory);
    }
    for (void* memory : pieces) std::free(memory);
}

}  // namespace

void share_heap() { mallopt(M_ARENA_MAX, 1); }

void prepare_heap(std::size_t smallest) {
    mallopt(M_MXFAST, static_cast<int>(smallest));
    const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
    const auto before = reinterpret_cast<std::uintptr_t>(sbrk(0));
    mallopt(M_TRIM_THRESHOLD, kept_bytes);
    mallopt(M_MMAP_THRESHOLD, apart_bytes);
    mallopt(M_TOP_PAD, heap_bytes);
    grow();
    mallopt(M_TOP_PAD, usual_pad);
    const auto first = (before + page - 1) / page * page, end = reinterpret_cast<std::uintptr_t>(sbrk(0));
    // What grows later has no huge pages.
    if (end > first) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
}

#else

void share_heap() {}
void prepare_heap(std::size_t) {}

#endif

}  // namespace uext4::fuse
