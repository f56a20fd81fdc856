// Backup superblocks, for an image whose primary superblock cannot be used.
#pragma once

#include "device/block_device.h"

#include <string>
#include <vector>

namespace uext4 {

struct BackupSuperblock {
    std::uint64_t kib;         // what sb= takes
    std::uint64_t block;       // what e2fsck -b takes
    std::uint32_t block_size;  // and e2fsck -B
};

// Those that look sound: magic, checksum, geometry, place, and the first block of the descriptors behind it. Looks at a
// bounded number of places, where mke2fs puts backups unless it is told otherwise (-g).
std::vector<BackupSuperblock> find_backup_superblocks(const std::shared_ptr<BlockDevice>& device);

// The end of a sentence that says that there is no usable primary superblock: "; backup superblocks ...", with the
// option and the command to use. Empty where no backup is found.
std::string backup_superblock_hint(const std::shared_ptr<BlockDevice>& device);

// What is wrong with the primary superblock; empty where it is sound.
std::string check_primary_superblock(BlockDevice& device);

}  // namespace uext4
