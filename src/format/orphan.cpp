#include "format/orphan.h"

#include "format/checksum.h"

namespace uext4::format {

namespace {

std::uint32_t orphan_checksum(const Geometry& g, std::uint32_t seed, BlockNr block, ConstBytes contents) {
    const std::uint32_t crc = crc32c_le<std::uint64_t>(seed, block.value);
    return crc32c(crc, contents.first(std::size_t{orphans_per_block(g.block_size)} * 4));
}

std::uint32_t mmp_checksum(const Geometry& g, const MmpBlock& mmp) {
    return crc32c(g.checksum_seed, bytes_of(mmp).first(offsetof(MmpBlock, checksum)));
}

}  // namespace

bool orphan_block_ok(const Geometry& g, std::uint32_t seed, BlockNr block, ConstBytes contents) {
    const auto& tail = view_as<OrphanTail>(contents, g.block_size - sizeof(OrphanTail));
    return tail.magic == orphan_magic &&
           (!g.metadata_csum() || tail.checksum == orphan_checksum(g, seed, block, contents));
}

void set_orphan_checksum(const Geometry& g, std::uint32_t seed, BlockNr block, Bytes contents) {
    if (g.metadata_csum())
        view_as<OrphanTail>(contents, g.block_size - sizeof(OrphanTail)).checksum =
            orphan_checksum(g, seed, block, contents);
}

bool mmp_checksum_ok(const Geometry& g, const MmpBlock& mmp) {
    return !g.metadata_csum() || mmp.checksum == mmp_checksum(g, mmp);
}

void set_mmp_checksum(const Geometry& g, MmpBlock& mmp) {
    if (g.metadata_csum()) mmp.checksum = mmp_checksum(g, mmp);
}

}  // namespace uext4::format
