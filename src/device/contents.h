// What an image is that holds no ext2, ext3 or ext4 file system.
#pragma once

#include "device/block_device.h"

#include <string>

namespace uext4 {

// A sentence without its subject that says what the image is, and how to get at what is in it: partitions with the
// words to use, containers of disks, archives, other file systems. Empty where nothing is recognised. May be called in
// a sandbox.
std::string describe_contents(BlockDevice& device);

}  // namespace uext4
