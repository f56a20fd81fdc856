// The structures of a journal: its superblock, and, where there is something to recover, what stands in the log.
#pragma once

#include "tests/hostile/logged_blocks.h"
#include "tests/hostile/places.h"

namespace uext4::hostile {

// `logged`: what there is to replay; null: nothing.
void add_log_places(FileSystem& fs, MemoryDevice& device, const std::shared_ptr<const LoggedBlocks>& logged,
                    std::vector<Place>& places);

}  // namespace uext4::hostile
