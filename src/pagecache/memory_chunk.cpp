#include "pagecache/memory_chunk.h"

#include <sys/mman.h>

#include <cstdint>

namespace uext4 {

std::byte* map_memory_chunk() {
    constexpr std::size_t size = memory_chunk_bytes;
    void* const map = ::mmap(nullptr, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return nullptr;
    auto* const bytes = static_cast<std::byte*>(map);
    const std::size_t before = (size - reinterpret_cast<std::uintptr_t>(map) % size) % size;
    if (before > 0) ::munmap(bytes, before);
    ::munmap(bytes + before + size, size - before);
    return bytes + before;
}

void unmap_memory_chunk(std::byte* chunk) { ::munmap(chunk, memory_chunk_bytes); }

void allow_huge_page(std::byte* chunk) { ::madvise(chunk, memory_chunk_bytes, MADV_HUGEPAGE); }
void forbid_huge_page(std::byte* chunk) { ::madvise(chunk, memory_chunk_bytes, MADV_NOHUGEPAGE); }

void touch_memory_chunk(std::byte* chunk) {
    constexpr std::size_t smallest_page = 4096;
    for (std::size_t at = 0; at < memory_chunk_bytes; at += smallest_page)
        *const_cast<volatile std::byte*>(chunk + at) = std::byte{};
}

bool populate_memory(std::byte* memory, std::size_t bytes) {
    return ::madvise(memory, bytes, MADV_POPULATE_WRITE) == 0;
}

}  // namespace uext4
