#include "volume/journal_location.h"

namespace uext4 {

Result<std::vector<BlockRun>> locate_journal(InodeTable& inodes, const format::Geometry& g) {
    const InodeNr number(g.journal_inode);
    if (!number) return fail(EOPNOTSUPP, "the journal is on another device, which is not supported");
    if (!g.valid_inode(number)) return fail(EUCLEAN, "superblock: s_journal_inum is {}", number);
    InodeRef inode = TRY(inodes.get(number, true));
    if (!inode->is_regular() || inode->links() == 0) return fail(EUCLEAN, "journal inode {}: no regular file", number);
    std::vector<BlockRun> runs;
    MutexLock map(inode->map_lock);
    const std::uint64_t blocks = inode->size() / g.block_size;
    std::uint64_t next = 0;
    while (next < blocks) {
        const MappedRun run = TRY(inode->map().lookup(LogicalBlock(next), blocks - next));
        if (run.hole() || run.count == 0) return fail(EUCLEAN, "journal inode {}: block {} is a hole", number, next);
        runs.push_back({run.physical, run.count});
        next += run.count;
    }
    if (runs.empty()) return fail(EUCLEAN, "journal inode {}: empty", number);
    return runs;
}

}  // namespace uext4
