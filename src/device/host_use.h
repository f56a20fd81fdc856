// Who else on this host uses an image file or a block device.
#pragma once

#include "base/result.h"

namespace uext4 {

// EBUSY, with a sentence that says how, if the kernel has the file or device `fd` mounted: directly, through a loop
// device that is backed by it, or as a device that a mounted partition belongs to.
Result<void> refuse_if_mounted(int fd, const std::string& name);

// Locks the whole file until its last descriptor is closed (an open-file-description lock, so two opens in one process
// exclude each other as well). Exclusive, or shared with other readers. EBUSY if somebody else holds it; file systems
// without locks are let through.
Result<void> lock_file(int fd, bool exclusive, const std::string& name);

}  // namespace uext4
