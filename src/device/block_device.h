// What the file system reads and writes: a linear range of bytes.
#pragma once

#include "base/bytes.h"
#include "base/result.h"

#include <cstdint>
#include <span>
#include <string>

namespace uext4 {

// All functions may be called from several threads at once. Offsets and lengths are in bytes and need no alignment;
// implementations align where they must. A range that does not lie within size() is EINVAL and changes nothing. A
// transfer is whole or an error; after a failed write the range holds the old or the new bytes, in any mix.
class BlockDevice {
public:
    virtual ~BlockDevice();

    virtual std::uint64_t size() const = 0;

    virtual Result<void> read(std::uint64_t offset, Bytes out) = 0;

    // EROFS on a read-only device. Durable only after flush().
    virtual Result<void> write(std::uint64_t offset, ConstBytes in) = 0;

    // One after the other from `offset` on. The parts may be split into several requests.
    virtual Result<void> readv(std::uint64_t offset, std::span<const Bytes> parts);
    virtual Result<void> writev(std::uint64_t offset, std::span<const ConstBytes> parts);

    // Durable on return; says nothing of earlier writes. The default flushes everything.
    virtual Result<void> write_fua(std::uint64_t offset, ConstBytes in);

    // Every write that returned before this call is durable.
    virtual Result<void> flush() = 0;

    // The content of the range is of no interest any more; it reads as anything afterwards. ENOTSUP where the device
    // cannot.
    virtual Result<void> discard(std::uint64_t offset, std::uint64_t length);

    // A flush or a write through has failed since the volume was opened: what was written before that may be gone, and
    // a later flush that works says nothing of it. Known by the volume's own device (flush_order_device.h) only.
    virtual bool has_lost_writes() const { return false; }

    virtual bool read_only() const = 0;

    // Past the host's cache where that is possible: sees what another host wrote.
    virtual Result<void> read_from_medium(std::uint64_t offset, Bytes out);

    // For an end that nobody waits for: whoever opens what this stands on from now on gets it when this has closed it,
    // where the host can do that.
    virtual void request_lease();

    // For messages.
    virtual std::string name() const = 0;
};

// The checks that implementations share. EINVAL names the device and the range.
Result<void> check_range(const BlockDevice& device, const char* what, std::uint64_t offset, std::uint64_t length);

// Also EROFS if the device is read-only.
Result<void> check_writable_range(const BlockDevice& device, const char* what, std::uint64_t offset,
                                  std::uint64_t length);

}  // namespace uext4
