#include "tests/doubles/recording_device.h"

#include <algorithm>
#include <utility>

namespace uext4 {

const char* recorded_kind_name(RecordedWrite::Kind kind) {
    switch (kind) {
        case RecordedWrite::Kind::Write: return "write";
        case RecordedWrite::Kind::Fua: return "fua";
        case RecordedWrite::Kind::Flush: return "flush";
        case RecordedWrite::Kind::Discard: return "discard";
        case RecordedWrite::Kind::Mark: return "mark";
    }
    return "?";
}

void RecordingDevice::mark(std::string label) {
    RecordedWrite entry;
    entry.kind = RecordedWrite::Kind::Mark;
    entry.label = std::move(label);
    MutexLock guard(lock_);
    log_.push_back(std::move(entry));
}

std::size_t RecordingDevice::log_size() const {
    MutexLock guard(lock_);
    return log_.size();
}

std::vector<RecordedWrite> RecordingDevice::log() const {
    MutexLock guard(lock_);
    return log_;
}

std::vector<RecordedWrite> RecordingDevice::take_log() {
    MutexLock guard(lock_);
    return std::exchange(log_, {});
}

Result<void> RecordingDevice::apply(const RecordedWrite& entry, BlockDevice& onto) {
    if (entry.kind != RecordedWrite::Kind::Write && entry.kind != RecordedWrite::Kind::Fua) return {};
    return onto.write(entry.offset, entry.data);
}

Result<void> RecordingDevice::replay(const std::vector<RecordedWrite>& log, std::size_t count, BlockDevice& onto) {
    for (std::size_t i = 0; i < std::min(count, log.size()); ++i) TRY(apply(log[i], onto));
    return {};
}

// The order that matters: a write may be in any crash state from before it reaches the base, so it is logged first.
// A flush promises something only once the base has done it, and only for what came before it began: it is logged when
// it has ended, at the place where it began.
Result<void> RecordingDevice::record_write(RecordedWrite::Kind kind, std::uint64_t offset, ConstBytes in) {
    TRY(check_writable_range(*this, "write", offset, in.size()));
    RecordedWrite entry;
    entry.kind = kind;
    entry.offset = offset;
    entry.length = in.size();
    entry.data.assign(in.begin(), in.end());
    MutexLock guard(lock_);
    log_.push_back(std::move(entry));
    return {};
}

Result<void> RecordingDevice::read(std::uint64_t offset, Bytes out) { return base_->read(offset, out); }

Result<void> RecordingDevice::read_from_medium(std::uint64_t offset, Bytes out) {
    return base_->read_from_medium(offset, out);
}

Result<void> RecordingDevice::write(std::uint64_t offset, ConstBytes in) {
    TRY(record_write(RecordedWrite::Kind::Write, offset, in));
    return base_->write(offset, in);
}

Result<void> RecordingDevice::write_fua(std::uint64_t offset, ConstBytes in) {
    TRY(record_write(RecordedWrite::Kind::Fua, offset, in));
    return base_->write_fua(offset, in);
}

Result<void> RecordingDevice::flush() {
    std::size_t covered;
    {
        MutexLock guard(lock_);
        covered = log_.size();
    }
    TRY(base_->flush());
    RecordedWrite entry;
    entry.kind = RecordedWrite::Kind::Flush;
    MutexLock guard(lock_);
    log_.insert(log_.begin() + static_cast<std::ptrdiff_t>(std::min(covered, log_.size())), std::move(entry));
    return {};
}

Result<void> RecordingDevice::discard(std::uint64_t offset, std::uint64_t length) {
    TRY(check_writable_range(*this, "discard", offset, length));
    RecordedWrite entry;
    entry.kind = RecordedWrite::Kind::Discard;
    entry.offset = offset;
    entry.length = length;
    {
        MutexLock guard(lock_);
        log_.push_back(std::move(entry));
    }
    return base_->discard(offset, length);
}

}  // namespace uext4
