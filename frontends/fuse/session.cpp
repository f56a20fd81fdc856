#include "fuse/session.h"

#include <fcntl.h>

#include <cerrno>

namespace uext4::fuse {

Result<fuse_session*> new_session(const MountOptions& options, const fuse_lowlevel_ops& table, void* self, bool debug) {
    fuse_args arguments = FUSE_ARGS_INIT(0, nullptr);
    bool complete = fuse_opt_add_arg(&arguments, "uext4") == 0 && fuse_opt_add_arg(&arguments, "-o") == 0 &&
                    fuse_opt_add_arg(&arguments, library_options(options).c_str()) == 0;
    if (debug) complete = complete && fuse_opt_add_arg(&arguments, "-d") == 0;
    fuse_session* session = complete ? fuse_session_new(&arguments, &table, sizeof table, self) : nullptr;
    fuse_opt_free_args(&arguments);
    if (!session) return fail(EINVAL, "FUSE does not accept the options '{}'", library_options(options));
    return session;
}

int mount_channel(const MountOptions& options, const std::string& directory) {
    const Result<fuse_session*> session = new_session(options, {}, nullptr, false);
    if (!session) return -1;
    int channel = -1;
    if (fuse_session_mount(*session, directory.c_str()) == 0) {
        channel = fcntl(fuse_session_fd(*session), F_DUPFD_CLOEXEC, 3);
        if (channel < 0) fuse_session_unmount(*session);
    }
    fuse_session_destroy(*session);
    return channel;
}

}  // namespace uext4::fuse
