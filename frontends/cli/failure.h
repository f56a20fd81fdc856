// How a verb ends: its exit code and a sentence.
#pragma once

#include "base/result.h"

#include <string>
#include <utility>

namespace uext4::cli {

// Exit codes.
inline constexpr int fine = 0, negative = 1, impossible = 2;

// Ends the verb with an exit code and a sentence for stderr.
struct Failure {
    int code;
    std::string what;
    bool damaged = false;  // the image: `what` names the structure
};
[[noreturn]] void give_up(int code, const std::string& what);
// For a place that the message names: the errno's text where that says all, or the library's sentence.
std::string sentence_of(const Error& error);
[[noreturn]] void refuse(const Error& error, const std::string& subject);
// The value, or the end of the verb: ENOENT and the like are "no" (1), the rest 2.
template <class T>
T need(Result<T> result, const std::string& subject) {
    if (!result) refuse(result.error(), subject);
    return std::move(*result);
}
void need(Result<void> result, const std::string& subject);

}  // namespace uext4::cli
