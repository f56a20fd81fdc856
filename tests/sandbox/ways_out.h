// What a hostile thread tries to get out of the sandbox.
#pragma once

#include <span>

namespace uext4::sandboxed {

struct Way {
    const char* name;
    long (*go)();  // as a system call: -1 with errno, or what it gave
};

std::span<const Way> ways_out();

// Somebody else's file, and a descriptor of it, as a process may have one from whoever started it.
extern const char* victim;
extern int opened_before;

}  // namespace uext4::sandboxed
