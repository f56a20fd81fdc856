// Looking into a hashed directory and changing it without reshaping it; growing is hashed_growth.cpp.
#include "namespace/dir_layouts.h"
#include "namespace/hash_order.h"
#include "namespace/index_path.h"

namespace uext4 {

namespace hashed_dir {

unsigned max_levels(const Inode& directory) {
    return directory.fs().geometry.has_incompat(format::incompat::large_dir) ? 2 : 1;
}

// Equal hashes may fill several leaves: all of them are searched, at most every block once.
Result<std::optional<LocatedEntry>> locate(Inode& directory, std::string_view name) {
    if (is_dot_or_dotdot(name)) {
        DirBuffer root = TRY(read_dir_block(directory, LogicalBlock(0), DirBlock::root));
        const auto entry = EntryList(root.data(), directory.fs().block_size()).at(name == "." ? 0 : dotdot_offset);
        if (!entry) return std::nullopt;
        return TRY(located_entry(directory, std::move(root), *entry, true));
    }
    NameHash hash;
    IndexPath path = TRY(IndexPath::to_name(directory, name, hash));
    const std::uint64_t blocks = TRY(dir_block_count(directory));
    for (std::uint64_t visited = 0; visited < blocks; ++visited) {
        DirBuffer leaf = TRY(path.read_leaf(directory));
        if (const auto entry = list_of(directory, leaf).find(name))
            return TRY(located_entry(directory, std::move(leaf), *entry, false));
        const auto next = path.next_start();
        if (!next || (*next & 1) == 0 || (*next & ~1u) != hash.major) return std::nullopt;
        if (!TRY(path.advance(directory))) return std::nullopt;
    }
    return fail(EUCLEAN, "directory {}: its index names more leaves than it has blocks", directory.number());
}

Result<bool> is_empty(Inode& directory) {
    IndexPath path = TRY(IndexPath::to(directory, 0));
    const std::uint64_t blocks = TRY(dir_block_count(directory));
    for (std::uint64_t visited = 0; visited < blocks; ++visited) {
        const DirBuffer leaf = TRY(path.read_leaf(directory));
        if (list_of(directory, leaf).has_names_after(0)) return false;
        if (!TRY(path.advance(directory))) return true;
    }
    return fail(EUCLEAN, "directory {}: its index names more leaves than it has blocks", directory.number());
}

Result<void> iterate(Inode& directory, std::uint64_t cookie, const VisitEntry& visit) {
    HashOrderedListing order(directory, TRY(IndexPath::hash_version(directory)), cookie);
    const auto dotdot = TRY(locate(directory, ".."));
    if (!order.visit_dot_entries(dotdot ? dotdot->entry.inode : InodeNr(), visit)) return {};
    IndexPath path = TRY(IndexPath::to(directory, order.first_hash()));
    const std::uint64_t blocks = TRY(dir_block_count(directory));
    VisitedDirBlocks met;
    for (std::uint64_t visited = 0; visited < blocks; ++visited) {
        Result<DirBuffer> leaf = path.read_leaf(directory);
        if (leaf) TRY(met.add(directory, *leaf));
        const auto next = path.next_start();
        // The next leaf may start inside this one's last run of equal hashes: then the run is sorted as a whole.
        const bool continued = next && (*next & 1) != 0;
        const std::uint32_t high = !next ? ~0u : continued ? *next : *next ? *next - 1 : 0;
        if (leaf) TRY(order.add(leaf->logical, list_of(directory, *leaf), path.range_start(), high));
        else if (!order.damage().note(std::move(leaf.error()))) return order.damage().first_error();
        if (!continued && !order.visit(visit)) return order.damage().first_error();
        if (!TRY(path.advance(directory))) return order.damage().first_error();
    }
    return fail(EUCLEAN, "directory {}: its index names more leaves than it has blocks", directory.number());
}

}  // namespace hashed_dir
}  // namespace uext4
