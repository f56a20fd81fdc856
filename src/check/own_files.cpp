// What the file system keeps in blocks of its own: the journal's superblock, the block against a second mount, the file
// of orphans.
#include "check/checker.h"
#include "format/inode.h"
#include "format/journal.h"
#include "format/orphan.h"
#include "volume/journal_location.h"

#include <unordered_set>
#include <utility>

namespace uext4 {

void Checker::check_journal() {
    if (g_.journal_inode == 0) return;
    Result<std::vector<BlockRun>> runs = locate_journal(volume_.inodes(), g_);
    if (!runs) return problem("journal", "{}", runs.error().what);
    std::uint64_t blocks = 0;
    for (const BlockRun& run : *runs) blocks += run.count;
    Result<BufferRef> buffer = fs_.buffers.read(runs->front().first, "journal superblock");
    if (!buffer) return problem("journal", "{}", buffer.error().what);
    const auto& super = view_as<format::JournalSuper>(std::as_const(**buffer).data());
    Result<format::JournalLayout> layout = format::parse_journal_super(super, g_.block_size, blocks);
    if (!layout) return problem("journal superblock", "{}", layout.error().what);
    // One that is not in a file of the file system may have several.
    if (super.header.blocktype == format::journal::super_v2 && super.nr_users > 1)
        problem("journal superblock", "s_nr_users is {}", super.nr_users.get());
    if (const int code = layout->error_code()) problem("journal superblock", "s_errno is {}", -code);
}

void Checker::check_mmp() {
    if (!g_.has_incompat(format::incompat::mmp)) return;
    const BlockNr block(g_.mmp_block);
    if (!g_.valid_block(block) || fs_.allocator.is_system_block(block))
        return problem("superblock", "s_mmp_block is {}", block);
    Result<BufferRef> buffer = fs_.buffers.read(block, "mmp block");
    const std::string where = fmt::format("mmp block {}", block);
    if (!buffer) return problem(where, "{}", buffer.error().what);
    const auto& mmp = view_as<format::MmpBlock>(std::as_const(**buffer).data());
    if (mmp.magic != format::mmp_magic) problem(where, "mmp_magic is {:#x}", mmp.magic.get());
    else if (!format::mmp_checksum_ok(g_, mmp)) problem(where, "bad checksum");
}

// Its entries, where opening had no reason to read them; what opening has told already is told once.
void Checker::check_orphan_file() {
    if (!g_.has_compat(format::compat::orphan_file)) return;
    const InodeNr number(g_.orphan_file_inode);
    constexpr const char* where = "orphan file";
    if (!number || !g_.valid_inode(number)) return problem("superblock", "s_orphan_file_inum is {}", number);
    Result<InodeRef> file = volume_.inodes().get(number, true);
    if (!file) return problem(where, "{}", file.error().what);
    Inode& inode = **file;
    if (!inode.is_regular()) return problem(where, "inode {}: i_mode is {:#o}: no regular file", number, inode.mode());
    MutexLock map(inode.map_lock);
    const std::uint64_t size = inode.disk_size();
    if (size == 0 || size % g_.block_size != 0) return problem(where, "inode {}: i_size is {}", number, size);
    if (size / g_.block_size > g_.blocks_count)
        return problem(where, "inode {}: i_size is {}, the file system has {} blocks", number, size, g_.blocks_count);
    const std::uint32_t seed = format::inode_seed(g_, number, inode.generation());
    const bool present = super_.has_ro_compat(format::ro_compat::orphan_present) || volume_.orphans().uses_file();
    std::unordered_set<std::uint64_t> met;
    for (std::uint64_t b = 0; b < size / g_.block_size; ++b) {
        const Result<MappedRun> run = inode.map().lookup(LogicalBlock(b), 1);
        if (!run) return new_problem(where, run.error().what);
        if (run->hole()) {
            new_problem(where, fmt::format("block {} is a hole", b));
            continue;
        }
        if (!met.insert(run->physical.value).second)
            return new_problem(where, fmt::format("block {} is block {}, as one before it", b, run->physical));
        Result<BufferRef> buffer = fs_.buffers.read(run->physical, where);
        if (!buffer) {
            new_problem(where, buffer.error().what);
            continue;
        }
        const ConstBytes bytes = std::as_const(**buffer).data();
        if (!format::orphan_block_ok(g_, seed, run->physical, bytes)) {
            new_problem(where,
                        fmt::format("block {}: bad magic or checksum (inode {}, block {})", b, number, run->physical));
            continue;
        }
        for (std::uint32_t i = 0; !present && i < format::orphans_per_block(g_.block_size); ++i)
            if (const std::uint32_t entry = view_as<Le32>(bytes, i * 4u))
                problem(where, "block {} slot {}: inode {}, but the superblock lacks orphan_present", b, i, entry);
    }
}

}  // namespace uext4
