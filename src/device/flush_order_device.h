// A device on which no flush runs beside another. A device tells of what it has dropped once, to whoever flushes next:
// somebody else's flush, right after or at the same time, works and says nothing. So that whoever acknowledges can
// know, each flush is over, and its failure noted, before the next begins; those that wait meanwhile share one.
#pragma once

#include "device/block_device.h"
#include "sync/condition.h"
#include "sync/mutex.h"

#include <atomic>
#include <memory>

namespace uext4 {

class FlushOrderDevice final : public BlockDevice {
public:
    explicit FlushOrderDevice(std::shared_ptr<BlockDevice> base) : base_(std::move(base)) {}

    std::uint64_t size() const override { return base_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override { return base_->read(offset, out); }
    Result<void> readv(std::uint64_t offset, std::span<const Bytes> parts) override {
        return base_->readv(offset, parts);
    }
    Result<void> read_from_medium(std::uint64_t offset, Bytes out) override {
        return base_->read_from_medium(offset, out);
    }
    Result<void> write(std::uint64_t offset, ConstBytes in) override { return base_->write(offset, in); }
    Result<void> writev(std::uint64_t offset, std::span<const ConstBytes> parts) override {
        return base_->writev(offset, parts);
    }
    // As a flush: what fails here may have been another write.
    Result<void> write_fua(std::uint64_t offset, ConstBytes in) override;
    Result<void> flush() override;
    Result<void> discard(std::uint64_t offset, std::uint64_t length) override { return base_->discard(offset, length); }
    bool has_lost() const override { return lost_.load(); }
    bool read_only() const override { return base_->read_only(); }
    void keep_openers_waiting() override { base_->keep_openers_waiting(); }
    std::string name() const override { return base_->name(); }

    // Those that wait for their turn now.
    unsigned waiting() const { return waiting_.load(); }

private:
    bool try_enter() { return !busy_.exchange(true); }
    // False: a flush that began after the first `seen` ones is over, and covers the caller's writes.
    bool enter(std::uint64_t seen, SourceLocation where);
    void leave();
    struct Turn {
        FlushOrderDevice& device;
        ~Turn() { device.leave(); }
    };

    std::shared_ptr<BlockDevice> base_;
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
Result<void> make_durable(BlockDevice& device);

}  // namespace uext4
