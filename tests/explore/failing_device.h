// A device whose requests fail where the explorer chooses: a few in each schedule, once or from then on. What a flush
// that fails should have made durable is lost, and no later one tells of it.
#pragma once

#include "tests/doubles/memory_device.h"
#include "tests/explore/token_scheduler.h"

#include <memory>
#include <optional>
#include <source_location>
#include <vector>

namespace uext4::explore {

// What may fail. Only while the bodies of a scenario run; what fails from then on does so until heal().
struct MayFail {
    bool reads = false, writes = false, flushes = false;
    unsigned times = 0;  // in one schedule; 0: nothing fails
    enum class Where : std::uint8_t { anywhere, log, beside_the_log } where = Where::anywhere;
    bool cuts_lose = false;  // a power cut takes all that was not flushed
};

class FailingDevice final : public BlockDevice {
public:
    struct Range {
        std::uint64_t offset, length;
    };
    FailingDevice(std::shared_ptr<MemoryDevice> base, TokenScheduler& scheduler, const MayFail& plan)
        : base_(std::move(base)), scheduler_(scheduler), plan_(plan) {}

    // Where the log lies.
    void set_log(std::vector<Range> log) { log_ = std::move(log); }
    // Takes what was not flushed from a copy of the device.
    Result<void> lose_unflushed(MemoryDevice& copy) const;
    void heal() { writes_fail_ = reads_fail_ = flushes_fail_ = false; }
    // Without a choice: the next write that touches this byte fails, once.
    void fail_next_write_of(std::uint64_t byte) { next_failing_ = byte; }
    unsigned failed() const { return failed_; }  // the choices; what failed since "from now on" is not counted

    std::uint64_t size() const override { return base_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override;
    Result<void> write(std::uint64_t offset, ConstBytes in) override;
    Result<void> write_fua(std::uint64_t offset, ConstBytes in) override;
    Result<void> flush() override;
    bool read_only() const override { return base_->read_only(); }
    std::string name() const override { return base_->name(); }

private:
    Result<void> may_fail_write(const char* what, std::uint64_t offset, std::uint64_t length,
                                std::source_location where = std::source_location::current());
    bool touches(std::uint64_t offset, std::uint64_t length) const;
    Result<void> may_fail(const char* what, bool may, bool& for_good, std::source_location where);
    Result<void> write_and_keep_before(std::uint64_t offset, ConstBytes in);
    Result<void> drop_unflushed();

    std::shared_ptr<MemoryDevice> base_;
    TokenScheduler& scheduler_;
    const MayFail plan_;
    std::vector<Range> log_;
    unsigned failed_ = 0;
    std::optional<std::uint64_t> next_failing_;
    bool writes_fail_ = false, reads_fail_ = false, flushes_fail_ = false;
    // What was there before each write since the last flush; only where it may be lost.
    struct Before {
        std::uint64_t number, done;  // in the order in which writes begin, and end (0: it has not ended)
        std::uint64_t offset;
        std::vector<std::byte> bytes;
    };
    std::vector<Before> unflushed_;
    std::uint64_t begun_ = 0, done_ = 0;
};

}  // namespace uext4::explore
