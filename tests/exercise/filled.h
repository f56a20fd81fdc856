// For tests: bytes that are all alike.
#pragma once

#include <cstddef>
#include <vector>

namespace uext4::exercise {

inline std::vector<std::byte> filled(std::size_t n, int value) { return {n, static_cast<std::byte>(value)}; }

}  // namespace uext4::exercise
