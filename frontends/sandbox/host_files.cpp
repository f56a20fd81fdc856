#include "sandbox/host_files.h"

#include "base/descriptor.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace uext4 {

namespace {

constexpr std::uint64_t truncate_file = std::uint64_t{1} << 14;  // LANDLOCK_ACCESS_FS_TRUNCATE, from version 3 on
constexpr std::uint64_t reading = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
// Nothing is made, written or run (host_changes.h).
constexpr std::uint64_t anything =
    reading | LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
    LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR |
    LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
    LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM | LANDLOCK_ACCESS_FS_REFER | truncate_file;
constexpr long least_version = 2;  // the first one that knows of links from one directory to another

Result<void> allow_reading(int rules, const std::string& path) {
    const Descriptor place{::open(path.c_str(), O_PATH | O_CLOEXEC)};
    struct stat info{};
    if (!place.is_open() || ::fstat(place.fd(), &info) != 0) return {};
    landlock_path_beneath_attr rule{};
    rule.allowed_access = S_ISDIR(info.st_mode) ? reading : LANDLOCK_ACCESS_FS_READ_FILE;  // nothing is below a file
    rule.parent_fd = place.fd();
    if (::syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0) return {};
    if (errno == EBADFD) return {};  // a pipe and its like, which nobody is kept from
    return fail(errno, "sandbox: {}: {}", path, std::strerror(errno));
}

}  // namespace

Result<void> limit_files(const HostFiles& files) {
    const long version = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version < least_version) return {};
    const std::uint64_t known = version >= 3 ? ~std::uint64_t{0} : ~truncate_file;
    landlock_ruleset_attr attributes{};
    attributes.handled_access_fs = anything & known;
    const Descriptor rules{static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0))};
    if (!rules.is_open()) return fail(errno, "sandbox: Landlock: {}", std::strerror(errno));
    for (const std::string& path : files.readable) TRY(allow_reading(rules.fd(), path));
    if (::syscall(SYS_landlock_restrict_self, rules.fd(), 0) != 0)
        return fail(errno, "sandbox: Landlock: {}", std::strerror(errno));
    return {};
}

}  // namespace uext4
