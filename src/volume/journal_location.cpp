#include "volume/journal_location.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>

namespace uext4 {

namespace {

// Runs that share no block. What indirect blocks and extents may name again and again is met at its first repeat, so
// that what is kept stays as small as what the image holds.
class DistinctRuns {
public:
    // The first block of `run` that is there already, if there is one; else `run` is there from now on.
    std::optional<BlockNr> add(const BlockRun& run) {
        const std::uint64_t begin = run.first.value, end = begin + run.count;
        const auto after = ends_.upper_bound(begin);
        if (after != ends_.begin() && std::prev(after)->second > begin) return run.first;
        if (after != ends_.end() && after->first < end) return BlockNr(after->first);
        ends_.emplace_hint(after, begin, end);
        return {};
    }

private:
    std::map<std::uint64_t, std::uint64_t> ends_;  // by first block
};

}  // namespace

Result<std::vector<BlockRun>> locate_journal(InodeTable& inodes, const format::Geometry& g) {
    const InodeNr number(g.journal_inode);
    if (!number) return fail(EOPNOTSUPP, "the journal is on another device, which is not supported");
    if (!g.valid_inode(number)) return fail(EUCLEAN, "superblock: s_journal_inum is {}", number);
    InodeRef inode = TRY(inodes.get(number, true));
    if (!inode->is_regular() || inode->links() == 0) return fail(EUCLEAN, "journal inode {}: no regular file", number);
    std::vector<BlockRun> runs;
    MutexLock map(inode->map_lock);
    const std::uint64_t blocks = inode->size() / g.block_size;
    const std::uint64_t most = std::min<std::uint64_t>(g.blocks_count, std::numeric_limits<std::uint32_t>::max());
    if (blocks > most) return fail(EUCLEAN, "journal inode {}: {} blocks, there can be {}", number, blocks, most);
    DistinctRuns distinct;
    std::uint64_t next = 0;
    while (next < blocks) {
        const MappedRun run = TRY(inode->map().lookup(LogicalBlock(next), blocks - next));
        if (run.hole() || run.count == 0) return fail(EUCLEAN, "journal inode {}: block {} is a hole", number, next);
        runs.push_back({run.physical, run.count});
        if (const auto again = distinct.add(runs.back()))
            return fail(EUCLEAN, "journal inode {}: block {} is named twice, from block {} of it on", number, *again,
                        next);
        next += run.count;
    }
    if (runs.empty()) return fail(EUCLEAN, "journal inode {}: empty", number);
    return runs;
}

}  // namespace uext4
