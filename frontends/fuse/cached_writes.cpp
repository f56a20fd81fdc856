#include "fuse/cached_writes.h"

#include "base/descriptor.h"
#include "fuse/ioctls.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace uext4::fuse {

namespace {

// The errno, or 0. A second time behind EINTR: that also tells of a write of somebody else's that a signal has ended.
int sync_file_system(int root) {
    if (::syncfs(root) == 0 || (errno == EINTR && ::syncfs(root) == 0)) return 0;
    return errno;
}

}  // namespace

Result<int> send_cached_writes(int root) {
    // What the kernel cannot send before an answer to something else (a second change of a page that is being written,
    // a file that is being truncated) it sends behind that: before the second round.
    constexpr unsigned rounds = 2;
    int refused = 0;
    for (unsigned round = 0; round < rounds; ++round) {
        Descriptor marked(::openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (!marked.is_open()) return fail(errno, "{}", std::strerror(errno));
        int mark = 0;
        if (::ioctl(marked.fd(), UEXT4_IOC_MARK, &mark) != 0) return fail(errno, "{}", std::strerror(errno));
        const int error = sync_file_system(root);
        if (refused == 0) refused = error;
        marked.close();
        while (::ioctl(root, UEXT4_IOC_ARRIVED, &mark) != 0)
            if (errno != EINTR) return fail(errno, "{}", std::strerror(errno));
    }
    const int error = sync_file_system(root);  // it tells of what has been refused since
    return refused != 0 ? refused : error;
}

}  // namespace uext4::fuse
