// Landlock: which files of the host can be opened, made and removed.
#pragma once

#include "sandbox/sandbox.h"

namespace uext4 {

// For good, for the calling thread and those that it starts. Nothing where the kernel has none of it.
Result<void> limit_files(const HostFiles& files);

}  // namespace uext4
