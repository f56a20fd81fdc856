#include "device/host_use.h"

#include "device/holders.h"
#include "device/loop_devices.h"
#include "device/mount_table.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

namespace uext4 {

namespace {

struct ScopedFd {
    int fd;
    ~ScopedFd() {
        if (fd >= 0) close(fd);
    }
};

struct MountedDevice {
    dev_t device;
    std::string where;
    bool writable;
};

// Every mounted device that this process can see.
std::vector<MountedDevice> mounted_devices() {
    std::vector<MountedDevice> devices;
    for (const MountEntry& mount : mount_table()) {
        devices.push_back({mount.device, mount.mount_point, mount.writable});
        // File systems over several devices have a made-up number there and one of their devices as the source.
        struct stat info{};
        if (mount.source.starts_with("/dev/") && stat(mount.source.c_str(), &info) == 0 && S_ISBLK(info.st_mode))
            devices.push_back({info.st_rdev, mount.mount_point, mount.writable});
    }
    return devices;
}

// " through /dev/loop7", unless that is the image itself.
std::string through(const DeviceView& shown) { return shown.is_image ? "" : " through " + shown.node; }

// Why a block device cannot be opened exclusively.
std::string use_of_device(dev_t device, const std::string& path) {
    for (const MountedDevice& mount : mounted_devices())
        if (mount.device == device) return "it is mounted on " + mount.where;
    const std::string opener = opener_of(path);
    if (opener == "another process") return "the device is in use (mounted, or open exclusively by another process)";
    return opener + " has the device open";
}

std::optional<int> descriptor_in_path(const std::string& path) {
    for (const char* folder : {"/dev/fd/", "/proc/self/fd/"}) {
        if (!path.starts_with(folder)) continue;
        const char* first = path.c_str() + std::strlen(folder);
        const char* last = path.c_str() + path.size();
        int fd = -1;
        const auto [end, error] = std::from_chars(first, last, fd);
        if (error == std::errc() && end == last && fd >= 0) return fd;
    }
    return std::nullopt;
}

}  // namespace

Result<void> refuse_if_mounted(int fd, std::uint64_t offset, std::uint64_t length, const std::string& name) {
    const std::vector<DeviceView> places = find_device_views(fd, {offset, length});
    const std::vector<MountedDevice> mounts = mounted_devices();
    for (const DeviceView& shown : places)
        for (const MountedDevice& mount : mounts)
            if (mount.device == shown.device)
                return fail(EBUSY, "{}: it is mounted on {}{}", name, mount.where, through(shown));
    for (const DeviceView& shown : places) {
        // A mount in another name space is not in our table, but keeps exclusive openers out. (Where there are
        // partitions, it keeps them from the whole as well, whichever it is of. And the image's own device is held by
        // ourselves.)
        if (shown.has_partitions || shown.is_related) continue;
        ScopedFd exclusive{open(shown.node.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK)};
        if (exclusive.fd < 0 && errno == EBUSY)
            return fail(EBUSY, "{}: it is in use through {} (mounted, or open exclusively by another process)", name,
                        shown.node);
    }
    return {};
}

std::optional<std::string> mounted_for_writing(const std::string& image, std::uint64_t offset, FindPartition find) {
    const ImageName parsed = parse_image_name(image);
    const Result<int> opened = open_image(parsed.path, false);
    if (!opened) return std::nullopt;  // whoever opens it to read it will say why
    const ScopedFd fd{*opened};
    ByteRange part{offset, 0};
    if (parsed.partition)
        if (const Result<Partition> found = find(fd.fd, *parsed.partition, image)) part = {found->offset, found->size};
    const std::vector<DeviceView> places = find_device_views(fd.fd, part);
    for (const MountedDevice& mount : mounted_devices())
        for (const DeviceView& shown : places)
            if (mount.writable && mount.device == shown.device)
                return fmt::format("{}: it is mounted for writing on {}{}: what is read here may be of several moments",
                                   image, mount.where, through(shown));
    return std::nullopt;
}

Result<void> lock_file(int fd, bool exclusive, std::uint64_t offset, std::uint64_t length, const std::string& name) {
    const ImageRange bytes(offset, length);
    struct flock lock{};
    lock.l_type = exclusive ? F_WRLCK : F_RDLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = static_cast<off_t>(bytes.begin);
    lock.l_len = static_cast<off_t>(bytes.end - bytes.begin);
    while (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
        switch (errno) {
            case EINTR: continue;
            case EAGAIN:
            case EACCES: {
                const std::string holder = holder_of(fd, exclusive, bytes);
                return fail(EBUSY, "{}: {} has it open{}{}", name, holder, exclusive ? "" : " for writing",
                            holder == "this process" ? " already" : "");
            }
            case EINVAL:
            case ENOLCK:
            case EOPNOTSUPP:
            case ENOSYS: return {};
            default: return fail(errno, "{}: locking: {}", name, std::strerror(errno));
        }
    }
    record_holder(fd, bytes);
    return {};
}

void unlock_file(int fd) {
    struct flock lock{};
    lock.l_type = F_UNLCK;
    lock.l_whence = SEEK_SET;
    while (fcntl(fd, F_OFD_SETLK, &lock) != 0 && errno == EINTR) {
    }
}

Result<void> lock_loop_backing_files(int fd, bool exclusive, std::uint64_t offset, std::uint64_t length,
                                     const std::string& name, std::vector<int>& held) {
    ByteRange part{offset, length};
    for (int floor = 0; floor < max_loop_depth; ++floor) {
        const int file = open_loop_backing_file(fd, exclusive, part);
        if (file < 0) return {};
        held.push_back(file);
        TRY(lock_file(file, exclusive, part.offset, part.length, name));
        fd = file;
    }
    return {};
}

Result<int> open_image(const std::string& path, bool writable) {
    int fd = -1;
    struct stat info{};
    if (const auto number = descriptor_in_path(path)) {
        fd = fcntl(*number, F_DUPFD_CLOEXEC, 3);
        if (fd < 0) return fail(errno, "{}: {}", path, std::strerror(errno));
        const int flags = fcntl(fd, F_GETFL);
        const int mode = flags & O_ACCMODE;
        if (flags < 0 || mode == O_WRONLY || (flags & O_PATH) != 0) {
            close(fd);
            return fail(EBADF, "{}: the descriptor is not open for reading", path);
        }
        if (writable && mode != O_RDWR) {
            close(fd);
            return fail(EROFS, "{}: the descriptor is not open for writing", path);
        }
    } else {
        if (stat(path.c_str(), &info) != 0) return fail(errno, "{}: {}", path, std::strerror(errno));
        if (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode))
            return fail(EINVAL, "{}: neither a regular file nor a block device", path);
        const int exclusive = writable && S_ISBLK(info.st_mode) ? O_EXCL : 0;
        do fd = open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | exclusive);
        while (fd < 0 && errno == EINTR);
        if (fd < 0 && errno == EWOULDBLOCK) return fail(EBUSY, "{}: {} is about to close it", path, opener_of(path));
        if (fd < 0 && errno == EBUSY) return fail(EBUSY, "{}: {}", path, use_of_device(info.st_rdev, path));
        if (fd < 0) return fail(errno, "{}: {}", path, std::strerror(errno));
    }
    if (fstat(fd, &info) != 0 || (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode))) {
        close(fd);
        return fail(EINVAL, "{}: neither a regular file nor a block device", path);
    }
    return fd;
}

}  // namespace uext4
