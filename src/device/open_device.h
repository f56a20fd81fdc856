// From what a user types to a device.
#pragma once

#include "device/block_device.h"
#include "device/file_device.h"
#include "device/partition.h"

#include <memory>
#include <string>

namespace uext4 {

// How long a program that a user runs waits for another one that has the image open, unless the user says otherwise.
// umount(8), for example, returns while the server of the mount still writes to its image.
inline constexpr std::chrono::seconds default_write_timeout{10}, default_read_timeout{2};

// IMAGE, IMAGE@N (partition N of it), /dev/fd/N, or a block device. An offset and length in the options count from the
// start of the partition. Errors: those of FileDevice::open and find_partition.
Result<std::unique_ptr<FileDevice>> open_device(const std::string& image, const FileDeviceOptions& options = {},
                                                FindPartition find = find_partition);

}  // namespace uext4
