#include "journal/block_memory.h"

#include <sys/mman.h>

namespace uext4 {

BlockMemory::~BlockMemory() {
    for (void* chunk : chunks_) ::munmap(chunk, chunk_bytes);
}

void BlockMemory::Giver::operator()(std::byte* block) const {
    if (from) from->give_back(block);
    else delete[] block;
}

Result<BlockMemory::Block> BlockMemory::take() {
    MutexLock guard(lock_);
    if (free_.empty()) {
        void* chunk = ::mmap(nullptr, chunk_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (chunk == MAP_FAILED) return fail(ENOMEM, "journal: no memory for {} bytes", chunk_bytes);
        chunks_.push_back(chunk);
        auto* bytes = static_cast<std::byte*>(chunk);
        for (std::size_t at = chunk_bytes; at >= block_size_; at -= block_size_)
            free_.push_back(bytes + at - block_size_);
    }
    std::byte* block = free_.back();
    free_.pop_back();
    ++used_;
    return Block(block, Giver{this});
}

void BlockMemory::give_back(std::byte* block) {
    std::vector<void*> idle;
    {
        MutexLock guard(lock_);
        free_.push_back(block);
        if (--used_ > 0) return;
        free_.clear();
        idle.swap(chunks_);
    }
    for (void* chunk : idle) ::munmap(chunk, chunk_bytes);
}

std::size_t BlockMemory::chunks() const {
    MutexLock guard(lock_);
    return chunks_.size();
}

}  // namespace uext4
