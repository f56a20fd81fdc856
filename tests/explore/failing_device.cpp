#include "tests/explore/failing_device.h"

#include <algorithm>

namespace uext4::explore {

// A device does nothing to what it says it has not read or written. (Torn writes are for the crash states.)
Result<void> FailingDevice::may_fail(const char* what, bool may, bool& for_good, std::source_location where) {
    if (may && !for_good && failed_ < plan_.times) {
        const int chosen = scheduler_.choose_error(what, where);
        if (chosen == 0) return {};
        ++failed_;
        for_good = chosen == 2;
        return fail(EIO, "{}: {} failed", name(), what);
    }
    if (may && for_good) return fail(EIO, "{}: {} fails", name(), what);
    return {};
}

Result<void> FailingDevice::may_fail_write(const char* what, std::uint64_t offset, std::uint64_t length,
                                           std::source_location where) {
    if (next_failing_ && offset <= *next_failing_ && *next_failing_ < offset + length) {
        next_failing_.reset();
        return fail(EIO, "{}: {} failed", name(), what);
    }
    return may_fail(what, plan_.writes && touches(offset, length), writes_fail_, where);
}

bool FailingDevice::touches(std::uint64_t offset, std::uint64_t length) const {
    if (plan_.where == MayFail::Where::anywhere) return true;
    const bool log = std::ranges::any_of(
        log_, [&](const Range& r) { return offset < r.offset + r.length && r.offset < offset + length; });
    return log == (plan_.where == MayFail::Where::log);
}

Result<void> FailingDevice::read(std::uint64_t offset, Bytes out) {
    TRY(may_fail("read", plan_.reads && touches(offset, out.size()), reads_fail_, std::source_location::current()));
    return base_->read(offset, out);
}

Result<void> FailingDevice::write_and_keep_before(std::uint64_t offset, ConstBytes in) {
    if (!plan_.flushes && !plan_.cuts_lose) return base_->write(offset, in);
    const std::uint64_t number = ++begun_;
    Before before{number, 0, offset, std::vector<std::byte>(in.size())};
    TRY(base_->read(offset, before.bytes));
    unflushed_.push_back(std::move(before));
    Result<void> written = base_->write(offset, in);
    const auto kept = std::ranges::find(unflushed_, number, &Before::number);
    if (kept != unflushed_.end()) kept->done = ++done_;
    return written;
}

Result<void> FailingDevice::lose_unflushed(MemoryDevice& copy) const {
    for (auto before = unflushed_.rbegin(); before != unflushed_.rend(); ++before)
        TRY(copy.write(before->offset, before->bytes));
    return {};
}

Result<void> FailingDevice::drop_unflushed() {
    while (!unflushed_.empty()) {
        const Before before = std::move(unflushed_.back());
        unflushed_.pop_back();
        TRY(base_->write(before.offset, before.bytes));
    }
    return {};
}

Result<void> FailingDevice::write(std::uint64_t offset, ConstBytes in) {
    TRY(may_fail_write("write", offset, in.size()));
    return write_and_keep_before(offset, in);
}

Result<void> FailingDevice::write_fua(std::uint64_t offset, ConstBytes in) {
    TRY(may_fail_write("durable write", offset, in.size()));
    // It stays, whatever becomes of what was written there before.
    for (Before& before : unflushed_) {
        const std::uint64_t from = std::max(offset, before.offset);
        const std::uint64_t to = std::min(offset + in.size(), before.offset + before.bytes.size());
        if (from < to)
            std::ranges::copy(in.subspan(from - offset, to - from), before.bytes.begin() + (from - before.offset));
    }
    return base_->write_fua(offset, in);
}

Result<void> FailingDevice::flush() {
    if (Result<void> failed = may_fail("flush", plan_.flushes, flushes_fail_, std::source_location::current());
        !failed) {
        TRY(drop_unflushed());
        return failed;
    }
    // Only what was written before it began: what is written meanwhile may be lost still.
    const std::uint64_t before_it = done_;
    TRY(base_->flush());
    std::erase_if(unflushed_, [=](const Before& before) { return before.done != 0 && before.done <= before_it; });
    return {};
}

}  // namespace uext4::explore
