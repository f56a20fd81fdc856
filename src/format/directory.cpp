#include "format/directory.h"

#include "format/checksum.h"

namespace uext4::format {

namespace {

std::size_t tail_at(ConstBytes block) { return block.size() - sizeof(DirTail); }

// The index's checksum covers the block up to the used pairs, then the tail with its checksum taken as zero.
bool index_layout(ConstBytes block, std::uint32_t pairs, std::size_t& used, std::size_t& tail) {
    const std::uint32_t limit = view_as<Le16>(block, pairs), count = view_as<Le16>(block, pairs + 2);
    used = pairs + std::size_t{count} * 8;
    tail = pairs + std::size_t{limit} * 8;
    return count <= limit && tail + sizeof(IndexTail) <= block.size();
}

std::uint32_t index_checksum(std::uint32_t seed, ConstBytes block, std::size_t used, std::size_t tail) {
    const Le32 zero(0);
    std::uint32_t crc = crc32c(seed, block.first(used));
    crc = crc32c(crc, block.subspan(tail, 4));
    return crc32c(crc, bytes_of(zero));
}

}  // namespace

bool dir_tail_present(ConstBytes block) {
    const auto& tail = view_as<DirTail>(block, tail_at(block));
    return tail.inode_zero == 0 && tail.rec_len == sizeof(DirTail) && tail.name_len_zero == 0 &&
           tail.file_type == static_cast<std::uint8_t>(FileType::checksum);
}

bool dir_leaf_checksum_ok(const Geometry& g, std::uint32_t seed, ConstBytes block) {
    if (!g.metadata_csum()) return true;
    return dir_tail_present(block) &&
           view_as<DirTail>(block, tail_at(block)).checksum == crc32c(seed, block.first(tail_at(block)));
}

void set_dir_leaf_checksum(const Geometry& g, std::uint32_t seed, Bytes block) {
    if (!g.metadata_csum()) return;
    auto& tail = view_as<DirTail>(block, tail_at(block));
    tail.inode_zero = 0;
    tail.rec_len = sizeof(DirTail);
    tail.name_len_zero = 0;
    tail.file_type = static_cast<std::uint8_t>(FileType::checksum);
    tail.checksum = crc32c(seed, ConstBytes(block).first(tail_at(block)));
}

bool dir_index_checksum_ok(const Geometry& g, std::uint32_t seed, ConstBytes block, std::uint32_t pairs) {
    if (!g.metadata_csum()) return true;
    std::size_t used = 0, tail = 0;
    if (!index_layout(block, pairs, used, tail)) return false;
    return view_as<IndexTail>(block, tail).checksum == index_checksum(seed, block, used, tail);
}

void set_dir_index_checksum(const Geometry& g, std::uint32_t seed, Bytes block, std::uint32_t pairs) {
    if (!g.metadata_csum()) return;
    std::size_t used = 0, tail = 0;
    if (!index_layout(block, pairs, used, tail)) return;
    view_as<IndexTail>(block, tail).checksum = index_checksum(seed, block, used, tail);
}

}  // namespace uext4::format
