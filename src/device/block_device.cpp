#include "device/block_device.h"

namespace uext4 {

BlockDevice::~BlockDevice() = default;

Result<void> BlockDevice::readv(std::uint64_t offset, std::span<const Bytes> parts) {
    for (Bytes part : parts) {
        TRY(read(offset, part));
        offset += part.size();
    }
    return {};
}

Result<void> BlockDevice::writev(std::uint64_t offset, std::span<const ConstBytes> parts) {
    for (ConstBytes part : parts) {
        TRY(write(offset, part));
        offset += part.size();
    }
    return {};
}

Result<void> BlockDevice::write_fua(std::uint64_t offset, ConstBytes in) {
    TRY(write(offset, in));
    return flush();
}

Result<void> BlockDevice::discard(std::uint64_t, std::uint64_t) { return fail(ENOTSUP, "{}: cannot discard", name()); }

Result<void> BlockDevice::read_from_medium(std::uint64_t offset, Bytes out) { return read(offset, out); }

void BlockDevice::request_lease() {}

Result<void> check_range(const BlockDevice& device, const char* what, std::uint64_t offset, std::uint64_t length) {
    const std::uint64_t size = device.size();
    if (offset > size || length > size - offset) [[unlikely]]
        return fail(EINVAL, "{}: {} of {} bytes at {} is outside of its {} bytes", device.name(), what, length, offset,
                    size);
    return {};
}

Result<void> check_writable_range(const BlockDevice& device, const char* what, std::uint64_t offset,
                                  std::uint64_t length) {
    if (device.read_only()) [[unlikely]]
        return fail(EROFS, "{}: {} at {}: the device is read-only", device.name(), what, offset);
    return check_range(device, what, offset, length);
}

}  // namespace uext4
