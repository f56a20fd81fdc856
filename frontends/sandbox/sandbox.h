// Giving up what a process that parses a stranger's image does not need: capabilities, new files, new programs,
// sockets, rings, other processes. See docs/adr/0006-sandbox.md.
#pragma once

#include "base/result.h"

#include <span>
#include <string>
#include <vector>

namespace uext4 {

// Of what the calling thread has it keeps these, effective and permitted, and nothing to inherit.
Result<void> drop_capabilities_except(std::span<const unsigned> wanted);

// What the process still has to reach besides the image.
enum class SandboxProfile {
    image,    // nothing: no new files, no names
    table,    // the same, but descriptors may be asked about by fstat(3), which could name a file as well
    server,   // what another process passes it by a socket that it has
    sources,  // files of the host, to be read
    files,    // what may be asked of files of the host by path; another process makes and writes them (host_changes.h)
    changes,  // no image: that process
    threads   // no image: other processes' threads in /proc, and on which CPU those of its own user run
};

// Which of the host's files can be read, and whatever lies below them (Landlock, from Linux 5.19 on; what a kernel
// without it lets through is in docs/adr/0006-sandbox.md), and which can be written (host_changes.h), made where there
// are none.
struct HostFiles {
    std::vector<std::string> readable, writable;
    bool may_chown = false;      // to other owners
    bool attributes = false;     // with times, and attributes of whatever kind
    bool whole_trees = false;    // whatever lies below, and is made or removed there; else nothing but files
    bool special_modes = false;  // set-id and sticky bits, on what is made and what is there
};

// For good, for all threads of the process. What is open stays usable. Calls that are not needed fail with EPERM.
// Refused where another thread has capabilities, which nobody can take from it, and, with files of the host, where
// there is another thread at all. A second call does nothing. Where no names are left, files are known by descriptor
// only, and by the system call fstat: fstat(3) names them to the kernel.
Result<void> enter_sandbox(SandboxProfile reach = SandboxProfile::image, const HostFiles& files = {});
bool in_sandbox();

}  // namespace uext4
