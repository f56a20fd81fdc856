// How a verb ends: its exit code and a sentence.
#pragma once

#include "base/result.h"

#include <string>
#include <utility>

namespace uext4::cli {

// Exit codes.
inline constexpr int exit_ok = 0, exit_negative = 1, exit_failure = 2;

// Ends the verb with an exit code and a sentence for stderr.
struct Failure {
    int code;
    std::string what;
    bool damaged = false;  // the image: `what` names the structure
};
[[noreturn]] void fail_with(int code, const std::string& what);
// For a place that the message names: the errno's text where that says all, or the library's sentence.
std::string sentence_of(const Error& error);
[[noreturn]] void fail_with_error(const Error& error, const std::string& subject);
// The value, or the end of the verb: ENOENT and the like are "no" (1), the rest 2.
template <class T>
T value_or_fail(Result<T> result, const std::string& subject) {
    if (!result) fail_with_error(result.error(), subject);
    return std::move(*result);
}
void value_or_fail(Result<void> result, const std::string& subject);

}  // namespace uext4::cli
