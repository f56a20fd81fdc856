// What must hold after a cut: which of the tree's states may show, and which contents of each file.
#pragma once

#include "tests/crash/recorder.h"

#include <string>

namespace uext4::crash {

// Empty when the tree that was recovered is one that the recording allows: its names and attributes are those after
// some prefix of the steps that is no older than what was synced, and each file's size and bytes come from states no
// older than its last sync. `acked`, `cut`: places in the log, see CrashState.
std::string broken_promise(const Recording& recording, std::size_t acked, std::size_t cut, const Tree& got);

}  // namespace uext4::crash
