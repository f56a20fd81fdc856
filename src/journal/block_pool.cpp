#include "journal/block_pool.h"

#include <sys/mman.h>

namespace uext4 {

BlockPool::~BlockPool() {
    for (void* chunk : chunks_) ::munmap(chunk, chunk_bytes);
}

void BlockPool::Deleter::operator()(std::byte* block) const {
    if (pool) pool->free(block);
    else delete[] block;
}

Result<BlockPool::Block> BlockPool::allocate() {
    MutexLock guard(lock_);
    if (free_blocks_.empty()) {
        void* chunk = ::mmap(nullptr, chunk_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (chunk == MAP_FAILED) return fail(ENOMEM, "journal: no memory for {} bytes", chunk_bytes);
        chunks_.push_back(chunk);
        auto* bytes = static_cast<std::byte*>(chunk);
        for (std::size_t at = chunk_bytes; at >= block_size_; at -= block_size_)
            free_blocks_.push_back(bytes + at - block_size_);
    }
    std::byte* block = free_blocks_.back();
    free_blocks_.pop_back();
    ++used_;
    return Block(block, Deleter{this});
}

void BlockPool::free(std::byte* block) {
    std::vector<void*> idle;
    {
        MutexLock guard(lock_);
        free_blocks_.push_back(block);
        if (--used_ > 0) return;
        free_blocks_.clear();
        idle.swap(chunks_);
    }
    for (void* chunk : idle) ::munmap(chunk, chunk_bytes);
}

std::size_t BlockPool::chunks() const {
    MutexLock guard(lock_);
    return chunks_.size();
}

}  // namespace uext4
