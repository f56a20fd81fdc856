// Partitions of a disk or a disk image.
#pragma once

#include "base/result.h"

#include <cstdint>
#include <optional>
#include <string>

namespace uext4 {

struct Partition {
    std::uint32_t number = 0;
    std::uint64_t offset = 0;  // bytes
    std::uint64_t size = 0;    // bytes
};

// The partition of that number (as fdisk counts: from 1, logical ones from 5) in the GPT or MBR table of the disk open
// as `fd`. EINVAL without a table or with an entry outside the disk, ENOENT if there is no such partition.
Result<Partition> find_partition(int fd, std::uint32_t number, const std::string& name);
// Who reads a table that nobody trusts has it read elsewhere.
using FindPartition = Result<Partition> (*)(int fd, std::uint32_t number, const std::string& name);

// "disk.img@2" is partition 2 of disk.img. A file whose name is exactly the whole text goes first.
struct ImageName {
    std::string path;
    std::optional<std::uint32_t> partition;
};
ImageName parse_image_name(const std::string& text);

}  // namespace uext4
