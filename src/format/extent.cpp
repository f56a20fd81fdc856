#include "format/extent.h"

#include "format/checksum.h"

namespace uext4::format {

Result<void> validate_extent_node(const Geometry& g, ConstBytes node, unsigned expected_depth, std::uint64_t first,
                                  std::uint64_t end, const std::string& where) {
    const auto& h = view_as<ExtentHeader>(node);
    if (h.magic != extent_magic)
        return fail(EUCLEAN, "{}: eh_magic is {:#06x}, expected {:#06x}", where, h.magic.get(), extent_magic);
    if (h.depth > max_extent_depth)
        return fail(EUCLEAN, "{}: eh_depth is {}, expected at most {}", where, h.depth.get(), max_extent_depth);
    if (h.depth != expected_depth)
        return fail(EUCLEAN, "{}: eh_depth is {}, expected {}", where, h.depth.get(), expected_depth);
    if (h.max == 0 || h.max > extent_capacity(node.size()))
        return fail(EUCLEAN, "{}: eh_max is {}, expected 1 to {}", where, h.max.get(), extent_capacity(node.size()));
    if (h.entries > h.max)
        return fail(EUCLEAN, "{}: eh_entries is {}, expected at most {} (eh_max)", where, h.entries.get(), h.max.get());
    if (h.depth > 0 && h.entries == 0)
        return fail(EUCLEAN, "{}: eh_entries is 0 at depth {}, expected at least 1", where, h.depth.get());
    std::uint64_t next = first;
    for (unsigned i = 0; i < h.entries; ++i) {
        const std::size_t at = sizeof(ExtentHeader) + 12u * i;
        if (h.depth > 0) {
            const auto& e = view_as<ExtentIndex>(node, at);
            if (e.block < next || e.block >= end)
                return fail(EUCLEAN, "{}: entry {}: ei_block is {}, expected {} to {}", where, i, e.block.get(), next,
                            end - 1);
            if (!g.valid_block(e.leaf()))
                return fail(EUCLEAN, "{}: entry {}: ei_leaf is {}, expected {} to {}", where, i, e.leaf(),
                            g.first_data_block, g.blocks_count - 1);
            next = std::uint64_t{e.block} + 1;
            continue;
        }
        const auto& e = view_as<ExtentLeaf>(node, at);
        if (e.len == 0) return fail(EUCLEAN, "{}: entry {}: ee_len is 0, expected at least 1", where, i);
        if (e.block < next || std::uint64_t{e.block} + e.count() > end)
            return fail(EUCLEAN, "{}: entry {}: blocks {} to {} (exclusive), expected to lie in {} to {}", where, i,
                        e.block.get(), std::uint64_t{e.block} + e.count(), next, end);
        if (!g.valid_block(e.start()) || !g.valid_block(e.start() + (e.count() - 1)))
            return fail(EUCLEAN, "{}: entry {}: ee_start is {} for {} blocks, expected all within {} to {}", where, i,
                        e.start(), e.count(), g.first_data_block, g.blocks_count - 1);
        next = std::uint64_t{e.block} + e.count();
    }
    return {};
}

namespace {
std::size_t extent_tail_at(ConstBytes block) { return sizeof(ExtentHeader) + 12u * extent_capacity(block.size()); }
}  // namespace

bool extent_checksum_ok(const Geometry& g, std::uint32_t seed, ConstBytes block) {
    if (!g.metadata_csum()) return true;
    const std::size_t at = extent_tail_at(block);
    if (at + sizeof(ExtentTail) > block.size()) return true;
    return view_as<ExtentTail>(block, at).checksum == crc32c(seed, block.first(at));
}

void set_extent_checksum(const Geometry& g, std::uint32_t seed, Bytes block) {
    if (!g.metadata_csum()) return;
    const std::size_t at = extent_tail_at(block);
    if (at + sizeof(ExtentTail) > block.size()) return;
    view_as<ExtentTail>(block, at).checksum = crc32c(seed, ConstBytes(block).first(at));
}

}  // namespace uext4::format
