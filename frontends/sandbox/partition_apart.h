// The partition table of a stranger's disk is read by a process that can touch nothing else: it says which part of the
// disk the image is, before that can be opened.
#pragma once

#include "device/partition.h"

namespace uext4 {

// find_partition() in a child that is in the sandbox. Its answer is that of somebody who may have been taken over: a
// place on the disk, or an error. EIO where there is none.
Result<Partition> find_partition_in_child(int fd, std::uint32_t number, const std::string& name);

}  // namespace uext4
