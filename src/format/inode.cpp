#include "format/inode.h"

#include "format/checksum.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cstring>
#include <limits>

namespace uext4::format {

Timestamp decode_time(std::uint32_t seconds, const Le32* extra) {
    Timestamp out{static_cast<std::int32_t>(seconds), 0};
    if (extra) {
        out.sec += static_cast<std::int64_t>(extra->get() & 3) << 32;
        out.nsec = std::min<std::uint32_t>(extra->get() >> 2, 999999999);
    }
    return out;
}

void encode_time(Timestamp time, Le32& seconds, Le32* extra) {
    constexpr std::int64_t lowest = std::numeric_limits<std::int32_t>::min();
    const std::int64_t highest =
        extra ? std::int64_t{0x37FFFFFFF} : std::int64_t{std::numeric_limits<std::int32_t>::max()};
    if (time.sec <= lowest) time = {lowest, 0};
    if (time.sec >= highest) time = {highest, 0};
    seconds = static_cast<std::uint32_t>(time.sec);
    if (!extra) return;
    const std::int64_t low = static_cast<std::int32_t>(static_cast<std::uint32_t>(time.sec));
    const std::uint32_t epoch = static_cast<std::uint32_t>((time.sec - low) >> 32) & 3;
    *extra = time.nsec << 2 | epoch;
}

bool inode_has_field(ConstBytes raw, std::size_t offset, std::size_t size) {
    if (offset + size <= classic_inode_size) return true;
    if (raw.size() <= classic_inode_size) return false;
    const std::size_t extra = view_as<Le16>(raw, offsetof(InodeDisk, extra_isize));
    return offset + size <= classic_inode_size + extra && offset + size <= raw.size();
}

std::uint32_t inode_seed(const Geometry& g, InodeNr ino, std::uint32_t generation) {
    const std::uint32_t crc = crc32c_le<std::uint32_t>(g.checksum_seed, static_cast<std::uint32_t>(ino.value));
    return crc32c_le<std::uint32_t>(crc, generation);
}

std::uint32_t inode_checksum(const Geometry& g, InodeNr ino, ConstBytes raw) {
    const std::uint32_t generation = view_as<Le32>(raw, offsetof(InodeDisk, generation));
    const Le16 zero(0);
    constexpr std::size_t low = offsetof(InodeDisk, checksum_lo), high = offsetof(InodeDisk, checksum_hi);
    std::uint32_t crc = inode_seed(g, ino, generation);
    crc = crc32c(crc, raw.first(low));
    crc = crc32c(crc, bytes_of(zero));
    crc = crc32c(crc, raw.subspan(low + 2, classic_inode_size - low - 2));
    if (raw.size() == classic_inode_size) return crc;
    crc = crc32c(crc, raw.subspan(classic_inode_size, high - classic_inode_size));
    if (UEXT4_INODE_HAS(raw, checksum_hi)) {
        crc = crc32c(crc, bytes_of(zero));
        return crc32c(crc, raw.subspan(high + 2));
    }
    return crc32c(crc, raw.subspan(high));
}

bool inode_checksum_ok(const Geometry& g, InodeNr ino, ConstBytes raw) {
    if (!g.metadata_csum()) return true;
    const std::uint32_t crc = inode_checksum(g, ino, raw);
    if (view_as<Le16>(raw, offsetof(InodeDisk, checksum_lo)) != (crc & 0xFFFF)) return false;
    return !UEXT4_INODE_HAS(raw, checksum_hi) || view_as<Le16>(raw, offsetof(InodeDisk, checksum_hi)) == crc >> 16;
}

void set_inode_checksum(const Geometry& g, InodeNr ino, Bytes raw) {
    if (!g.metadata_csum()) return;
    const std::uint32_t crc = inode_checksum(g, ino, raw);
    view_as<Le16>(raw, offsetof(InodeDisk, checksum_lo)) = static_cast<std::uint16_t>(crc);
    if (UEXT4_INODE_HAS(raw, checksum_hi))
        view_as<Le16>(raw, offsetof(InodeDisk, checksum_hi)) = static_cast<std::uint16_t>(crc >> 16);
}

std::uint64_t inode_size_bytes(const Geometry& g, const InodeDisk& inode) {
    const bool wide = S_ISREG(inode.mode.get()) || (S_ISDIR(inode.mode.get()) && g.has_incompat(incompat::large_dir));
    return inode.size_lo.get() | (wide ? std::uint64_t{inode.size_hi.get()} << 32 : 0);
}

void set_inode_size_bytes(InodeDisk& inode, std::uint64_t size) {
    inode.size_lo = static_cast<std::uint32_t>(size);
    inode.size_hi = static_cast<std::uint32_t>(size >> 32);
}

BlockNr inode_attribute_block(const Geometry& g, const InodeDisk& inode) {
    const bool wide = g.has_incompat(incompat::bit64);
    return BlockNr(inode.file_acl_lo.get() | (wide ? std::uint64_t{inode.file_acl_hi.get()} << 32 : 0));
}

std::uint64_t inode_sectors(const Geometry& g, const InodeDisk& inode) {
    if (!g.has_ro_compat(ro_compat::huge_file)) return inode.blocks_lo;
    const std::uint64_t n = inode.blocks_lo.get() | std::uint64_t{inode.blocks_hi.get()} << 32;
    return inode.flags & inode_flag::huge_file ? n * (g.block_size / 512) : n;
}

void set_inode_sectors(const Geometry& g, InodeDisk& inode, std::uint64_t sectors) {
    std::uint32_t flags = inode.flags & ~inode_flag::huge_file;
    if (sectors >> 48) {
        flags |= inode_flag::huge_file;
        sectors /= g.block_size / 512;
    }
    inode.flags = flags;
    inode.blocks_lo = static_cast<std::uint32_t>(sectors);
    if (g.has_ro_compat(ro_compat::huge_file)) inode.blocks_hi = static_cast<std::uint16_t>(sectors >> 32);
}

std::uint64_t decode_device(const InodeDisk& inode) {
    const std::uint32_t old = view_as<Le32>(ConstBytes(inode.block, 60), 0);
    if (old) return makedev((old >> 8) & 0xFF, old & 0xFF);
    const std::uint32_t wide = view_as<Le32>(ConstBytes(inode.block, 60), 4);
    return makedev((wide & 0xFFF00) >> 8, (wide & 0xFF) | ((wide >> 12) & 0xFFF00));
}

void encode_device(InodeDisk& inode, std::uint64_t dev) {
    const std::uint32_t major_nr = major(dev), minor_nr = minor(dev);
    const Bytes block(inode.block, 60);
    const bool fits = major_nr < 256 && minor_nr < 256;
    view_as<Le32>(block, 0) = fits ? major_nr << 8 | minor_nr : 0u;
    view_as<Le32>(block, 4) = fits ? 0u : (minor_nr & 0xFF) | major_nr << 8 | (minor_nr & ~0xFFu) << 12;
}

Result<void> validate_inode(const Geometry& g, InodeNr ino, ConstBytes raw) {
    const std::uint16_t mode = view_as<Le16>(raw, 0);
    if (raw.size() > classic_inode_size) {
        const std::uint16_t extra = view_as<Le16>(raw, offsetof(InodeDisk, extra_isize));
        if (extra % 4 != 0 || extra > raw.size() - classic_inode_size || (extra != 0 && extra < 4))
            return fail(EUCLEAN, "inode {}: i_extra_isize is {}, expected a multiple of 4 up to {}", ino, extra,
                        raw.size() - classic_inode_size);
    }
    if (file_type_of_mode(mode) == FileType::unknown && ino.value >= g.first_inode)
        return fail(EUCLEAN,
                    "inode {}: i_mode is {:#o}, expected the type of a file, directory, link, device, fifo or socket",
                    ino, mode);
    InodeDisk inode{};
    std::memcpy(&inode, raw.data(), std::min(raw.size(), sizeof inode));
    const std::uint64_t size = inode_size_bytes(g, inode);
    if (size > std::uint64_t{1} << (32 + g.block_bits))
        return fail(EUCLEAN, "inode {}: i_size is {}, expected at most {}", ino, size,
                    std::uint64_t{1} << (32 + g.block_bits));
    if (const BlockNr acl = inode_attribute_block(g, inode); acl && !g.valid_block(acl))
        return fail(EUCLEAN, "inode {}: i_file_acl is {}, expected 0 or a block from {} to {}", ino, acl,
                    g.first_data_block, g.blocks_count - 1);
    return {};
}

}  // namespace uext4::format
