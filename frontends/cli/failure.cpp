#include "cli/failure.h"

#include <cerrno>

namespace uext4::cli {

void give_up(int code, const std::string& what) { throw Failure{code, what}; }

void refuse(const Error& error, const std::string& subject) {
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
        case EXDEV: give_up(negative, subject + ": " + error.what);
        default: give_up(impossible, subject + ": " + error.what);
    }
}

void need(Result<void> result, const std::string& subject) {
    if (!result) refuse(result.error(), subject);
}

}  // namespace uext4::cli
