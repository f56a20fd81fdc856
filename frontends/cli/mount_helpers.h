// The program under the names by which mount(8) and umount(8) look for it.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace uext4::cli {

// Nothing, if `program` (argv[0]) is no such name. Else all is done; the exit code is one of mount(8)'s: 0, 1 for wrong
// words, 32 for what could not be mounted or unmounted.
std::optional<int> run_as_helper(const std::string& program, const std::vector<std::string>& words);

}  // namespace uext4::cli
