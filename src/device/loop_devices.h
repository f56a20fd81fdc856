// Which devices show the same bytes: partitions, and the loop devices by which the kernel shows files as devices.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace uext4 {

// Bytes of a file or of a device.
struct ByteRange {
    std::uint64_t offset, length;  // length 0: to the end

    bool overlaps(const ByteRange& other) const {
        return (length == 0 || other.offset < offset + length) &&
               (other.length == 0 || offset < other.offset + other.length);
    }
};

// A loop device may show another one: what follows them stops here.
inline constexpr int max_loop_depth = 8;

// A device by which the kernel shows some of the bytes that were asked for.
struct DeviceView {
    dev_t device;
    std::string node;
    dev_t whole;                  // itself, or what it is a partition of
    bool has_partitions = false;  // it has partitions
    bool is_image = false;        // what was asked for,
    bool is_related = false;      // or its whole, or a partition of that
};

// What shows any of the bytes of the file or device `fd`: the device itself, its whole, partitions that the bytes meet,
// and, to max_loop_depth, what lies behind it and the loop devices that show the same bytes of that.
std::vector<DeviceView> find_device_views(int fd, const ByteRange& part);

// What lies behind the loop device, or partition of one, `fd`: a new descriptor of that file or device, and `part` (of
// the bytes of `fd`) becomes its bytes. -1 where there is none, or it cannot be found or opened from here.
int open_loop_backing_file(int fd, bool writable, ByteRange& part);

}  // namespace uext4
