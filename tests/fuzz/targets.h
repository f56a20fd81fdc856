// What is fuzzed. An input is a list of patches to a seed image, 12 bytes each, so that it stays small and every byte
// of it matters; checksums are made right again where the patch says so.
#pragma once

#include "base/bytes.h"

#include <span>
#include <string_view>

namespace uext4::fuzz {

struct Target {
    std::string_view name;
    std::string_view looks_for;
    void (*run)(ConstBytes input);
};
std::span<const Target> targets();
const Target* find_target(std::string_view name);

}  // namespace uext4::fuzz
