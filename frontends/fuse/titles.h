// What ps(1) and top(1) show of the processes of a mount, so that a user who looks for the server finds it.
#pragma once

#include <string>

namespace uext4::fuse {

// "uext4: ROLE IMAGE on DIRECTORY", and `name` (15 bytes at most) as the name of the process. Before the sandbox.
void set_title(const char* name, const std::string& role, const std::string& mount);

}  // namespace uext4::fuse
