// Giving up what a process that parses a stranger's image does not need: capabilities, new files, new programs,
// sockets, rings, other processes. See docs/adr/0006-sandbox.md.
#pragma once

#include "base/result.h"

namespace uext4 {

// The calling thread's capabilities are without effect until raise_capabilities() (what mounting needs). Threads that
// it starts meanwhile have none in effect, and cannot raise any once the sandbox is entered. Before the image is
// parsed.
Result<void> lower_capabilities();
Result<void> raise_capabilities();

// What the process still has to reach besides the image.
enum class Reach {
    image,  // nothing: no new files
    files   // files of the host by path, with the rights over them that it has (copies in and out, the shell)
};

// For good, for all threads of the process. What is open stays usable. Calls that are not needed fail with EPERM.
// Threads that exist must have started after lower_capabilities(). A second call does nothing.
Result<void> enter_sandbox(Reach reach = Reach::image);
bool in_sandbox();

}  // namespace uext4
