#include "device/host_use.h"

#include "device/mount_table.h"
#include "device/partition.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <vector>

namespace uext4 {

namespace {

namespace fs = std::filesystem;

struct ScopedFd {
    int fd;
    ~ScopedFd() {
        if (fd >= 0) close(fd);
    }
};

// Bytes of a file.
struct Stretch {
    std::uint64_t offset, length;  // 0: to the end

    bool meets(const Stretch& other) const {
        return (length == 0 || other.offset < offset + length) &&
               (other.length == 0 || offset < other.offset + other.length);
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
        devices.push_back({mount.device, mount.where, mount.writable});
        // File systems over several devices have a made-up number there and one of their devices as the source.
        struct stat info{};
        if (mount.source.starts_with("/dev/") && stat(mount.source.c_str(), &info) == 0 && S_ISBLK(info.st_mode))
            devices.push_back({info.st_rdev, mount.where, mount.writable});
    }
    return devices;
}

std::string read_line(const fs::path& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

bool parse_device_number(const std::string& text, dev_t& number) {
    unsigned major_number = 0, minor_number = 0;
    if (std::sscanf(text.c_str(), "%u:%u", &major_number, &minor_number) != 2) return false;
    number = makedev(major_number, minor_number);
    return true;
}

// The device and its partitions.
std::set<dev_t> with_partitions(dev_t device) {
    std::set<dev_t> all{device};
    std::error_code ignored;
    const fs::path folder = fmt::format("/sys/dev/block/{}:{}", major(device), minor(device));
    for (fs::directory_iterator entry(folder, ignored), end; !ignored && entry != end; entry.increment(ignored)) {
        dev_t number;
        std::error_code missing;
        if (fs::exists(entry->path() / "partition", missing) &&
            parse_device_number(read_line(entry->path() / "dev"), number))
            all.insert(number);
    }
    return all;
}

std::uint64_t number_in(const fs::path& file) {
    std::uint64_t number = 0;
    const std::string line = read_line(file);
    std::from_chars(line.data(), line.data() + line.size(), number);
    return number;
}

std::uint64_t sectors_in(const fs::path& file) { return number_in(file) * 512; }

// A device by which the kernel shows bytes of a file: a loop device, or a partition of one.
struct Shown {
    dev_t device;
    std::string node;
    Stretch part;
    bool divided = false;  // it has partitions
};

// A loop device, and its partitions.
void add_shown(const fs::path& loop, dev_t device, std::vector<Shown>& shown) {
    const std::uint64_t start = number_in(loop / "loop" / "offset");
    const std::size_t whole = shown.size();
    shown.push_back({device, "/dev/" + loop.filename().string(), {start, number_in(loop / "loop" / "sizelimit")}});
    std::error_code ignored;
    for (fs::directory_iterator entry(loop, ignored), end; !ignored && entry != end; entry.increment(ignored)) {
        dev_t number;
        std::error_code missing;
        const fs::path& part = entry->path();
        if (!fs::exists(part / "partition", missing) || !parse_device_number(read_line(part / "dev"), number)) continue;
        shown[whole].divided = true;
        const Stretch bytes{start + sectors_in(part / "start"), sectors_in(part / "size")};
        shown.push_back({number, "/dev/" + part.filename().string(), bytes});
    }
}

// What shows bytes of `part` of the file.
std::vector<Shown> shown_by_loops(const struct stat& file, const Stretch& part) {
    std::vector<Shown> shown;
    std::error_code ignored;
    for (fs::directory_iterator entry("/sys/block", ignored), end; !ignored && entry != end; entry.increment(ignored)) {
        const std::string loop_name = entry->path().filename().string();
        if (!loop_name.starts_with("loop")) continue;
        const std::string backing = read_line(entry->path() / "loop" / "backing_file");
        dev_t number;
        if (backing.empty() || !parse_device_number(read_line(entry->path() / "dev"), number)) continue;
        const std::string node = "/dev/" + loop_name;

        struct stat info{};
        bool same = stat(backing.c_str(), &info) == 0 && info.st_dev == file.st_dev && info.st_ino == file.st_ino;
        if (!same) {
            // The path may be of another name space, or gone; the driver remembers the inode.
            ScopedFd loop{open(node.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
            loop_info64 status{};
            same = loop.fd >= 0 && ioctl(loop.fd, LOOP_GET_STATUS64, &status) == 0 && status.lo_inode == file.st_ino &&
                   status.lo_device == file.st_dev;
        }
        if (same) add_shown(entry->path(), number, shown);
    }
    std::erase_if(shown, [&](const Shown& s) { return !s.part.meets(part); });
    return shown;
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
    struct stat info{};
    if (fstat(fd, &info) != 0) return fail(errno, "{}: fstat: {}", name, std::strerror(errno));
    const std::vector<MountedDevice> mounts = mounted_devices();
    if (S_ISBLK(info.st_mode)) {
        const std::set<dev_t> devices = with_partitions(info.st_rdev);
        for (const MountedDevice& mount : mounts)
            if (devices.contains(mount.device)) return fail(EBUSY, "{}: it is mounted on {}", name, mount.where);
        return {};
    }
    for (const Shown& shown : shown_by_loops(info, {offset, length})) {
        for (const MountedDevice& mount : mounts)
            if (mount.device == shown.device)
                return fail(EBUSY, "{}: it is mounted on {} through {}", name, mount.where, shown.node);
        // A mount in another name space is not in our table, but keeps exclusive openers out. (Where there are
        // partitions, it keeps them from the whole as well, whichever it is of.)
        if (shown.divided) continue;
        ScopedFd exclusive{open(shown.node.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK)};
        if (exclusive.fd < 0 && errno == EBUSY)
            return fail(EBUSY, "{}: it is in use through {} (mounted, or open exclusively by another process)", name,
                        shown.node);
    }
    return {};
}

std::optional<std::string> mounted_for_writing(const std::string& image, std::uint64_t offset) {
    const ImageName parsed = parse_image_name(image);
    const Result<int> opened = open_image(parsed.path, false);
    if (!opened) return std::nullopt;  // whoever opens it to read it will say why
    const ScopedFd fd{*opened};
    struct stat info{};
    if (fstat(fd.fd, &info) != 0) return std::nullopt;
    std::vector<Shown> devices;
    if (S_ISBLK(info.st_mode)) {
        for (const dev_t device : with_partitions(info.st_rdev)) devices.push_back({device, "", {}});
    } else {
        Stretch part{offset, 0};
        if (parsed.partition)
            if (const Result<Partition> found = find_partition(fd.fd, *parsed.partition, image))
                part = {found->offset, found->size};
        devices = shown_by_loops(info, part);
    }
    for (const MountedDevice& mount : mounted_devices())
        for (const Shown& shown : devices)
            if (mount.writable && mount.device == shown.device)
                return fmt::format(
                    "{}: it is mounted for writing on {}{}{}: what is read here may be of several moments", image,
                    mount.where, shown.node.empty() ? "" : " through ", shown.node);
    return std::nullopt;
}

Result<void> lock_file(int fd, bool exclusive, std::uint64_t offset, std::uint64_t length, const std::string& name) {
    struct flock lock{};
    lock.l_type = exclusive ? F_WRLCK : F_RDLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = static_cast<off_t>(offset);
    lock.l_len = static_cast<off_t>(length);
    while (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
        switch (errno) {
            case EINTR: continue;
            case EAGAIN:
            case EACCES: return fail(EBUSY, "{}: another process has it open{}", name, exclusive ? "" : " for writing");
            case EINVAL:
            case ENOLCK:
            case EOPNOTSUPP:
            case ENOSYS: return {};
            default: return fail(errno, "{}: locking: {}", name, std::strerror(errno));
        }
    }
    return {};
}

void unlock_file(int fd) {
    struct flock lock{};
    lock.l_type = F_UNLCK;
    lock.l_whence = SEEK_SET;
    while (fcntl(fd, F_OFD_SETLK, &lock) != 0 && errno == EINTR) {
    }
}

namespace {

// What of the file behind a loop device is meant by bytes of the device, or of a partition of it; and the file, or -1.
int file_behind(int fd, const struct stat& info, bool writable, Stretch& part) {
    loop_info64 status{};
    if (ioctl(fd, LOOP_GET_STATUS64, &status) != 0) return -1;
    fs::path device = fmt::format("/sys/dev/block/{}:{}", major(info.st_rdev), minor(info.st_rdev));
    std::uint64_t shown = status.lo_sizelimit;
    std::error_code missing;
    if (fs::exists(device / "partition", missing)) {
        part.offset += sectors_in(device / "start");
        shown = sectors_in(device / "start") + sectors_in(device / "size");
        device /= "..";
    }
    if (part.length == 0 && shown > part.offset) part.length = shown - part.offset;
    part.offset += status.lo_offset;
    const std::string path = read_line(device / "loop" / "backing_file");
    const int file = open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat found{};
    // The path may lead elsewhere from here.
    if (file >= 0 && fstat(file, &found) == 0 &&
        (S_ISBLK(found.st_mode) || (found.st_dev == status.lo_device && found.st_ino == status.lo_inode)))
        return file;
    if (file >= 0) close(file);
    return -1;
}

}  // namespace

Result<void> lock_behind_loops(int fd, bool exclusive, std::uint64_t offset, std::uint64_t length,
                               const std::string& name, std::vector<int>& held) {
    constexpr int most_floors = 8;  // loop devices may stand on each other
    Stretch part{offset, length};
    for (int floor = 0; floor < most_floors; ++floor) {
        struct stat info{};
        if (fstat(fd, &info) != 0 || !S_ISBLK(info.st_mode)) return {};
        const int file = file_behind(fd, info, exclusive, part);
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
        if (fd < 0 && errno == EWOULDBLOCK) return fail(EBUSY, "{}: another process is about to close it", path);
        if (fd < 0 && errno == EBUSY)
            return fail(EBUSY, "{}: the device is in use (mounted, or open exclusively by another process)", path);
        if (fd < 0) return fail(errno, "{}: {}", path, std::strerror(errno));
    }
    if (fstat(fd, &info) != 0 || (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode))) {
        close(fd);
        return fail(EINVAL, "{}: neither a regular file nor a block device", path);
    }
    return fd;
}

}  // namespace uext4
