// Memory for copies of file contents that wait to go home (data=journal): blocks of one size, in chunks that go back to
// the system once no block is in use. By malloc, they would lie in the arenas of all threads that ever committed.
#pragma once

#include "base/result.h"
#include "sync/mutex.h"

#include <cstddef>
#include <memory>
#include <vector>

namespace uext4 {

class BlockMemory {
public:
    explicit BlockMemory(std::size_t block_size) : block_size_(block_size) {}
    ~BlockMemory();
    BlockMemory(const BlockMemory&) = delete;

    // Gives a block back to where it came from; with no `from`, to delete[].
    struct Giver {
        BlockMemory* from = nullptr;
        void operator()(std::byte* block) const;
    };
    using Block = std::unique_ptr<std::byte[], Giver>;

    // What it holds is undefined. ENOMEM.
    Result<Block> take();
    std::size_t chunks() const;

private:
    void give_back(std::byte* block);

    static constexpr std::size_t chunk_bytes = std::size_t{1} << 20;
    std::size_t block_size_, used_ = 0;
    mutable Mutex lock_{Rank::Leaf, "BlockMemory::lock"};
    std::vector<void*> chunks_;
    std::vector<std::byte*> free_;
};

}  // namespace uext4
