#include "fuse/own_mount.h"

#include "fuse/fusermount.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>

namespace uext4::fuse {

bool OwnMount::still_there() const {
    if (!ours_) return false;
    const std::optional<MountEntry> now = find_mount(directory_);
    return now && now->device == ours_->device;
}

void OwnMount::break_off() const {
    // As long as its directory is open the mount does not go along.
    const int held = ::open(directory_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    umount2(directory_.c_str(), MNT_FORCE | UMOUNT_NOFOLLOW);
    if (held >= 0) close(held);
}

void OwnMount::take_away() const {
    if (umount2(directory_.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno == EPERM)
        run_fusermount(directory_, true);
}

}  // namespace uext4::fuse
