// Partitions of a disk or a disk image.
#pragma once

#include "base/result.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace uext4 {

struct Partition {
    std::uint32_t number = 0;
    std::uint64_t offset = 0;  // bytes
    std::uint64_t size = 0;    // bytes
};

// The table of a disk, GPT or MBR, that is open as a descriptor.
class PartitionTable {
public:
    // Asks only for the size of the disk, so that a process may prepare it and read it when it has given up the calls
    // for that. Reading may change the descriptor's position. The descriptor is the caller's to keep open.
    static Result<PartitionTable> prepare(int fd, const std::string& name);
    PartitionTable(PartitionTable&&) noexcept;
    ~PartitionTable();

    Result<Partition> find(std::uint32_t number);
    // "disk.img@1 (EFI system, 512.0 MiB, a FAT file system), disk.img@2 (Linux, 3.5 GiB, ext2, ext3 or ext4)": number,
    // type, size and contents of the first ones. Empty where there is no table.
    std::string list();
    // What libblkid says of a file system or volume that fills the disk ("zfs_member"); or empty.
    std::string contents();

private:
    struct State;
    explicit PartitionTable(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

// The partition of that number (as fdisk counts: from 1, logical ones from 5) in the GPT or MBR table of the disk open
// as `fd`. EINVAL without a table or with an entry outside the disk, ENOENT if there is no such partition: the error
// names those that there are.
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
