// Who else on this host uses an image file or a block device.
#pragma once

#include "base/result.h"
#include "device/partition.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace uext4 {

// EBUSY, with a sentence that says how, if any of the bytes [offset, offset + length) of the file or device `fd`
// (length 0: to the end) are mounted, by the kernel's drivers or by a server of one's own: as this device, as what it
// is a partition of or is divided into, or through any loop device that shows the same bytes, of it or of what lies
// behind it.
Result<void> refuse_if_mounted(int fd, std::uint64_t offset, std::uint64_t length, const std::string& name);

// A sentence that says where, if the image (a name as of open_device(), which begins at `offset` where it names no
// partition) is mounted so that it may change: who reads it then must know.
std::optional<std::string> mounted_for_writing(const std::string& image, std::uint64_t offset,
                                               FindPartition find = find_partition);

// Locks the bytes [offset, offset + length) of the file until the last descriptor of this open is closed (an
// open-file-description lock, so two opens in one process exclude each other as well, and two partitions of one image
// do not). Length 0: to the end. Exclusive, or shared with other readers. EBUSY if somebody else holds it; file systems
// without locks are let through.
Result<void> lock_file(int fd, bool exclusive, std::uint64_t offset, std::uint64_t length, const std::string& name);
// Gives such a lock up, also for a child that fork(2) has given the descriptor.
void unlock_file(int fd);

// The same for what a block device shows of files by way of loop devices (whose own locks do not meet those of the
// files): of a device or partition `fd`, the bytes as above. The files' descriptors, which hold the locks and are the
// caller's to close, are added to `held`. What cannot be found or opened from here is let through.
Result<void> lock_loop_backing_files(int fd, bool exclusive, std::uint64_t offset, std::uint64_t length,
                                     const std::string& name, std::vector<int>& held);

// open(2) with O_CLOEXEC; /dev/fd/N and /proc/self/fd/N mean descriptor N itself, not a new open of its file. EINVAL
// for what is neither a regular file nor a block device; a writable open of a block device is exclusive and is EBUSY
// while the kernel or another exclusive opener uses it. The caller closes the descriptor.
Result<int> open_image(const std::string& path, bool writable);

}  // namespace uext4
