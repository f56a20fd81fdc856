#include "cli/failure.h"

#include <cerrno>
#include <cstring>
#include <string_view>

namespace uext4::cli {

namespace {

// The errors that a path and the errno's text explain. The library's sentence has words of the implementation there.
bool is_plain(int code) {
    switch (code) {
        case ENOENT:
        case EEXIST:
        case ENOTDIR:
        case EISDIR:
        case ENOTEMPTY:
        case ELOOP:
        case ENAMETOOLONG:
        case EMLINK:
        case ENOSPC:
        case EFBIG:
        case ENODATA: return true;
        default: return false;
    }
}

// A sentence about an inode without its number, which users do not know.
std::string_view without_inode(std::string_view what) {
    constexpr std::string_view word = "inode ";
    if (!what.starts_with(word)) return what;
    const std::size_t end = what.find_first_not_of("0123456789", word.size());
    if (end == word.size() || end == std::string_view::npos) return what;
    const std::string_view rest = what.substr(end);
    return rest.substr(rest.find_first_not_of(": "));
}

}  // namespace

std::string sentence_of(const Error& error) {
    if (error.code == ENODATA) return "No such attribute";
    if (is_plain(error.code)) return std::strerror(error.code);
    if (error.code == EUCLEAN || error.code == EIO) return error.what;
    const std::string reason(without_inode(error.what));
    const bool refused = error.code == EPERM || error.code == EACCES || error.code == ENOKEY;
    return refused ? fmt::format("{}: {}", std::strerror(error.code), reason) : reason;
}

void fail_with(int code, const std::string& what) { throw Failure{code, what}; }

void fail_with_error(const Error& error, const std::string& subject) {
    switch (error.code) {
        case ENOENT:
        case ESTALE:  // an inode that is named by its number
        case EEXIST:
        case ENOTDIR:
        case EISDIR:
        case ENOTEMPTY:
        case ENODATA:
        case EACCES:
        case EPERM:
        case ELOOP:
        case ENXIO:
        case EINVAL:
        case ENAMETOOLONG:
        case EMLINK:
        case EXDEV: fail_with(exit_negative, subject + ": " + sentence_of(error));
        default: fail_with(exit_failure, subject + ": " + sentence_of(error));
    }
}

void value_or_fail(Result<void> result, const std::string& subject) {
    if (!result) fail_with_error(result.error(), subject);
}

}  // namespace uext4::cli
