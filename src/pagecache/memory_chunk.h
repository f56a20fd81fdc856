// The pieces in which caches take memory from the system. Any thread may call these.
#pragma once

#include <cstddef>

namespace uext4 {

constexpr std::size_t memory_chunk_bytes = std::size_t{2} << 20;  // a huge page, where pages are 4 KiB

// Memory of memory_chunk_bytes that lies at a multiple of it, without pages of the system's; or null.
std::byte* map_memory_chunk();
void unmap_memory_chunk(std::byte* chunk);
// The system may give it a huge page: one fault, and one place in the TLB, for all of it. Nothing where it has none.
void allow_huge_page(std::byte* chunk);
void forbid_huge_page(std::byte* chunk);
// Gives a new chunk its pages by faults, which hold up no mmap() or brk() of other threads.
void touch_memory_chunk(std::byte* chunk);
// False where the system refuses: each first use costs a fault then.
bool populate_memory(std::byte* memory, std::size_t bytes);

}  // namespace uext4
