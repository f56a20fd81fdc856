// For tests: what the kernel tells of this process.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <string>

namespace uext4 {

// A field of /proc/self/status ("VmPTE:") that is in kB; 0 where there is none.
inline std::size_t status_kib(const std::string& field) {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.starts_with(field)) return std::strtoull(line.c_str() + field.size(), nullptr, 10);
    return 0;
}

}  // namespace uext4
