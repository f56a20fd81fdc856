#include "device/loop_devices.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <system_error>

namespace uext4 {

namespace {

namespace fs = std::filesystem;

std::string read_line(const fs::path& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

std::uint64_t number_in(const fs::path& file) {
    std::uint64_t number = 0;
    const std::string line = read_line(file);
    std::from_chars(line.data(), line.data() + line.size(), number);
    return number;
}

std::uint64_t sectors_in(const fs::path& file) { return number_in(file) * 512; }

std::optional<dev_t> device_number_in(const fs::path& file) {
    unsigned major_number = 0, minor_number = 0;
    if (std::sscanf(read_line(file).c_str(), "%u:%u", &major_number, &minor_number) != 2) return std::nullopt;
    return makedev(major_number, minor_number);
}

// What the kernel tells of a device, without symlinks: a partition's folder lies in that of its whole. Where
// nothing is told, a folder that is not there.
fs::path folder_of(dev_t device) {
    std::error_code missing;
    const fs::path link = fmt::format("/sys/dev/block/{}:{}", major(device), minor(device));
    const fs::path folder = fs::canonical(link, missing);
    return missing ? link : folder;  // never empty: that would be the working directory
}

std::string node_of(const fs::path& folder, dev_t device) {
    return folder.parent_path() == "/sys/dev/block" ? fmt::format("/dev/block/{}:{}", major(device), minor(device))
                                                    : "/dev/" + folder.filename().string();
}

bool is_partition(const fs::path& folder) {
    std::error_code missing;
    return fs::exists(folder / "partition", missing);
}

std::vector<fs::path> entries_of(const fs::path& folder) {
    std::vector<fs::path> found;
    std::error_code ignored;
    for (fs::directory_iterator entry(folder, ignored), end; !ignored && entry != end; entry.increment(ignored))
        found.push_back(entry->path());
    return found;
}

// Where bytes lie: in a file, or on a whole device.
struct Location {
    bool on_device;
    dev_t device;  // that the bytes are of, or that the file lies on
    ino_t file;
    ByteRange part;

    bool same_holder_as(const Location& other) const {
        return on_device == other.on_device && device == other.device && (on_device || file == other.file);
    }
};

Location place_of(const struct stat& info, const ByteRange& part) {
    if (!S_ISBLK(info.st_mode)) return {false, info.st_dev, info.st_ino, part};
    Location place{true, info.st_rdev, 0, part};
    const fs::path folder = folder_of(info.st_rdev);
    if (!is_partition(folder)) return place;
    const std::uint64_t size = sectors_in(folder / "size");
    if (part.length == 0 && size > part.offset) place.part.length = size - part.offset;
    place.part.offset += sectors_in(folder / "start");
    if (const auto whole = device_number_in(folder.parent_path() / "dev")) place.device = *whole;
    return place;
}

// The bytes of what is behind a loop device, of which it shows `shown`, that its bytes `part` are.
ByteRange moved_down(const ByteRange& part, const ByteRange& shown) {
    ByteRange moved = part;
    if (part.length == 0 && shown.length > part.offset) moved.length = shown.length - part.offset;
    moved.offset += shown.offset;
    return moved;
}

// The other way; they meet.
ByteRange moved_up(const ByteRange& part, const ByteRange& shown) {
    const std::uint64_t first = std::max(part.offset, shown.offset);
    std::uint64_t end = part.length == 0 ? 0 : part.offset + part.length;
    const std::uint64_t shown_end = shown.length == 0 ? 0 : shown.offset + shown.length;
    if (end == 0 || (shown_end != 0 && shown_end < end)) end = shown_end;
    return {first - shown.offset, end == 0 ? 0 : end - first};
}

// A loop device in use.
struct Loop {
    dev_t device;
    std::string node;
    std::string backing;  // a path, mostly
    ByteRange shown;
};

std::optional<Loop> loop_in(const fs::path& folder) {
    const std::string backing = read_line(folder / "loop" / "backing_file");
    const std::optional<dev_t> device = device_number_in(folder / "dev");
    if (backing.empty() || !device) return std::nullopt;
    return Loop{*device, node_of(folder, *device), backing,
                ByteRange{number_in(folder / "loop" / "offset"), number_in(folder / "loop" / "sizelimit")}};
}

// The driver remembers what it shows; the path may be of another name space, or of something else by now.
std::optional<Location> place_behind(int device, const ByteRange& part) {
    loop_info64 status{};
    if (device < 0 || ioctl(device, LOOP_GET_STATUS64, &status) != 0) return std::nullopt;
    struct stat info{};
    info.st_mode = status.lo_rdevice != 0 ? S_IFBLK : S_IFREG;
    info.st_rdev = status.lo_rdevice;
    info.st_dev = status.lo_device;
    info.st_ino = status.lo_inode;
    return place_of(info, part);
}

std::optional<Location> place_behind(const Loop& loop, const ByteRange& part) {
    const int device = open(loop.node.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    const std::optional<Location> behind = place_behind(device, part);
    if (device >= 0) close(device);
    return behind;
}

// Which bytes of what holds the place's the loop device shows; nothing if it shows something else.
std::optional<ByteRange> shown_of(const Loop& loop, const Location& place) {
    if (struct stat info{}; stat(loop.backing.c_str(), &info) == 0)
        if (const Location named = place_of(info, loop.shown); named.same_holder_as(place)) return named.part;
    const std::optional<Location> behind = place_behind(loop, loop.shown);
    return behind && behind->same_holder_as(place) ? std::optional(behind->part) : std::nullopt;
}

// What the place's bytes are bytes of, as far as loop devices tell. `fd` is the device that was asked for.
Location bottom_of(int fd, Location place) {
    for (int floor = 0; place.on_device && floor < max_loop_depth; ++floor) {
        const std::optional<Loop> loop = loop_in(folder_of(place.device));
        if (!loop) break;
        const ByteRange part = moved_down(place.part, loop->shown);
        std::optional<Location> behind = place_behind(*loop, part);
        // Its node may be missing here.
        if (!behind && floor == 0) behind = place_behind(fd, part);
        if (struct stat info{}; !behind && stat(loop->backing.c_str(), &info) == 0) behind = place_of(info, part);
        if (!behind) break;
        place = *behind;
    }
    return place;
}

void add_device(const Location& place, std::vector<DeviceView>& shown) {
    const fs::path folder = folder_of(place.device);
    const std::size_t whole = shown.size();
    shown.push_back({place.device, node_of(folder, place.device), place.device});
    for (const fs::path& entry : entries_of(folder)) {
        const std::optional<dev_t> number = is_partition(entry) ? device_number_in(entry / "dev") : std::nullopt;
        if (!number) continue;
        shown[whole].has_partitions = true;
        if (place.part.overlaps({sectors_in(entry / "start"), sectors_in(entry / "size")}))
            shown.push_back({*number, node_of(entry, *number), place.device});
    }
}

void climb(const Location& place, const std::vector<Loop>& loops, int floor, std::vector<DeviceView>& shown) {
    if (place.on_device) add_device(place, shown);
    if (floor == max_loop_depth) return;
    for (const Loop& loop : loops) {
        const std::optional<ByteRange> part = shown_of(loop, place);
        if (part && place.part.overlaps(*part))
            climb({true, loop.device, 0, moved_up(place.part, *part)}, loops, floor + 1, shown);
    }
}

}  // namespace

std::vector<DeviceView> find_device_views(int fd, const ByteRange& part) {
    struct stat info{};
    if (fstat(fd, &info) != 0) return {};
    std::vector<Loop> loops;
    for (const fs::path& entry : entries_of("/sys/block"))
        if (auto loop = loop_in(entry)) loops.push_back(std::move(*loop));
    const Location place = place_of(info, part);
    std::vector<DeviceView> shown;
    climb(bottom_of(fd, place), loops, 0, shown);
    for (DeviceView& s : shown) {
        s.is_image = S_ISBLK(info.st_mode) && s.device == info.st_rdev;
        s.is_related = place.on_device && s.whole == place.device;
    }
    return shown;
}

int open_loop_backing_file(int fd, bool writable, ByteRange& part) {
    struct stat info{};
    loop_info64 status{};
    if (fstat(fd, &info) != 0 || !S_ISBLK(info.st_mode) || ioctl(fd, LOOP_GET_STATUS64, &status) != 0) return -1;
    const Location place = place_of(info, part);
    const std::string path = read_line(folder_of(place.device) / "loop" / "backing_file");
    part = moved_down(place.part, {status.lo_offset, status.lo_sizelimit});
    const int file = open(path.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat found{};
    // The path may lead elsewhere from here.
    if (file >= 0 && fstat(file, &found) == 0 &&
        (S_ISBLK(found.st_mode) ? found.st_rdev == status.lo_rdevice
                                : found.st_dev == status.lo_device && found.st_ino == status.lo_inode))
        return file;
    if (file >= 0) close(file);
    return -1;
}

}  // namespace uext4
