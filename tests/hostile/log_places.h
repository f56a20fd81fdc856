// The structures of a journal: its superblock, and, where there is something to recover, what stands in the log.
#pragma once

#include "tests/hostile/places.h"

namespace uext4::hostile {

void add_log_places(FileSystem& fs, MemoryDevice& device, std::vector<Place>& places);

}  // namespace uext4::hostile
