// The blocks that fast commits name, by whole clusters: held back from everybody else until the tag that needs them
// comes.
#pragma once

#include "alloc/allocator.h"
#include "journal/fast_commit.h"

#include <map>
#include <utility>
#include <vector>

namespace uext4 {

class FastCommitBlocks {
public:
    // Those of all added ranges that are free. The others must turn out to be the file's own already.
    static Result<FastCommitBlocks> reserve(const FastCommits& commits, Allocator& allocator);
    // These blocks were freed, durably, where no other block of their cluster is used: what of them is named is held
    // again.
    Result<void> note_freed(BlockNr first, std::uint64_t count);
    // The whole range, to whole clusters, as allocations in order. EUCLEAN when a block of it is not held: somebody has
    // it.
    Result<std::vector<Allocation>> take(BlockNr first, std::uint64_t count);

private:
    explicit FastCommitBlocks(Allocator& allocator) : allocator_(&allocator) {}
    Result<void> reserve_free(std::uint64_t first, std::uint64_t end);
    std::pair<std::uint64_t, std::uint64_t> whole_clusters(std::uint64_t first, std::uint64_t end) const;

    Allocator* allocator_;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges_;  // [first, end), sorted, apart
    std::map<std::uint64_t, Allocation> allocations_;              // by first block
};

}  // namespace uext4
