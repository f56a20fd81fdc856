#include "fuse/connection.h"

#include <fmt/format.h>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <string>

namespace uext4::fuse {

namespace {

void close_if_open(int fd) {
    if (fd >= 0) close(fd);
}

// The kernel's file system of its FUSE connections, where nothing shows it: without a place among the mounts.
int open_connections() {
    const int context = fsopen("fusectl", FSOPEN_CLOEXEC);
    const bool made = context >= 0 && fsconfig(context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) == 0;
    const int root = made ? fsmount(context, FSMOUNT_CLOEXEC, 0) : -1;
    close_if_open(context);
    return root;
}

// What it names stays this connection, also when a later one has the same number. Where the list is shown, that can be
// opened by a mount's owner, but cannot be unmounted any more.
int open_control(dev_t device) {
    const std::string name = fmt::format("{}/abort", minor(device));
    const int root = open_connections();
    const int control = root >= 0 ? openat(root, name.c_str(), O_WRONLY | O_CLOEXEC) : -1;
    close_if_open(root);
    if (control >= 0) return control;
    return open(("/sys/fs/fuse/connections/" + name).c_str(), O_WRONLY | O_CLOEXEC);
}

}  // namespace

Connection::Connection(const OwnMount& mount) : mount_(mount) {
    if (const std::optional<dev_t> device = mount.device()) control_ = open_control(*device);
}

Connection::~Connection() { close_if_open(control_); }

void Connection::break_off() const {
    if (control_ >= 0 && write(control_, "1", 1) == 1) return;
    if (mount_.still_there()) mount_.break_off();
}

}  // namespace uext4::fuse
