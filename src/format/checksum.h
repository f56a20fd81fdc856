// Checksums of the format.
#pragma once

#include "base/bytes.h"

#include <cstdint>

namespace uext4::format {

// CRC32c, reflected, no final inversion: crc32c(~0, ...) is what ext4 stores. Chains: crc32c(crc32c(s, a), b).
std::uint32_t crc32c(std::uint32_t seed, ConstBytes bytes);
template <class Int>
std::uint32_t crc32c_le(std::uint32_t seed, Int value) {
    const DiskInt<Int, std::endian::little> disk(value);
    return crc32c(seed, bytes_of(disk));
}
// CRC16 (ANSI, reflected 0x8005) of uninit_bg's group descriptors.
std::uint16_t crc16(std::uint16_t seed, ConstBytes bytes);
// CRC32 (big-endian, 0x04C11DB7) of the journal's old compat checksum.
std::uint32_t crc32_be(std::uint32_t seed, ConstBytes bytes);

}  // namespace uext4::format
