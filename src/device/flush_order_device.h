// A device on which no flush runs beside another. A device tells of what it has dropped once, to whoever flushes next:
// somebody else's flush, right after or at the same time, works and says nothing. So that whoever acknowledges can
// know, each flush is over, and its failure noted, before the next begins; those that wait meanwhile share one.
#pragma once

#include "device/forwarding_device.h"
#include "sync/condition.h"
#include "sync/mutex.h"

#include <atomic>

namespace uext4 {

class FlushOrderDevice final : public ForwardingDevice {
public:
    explicit FlushOrderDevice(std::shared_ptr<BlockDevice> base) : ForwardingDevice(std::move(base)) {}

    // As a flush: what fails here may have been another write.
    Result<void> write_fua(std::uint64_t offset, ConstBytes in) override;
    Result<void> flush() override;
    bool has_lost_writes() const override { return lost_.load(); }

    // Those that wait for their turn now.
    unsigned waiting_flushes() const { return waiting_.load(); }

private:
    bool try_enter() { return !busy_.exchange(true); }
    // False: a flush that began after the first `seen` ones is over, and covers the caller's writes.
    bool enter(std::uint64_t seen, SourceLocation where);
    void leave();
    struct Turn {
        FlushOrderDevice& device;
        ~Turn() { device.leave(); }
    };

    std::atomic<bool> busy_{false};  // who has set it flushes
    std::atomic<unsigned> waiting_{0};
    std::atomic<std::uint64_t> begun_{0}, over_{0};  // flushes
    std::atomic<bool> lost_{false};
    Mutex lock_{Rank::Device, "FlushOrderDevice"};
    CondVar changed_{"flush"};
    std::uint64_t failed_ UEXT4_GUARDED_BY(lock_) = 0;  // the last flush that failed
    Error failure_ UEXT4_GUARDED_BY(lock_);             // of it
};

// For whoever acknowledges what he or others have written: a flush, and EIO where it works but one before it did not.
Result<void> flush_completed_writes(BlockDevice& device);

}  // namespace uext4
