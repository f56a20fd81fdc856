// Passes everything on to another device and keeps a log of what changed it, from which crash states are built.
#pragma once

#include "device/block_device.h"
#include "sync/mutex.h"

#include <memory>
#include <string>
#include <vector>

namespace uext4 {

struct RecordedWrite {
    enum class Kind : std::uint8_t { Write, Fua, Flush, Discard, Mark };
    Kind kind = Kind::Write;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::vector<std::byte> data;  // Write and Fua
    std::string label;            // Mark
};
const char* recorded_kind_name(RecordedWrite::Kind kind);

class RecordingDevice final : public BlockDevice {
public:
    explicit RecordingDevice(std::shared_ptr<BlockDevice> base) : base_(std::move(base)) {}

    // A place in the log that a test can find again ("after fsync of a").
    void mark(std::string label);

    std::size_t log_size() const;
    std::vector<RecordedWrite> log() const;
    std::vector<RecordedWrite> take_log();

    // Applies the first `count` entries to a device that holds what the base held when recording began. Discards are
    // skipped: the content may stay.
    static Result<void> replay(const std::vector<RecordedWrite>& log, std::size_t count, BlockDevice& onto);

    // One entry: a write's data, nothing for a flush or mark.
    static Result<void> apply(const RecordedWrite& entry, BlockDevice& onto);

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
    Result<void> record_write(RecordedWrite::Kind kind, std::uint64_t offset, ConstBytes in);

    std::shared_ptr<BlockDevice> base_;
    mutable Mutex lock_{Rank::Leaf, "RecordingDevice::lock"};
    std::vector<RecordedWrite> log_ UEXT4_GUARDED_BY(lock_);
};

}  // namespace uext4
