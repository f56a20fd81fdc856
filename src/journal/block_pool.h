// Memory for copies of file contents that wait to go home (data=journal): blocks of one size, in chunks that go back to
// the system once no block is in use. By malloc, they would lie in the arenas of all threads that ever committed.
#pragma once

#include "base/result.h"
#include "sync/mutex.h"

#include <cstddef>
#include <memory>
#include <vector>

namespace uext4 {

class BlockPool {
public:
    explicit BlockPool(std::size_t block_size) : block_size_(block_size) {}
    ~BlockPool();
    BlockPool(const BlockPool&) = delete;

    // Gives a block back to where it came from; with no `from`, to delete[].
    struct Deleter {
        BlockPool* pool = nullptr;
        void operator()(std::byte* block) const;
    };
    using Block = std::unique_ptr<std::byte[], Deleter>;

    // What it holds is undefined. ENOMEM.
    Result<Block> allocate();
    std::size_t chunks() const;

private:
    void free(std::byte* block);

    static constexpr std::size_t chunk_bytes = std::size_t{1} << 20;
    std::size_t block_size_, used_ = 0;
    mutable Mutex lock_{Rank::Leaf, "BlockMemory::lock"};
    std::vector<void*> chunks_;
    std::vector<std::byte*> free_blocks_;
};

}  // namespace uext4
