// Error values. Every fallible function returns Result<T>; an error carries an errno and a sentence that names what
// is wrong and where.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <expected>
#include <string>
#include <utility>

namespace uext4 {

struct Error {
    int code = EIO;    // a positive errno value
    std::string what;  // one sentence: structure, number, field
};

template <class T = void>
using Result = std::expected<T, Error>;

template <class... Args>
[[nodiscard]] inline std::unexpected<Error> fail(int code, fmt::format_string<Args...> text, Args&&... args) {
    return std::unexpected(Error{code, fmt::format(text, std::forward<Args>(args)...)});
}

[[nodiscard]] inline std::unexpected<Error> fail(Error error) { return std::unexpected(std::move(error)); }

}  // namespace uext4

// Evaluates to the value of a Result, or returns its error from the enclosing function.
#define TRY(...)                                                              \
    __extension__({                                                           \
        auto&& uext4_try_result_ = (__VA_ARGS__);                             \
        if (!uext4_try_result_) [[unlikely]]                                  \
            return ::std::unexpected(::std::move(uext4_try_result_).error()); \
        *::std::move(uext4_try_result_);                                      \
    })
