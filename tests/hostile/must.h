// What cannot fail when an image is made: where it does, there is nothing to test.
#pragma once

#include "base/result.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <source_location>
#include <type_traits>
#include <utility>

namespace uext4::hostile {

template <class T>
T must(Result<T> result, std::source_location where = std::source_location::current()) {
    if (!result) {
        fmt::print(stderr, "{}:{}: {}\n", where.file_name(), where.line(), result.error().what);
        std::abort();
    }
    if constexpr (!std::is_void_v<T>) return std::move(*result);
}

}  // namespace uext4::hostile
