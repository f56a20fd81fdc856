// The pages of the processor, in which the host's memory is mapped and its caches are kept.
#pragma once

#include <cstddef>

namespace uext4 {

inline constexpr std::size_t page_size = 4096;  // bytes

}  // namespace uext4
