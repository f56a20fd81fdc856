// An image that holds what is only read: an encrypted directory, and directories in which case does not count.
#pragma once

#include "api/file_system.h"
#include "tests/doubles/memory_device.h"

#include <memory>

namespace uext4::hostile {

// What is to be encrypted, as ordinary files whose names are the ciphertext, and a directory with an index.
void fill_secret(FileSystem& fs);
// Of an image that is not mounted: "/secret" and all below becomes encrypted, "/folded" and "/linear" fold case.
void cipher(const std::shared_ptr<MemoryDevice>& device);

}  // namespace uext4::hostile
