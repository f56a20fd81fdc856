// Quota files: what they say that users, groups and projects have, against what the inodes say.
#include "check/checker.h"

#include <unordered_set>
#include <utility>

namespace uext4 {

namespace {

// The format "vfsv1": blocks of 1 KiB. The first is the header; a tree of block numbers, one level for each byte of an
// id, leads to blocks of entries.
constexpr std::uint64_t unit = 1024;
constexpr std::uint32_t magics[] = {0xD9C01F11, 0xD9C01927, 0xD9C03F14}, version = 1;
constexpr unsigned levels = 4, references = 256, leaf_header = 16;
constexpr std::size_t blocks_at = 20;  // in the header, what the file has of them
struct Entry {
    Le32 id, padding;
    Le64 inode_hard, inode_soft, inodes, block_hard, block_soft, bytes, block_time, inode_time;
};
static_assert(sizeof(Entry) == 72);
constexpr unsigned entries = (unit - leaf_header) / sizeof(Entry);
constexpr const char* names[] = {"user", "group", "project"};

bool is_empty(ConstBytes bytes) {
    for (const std::byte b : bytes)
        if (b != std::byte{0}) return false;
    return true;
}

}  // namespace

// map_lock held.
void Checker::count_usage(const Inode& inode, const Blocks& blocks) {
    if (!g_.has_ro_compat(format::ro_compat::quota)) return;
    const InodeNr number = inode.number();
    if (g_.is_own_inode(number) || inode.has_flag(format::inode_flag::ea_inode)) return;
    const std::uint32_t project = UEXT4_INODE_HAS(inode.raw(), projid) ? inode.disk().projid.get() : 0;
    const std::uint64_t ids[] = {inode.uid(), inode.gid(), project};
    for (unsigned kind = 0; kind < usage_.size(); ++kind) {
        Usage& u = usage_[kind][ids[kind]];
        u.bytes += inode.block_count_512() * 512;
        u.inodes += 1 + blocks.value_inodes;
    }
}

void Checker::check_quotas() {
    if (!g_.has_ro_compat(format::ro_compat::quota)) return;
    namespace special = format::special_inode;
    const std::uint32_t numbers[] = {g_.user_quota_inode, g_.group_quota_inode, g_.project_quota_inode};
    const std::uint32_t fixed[] = {special::user_quota, special::group_quota, 0};
    const char* fields[] = {"s_usr_quota_inum", "s_grp_quota_inum", "s_prj_quota_inum"};
    for (unsigned kind = 0; kind < 3; ++kind) {
        const InodeNr number(numbers[kind]);
        if (!number) continue;
        if (!g_.valid_inode(number) || (fixed[kind] ? number.value != fixed[kind] : number.value < g_.first_inode)) {
            problem("superblock", "{} is {}", fields[kind], number);
            continue;
        }
        const std::string where = fmt::format("{} quota file, inode {}", names[kind], number);
        Result<InodeRef> file = volume_.inodes().get(number, true);
        if (!file) problem(where, "{}", file.error().what);
        else if (!(*file)->is_regular()) problem(where, "i_mode is {:#o}: no regular file", (*file)->mode());
        else check_quota_file(**file, kind, where);
    }
}

// Every block of the file is read once at most, so that a tree that names itself ends.
void Checker::check_quota_file(Inode& file, unsigned kind, const std::string& where) {
    MutexLock map(file.map_lock);
    const std::uint64_t count = file.disk_size() / unit;
    if (count < 2 || file.disk_size() % unit != 0) return problem(where, "i_size is {}", file.disk_size());
    BufferRef buffer;
    const auto read = [&](std::uint64_t number) -> Result<ConstBytes> {
        const std::uint64_t at = number * unit;
        const MappedRun run = TRY(file.map().lookup(LogicalBlock(at / g_.block_size), 1));
        if (run.hole() || run.unwritten) return fail(EUCLEAN, "block {} is a hole", at / g_.block_size);
        buffer = TRY(fs_.buffers.read(run.physical, "quota file"));
        return std::as_const(*buffer).data().subspan(at % g_.block_size, unit);
    };
    const Result<ConstBytes> header = read(0);
    if (!header) return problem(where, "{}", header.error().what);
    if (const std::uint32_t magic = view_as<Le32>(*header); magic != magics[kind])
        return problem(where, "magic is {:#x}", magic);
    if (const std::uint32_t v = view_as<Le32>(*header, 4); v != version) return problem(where, "version is {}", v);
    // Other readers know 32 bits of the size.
    if (file.disk_size() > 0xFFFFFFFF) return problem(where, "i_size is {}", file.disk_size());
    if (const std::uint32_t blocks = view_as<Le32>(*header, blocks_at); blocks > count)
        return problem(where, "i_size is {}, it says that it has {} blocks", file.disk_size(), blocks);

    std::unordered_set<std::uint64_t> seen;
    std::vector<std::pair<std::uint32_t, unsigned>> todo{{1, 0}};
    std::unordered_map<std::uint64_t, Usage> said;
    while (!todo.empty()) {
        const auto [number, level] = todo.back();
        todo.pop_back();
        if (number >= count) return problem(where, "a tree names block {} of {}", number, count);
        if (!seen.insert(number).second) {
            if (level < levels) return problem(where, "block {} is named twice", number);
            continue;  // a leaf, named once for each of its ids
        }
        const Result<ConstBytes> block = read(number);
        if (!block) return problem(where, "{}", block.error().what);
        for (unsigned i = 0; level < levels && i < references; ++i)
            if (const std::uint32_t below = view_as<Le32>(*block, i * 4)) todo.emplace_back(below, level + 1);
        for (unsigned i = 0; level == levels && i < entries; ++i) {
            const ConstBytes bytes = block->subspan(leaf_header + i * sizeof(Entry), sizeof(Entry));
            if (is_empty(bytes)) continue;
            const auto& e = view_as<Entry>(bytes);
            said[e.id] = Usage{e.bytes, e.inodes};
        }
    }
    if (!damaged_.empty()) return;  // what those take is not known
    for (const auto& [id, usage] : usage_[kind])
        if (const Usage told = said.contains(id) ? said[id] : Usage{}; !(told == usage))
            problem(where, "{} {} has {} bytes in {} inodes, it says {} in {}", names[kind], id, usage.bytes,
                    usage.inodes, told.bytes, told.inodes);
    for (const auto& [id, told] : said)
        if (!usage_[kind].contains(id) && !(told == Usage{}))
            problem(where, "{} {} has nothing, it says {} bytes in {} inodes", names[kind], id, told.bytes,
                    told.inodes);
}

}  // namespace uext4
