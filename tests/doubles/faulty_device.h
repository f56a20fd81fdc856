// Misbehaves on command.
#pragma once

#include "device/block_device.h"
#include "device/sparse_pages.h"
#include "sync/condition.h"
#include "sync/mutex.h"

#include <chrono>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace uext4 {

struct DeviceRequest {
    enum class Kind : std::uint8_t { Read, Write, Fua, Flush, Discard };
    Kind kind = Kind::Read;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
};

// What happens to which requests. A request is matched by kind, range and predicate; of those that match, the first
// `skip` pass and the next `times` are hit.
struct DeviceFault {
    enum class Effect : std::uint8_t {
        Fail,        // nothing is transferred, the error is `code`; a flush: see FailedFlush
        Torn,        // the first `bytes` of a write are written, then the error is `code`
        Lose,        // a write or flush succeeds and does nothing
        TearSilent,  // the first `bytes` of a write are written and it succeeds
        Misdirect,   // a write goes, or a read comes, from `bytes` further on
        BitFlip,     // bit `bit` of the byte `bytes` into the transfer is inverted
        Slow,        // takes `delay` longer
        Stick,       // waits until release_stuck()
    };
    static constexpr std::uint64_t for_good = std::numeric_limits<std::uint64_t>::max();

    Effect effect = Effect::Fail;
    int code = EIO;
    std::vector<DeviceRequest::Kind> kinds;  // empty: every kind
    std::uint64_t offset = 0;                // requests that touch [offset, offset + length)
    std::uint64_t length = for_good;
    std::function<bool(const DeviceRequest&)> predicate;  // empty: true; called without locks held
    std::uint64_t skip = 0;
    std::uint64_t times = for_good;
    std::uint64_t bytes = 0;
    unsigned bit = 0;
    std::chrono::nanoseconds delay{0};
};

// What a device does, when a flush fails, with all that was written since the last one that did not.
enum class FailedFlush : std::uint8_t {
    Keeps,  // it is there still, and durable by the next flush
    Drops,  // it is gone, and reads show what was flushed: a cache that was lost
};

class FaultyDevice final : public BlockDevice {
public:
    explicit FaultyDevice(std::shared_ptr<BlockDevice> base, FailedFlush failed_flush = FailedFlush::Keeps)
        : base_(std::move(base)), failed_flush_(failed_flush) {}

    // Returns a number for remove().
    std::uint64_t add(DeviceFault fault);
    void remove(std::uint64_t fault);
    void clear();  // also releases what is stuck

    // Short forms. Each starts with the next request of the kind, after `skip` of them.
    std::uint64_t fail_reads(int code = EIO, std::uint64_t times = DeviceFault::for_good, std::uint64_t skip = 0);
    std::uint64_t fail_writes(int code = EIO, std::uint64_t times = DeviceFault::for_good, std::uint64_t skip = 0);
    std::uint64_t fail_flushes(int code = EIO, std::uint64_t times = DeviceFault::for_good, std::uint64_t skip = 0);
    std::uint64_t fail_range(DeviceRequest::Kind kind, std::uint64_t offset, std::uint64_t length, int code = EIO);

    // As a cable that is pulled: every request fails from now on.
    void die(int code = EIO);

    std::uint64_t hits(std::uint64_t fault) const;  // how many requests it has changed
    std::uint64_t stuck() const;                    // how many requests wait now
    void release_stuck();                           // those that wait go on; later ones pass too

    std::uint64_t size() const override { return base_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override;
    Result<void> write(std::uint64_t offset, ConstBytes in) override;
    Result<void> write_fua(std::uint64_t offset, ConstBytes in) override;
    Result<void> flush() override;
    Result<void> discard(std::uint64_t offset, std::uint64_t length) override;
    bool read_only() const override { return base_->read_only(); }
    Result<void> read_from_medium(std::uint64_t offset, Bytes out) override;
    std::string name() const override { return base_->name(); }

private:
    struct Armed {
        DeviceFault fault;
        std::uint64_t id = 0;
        std::uint64_t seen = 0;
        std::uint64_t hits = 0;
    };
    using Reader = Result<void> (BlockDevice::*)(std::uint64_t, Bytes);
    using Writer = Result<void> (BlockDevice::*)(std::uint64_t, ConstBytes);

    // The faults that hit this request, in the order they were added. Waits for Slow and Stick are done inside.
    std::vector<DeviceFault> faults_for(const DeviceRequest& request);
    void wait_until_released(std::uint64_t id);
    Result<void> read_with(Reader reader, std::uint64_t offset, Bytes out);
    Result<void> write_with(Writer writer, DeviceRequest::Kind kind, std::uint64_t offset, ConstBytes in);
    Result<void> transfer(Writer writer, DeviceRequest::Kind kind, std::uint64_t offset, ConstBytes in);
    Result<void> keep_flushed(std::uint64_t offset, std::uint64_t length) UEXT4_REQUIRES(cache_lock_);
    Result<void> drop_unflushed();

    std::shared_ptr<BlockDevice> base_;
    const FailedFlush failed_flush_;
    Mutex cache_lock_{Rank::Device, "FaultyDevice::cache"};
    // Of the pages that were written since the last flush, what it made durable.
    SparsePages flushed_ UEXT4_GUARDED_BY(cache_lock_);
    mutable Mutex lock_{Rank::Device, "FaultyDevice::lock"};
    CondVar released_{"FaultyDevice::released"};
    std::vector<Armed> armed_ UEXT4_GUARDED_BY(lock_);
    std::uint64_t next_id_ UEXT4_GUARDED_BY(lock_) = 1;
    std::uint64_t stuck_ UEXT4_GUARDED_BY(lock_) = 0;
};

}  // namespace uext4
