#include "tests/doubles/faulty_device.h"

#include "sync/thread.h"

#include <algorithm>
#include <utility>

namespace uext4 {

namespace {

using Effect = DeviceFault::Effect;
using Kind = DeviceRequest::Kind;

bool concerns(const DeviceFault& fault, const DeviceRequest& request) {
    if (!fault.kinds.empty() && std::find(fault.kinds.begin(), fault.kinds.end(), request.kind) == fault.kinds.end())
        return false;
    if (request.kind == Kind::Flush) return true;
    if (request.offset < fault.offset) return request.length > fault.offset - request.offset;
    return request.offset - fault.offset < fault.length;
}

const char* kind_name(Kind kind) {
    switch (kind) {
        case Kind::Read: return "read";
        case Kind::Write: return "write";
        case Kind::Fua: return "write through";
        case Kind::Flush: return "flush";
        case Kind::Discard: return "discard";
    }
    return "?";
}

std::unexpected<Error> injected(const DeviceFault& fault, const BlockDevice& device, const DeviceRequest& request) {
    return fail(fault.code, "{}: {} of {} bytes at {} fails as told", device.name(), kind_name(request.kind),
                request.length, request.offset);
}

void flip(Bytes data, const DeviceFault& fault) {
    if (fault.bytes < data.size()) data[fault.bytes] ^= static_cast<std::byte>(1u << (fault.bit % 8));
}

DeviceFault failure(std::vector<Kind> kinds, int code, std::uint64_t times, std::uint64_t skip) {
    DeviceFault fault;
    fault.kinds = std::move(kinds);
    fault.code = code;
    fault.times = times;
    fault.skip = skip;
    return fault;
}

}  // namespace

std::uint64_t FaultyDevice::add(DeviceFault fault) {
    MutexLock guard(lock_);
    Armed armed;
    armed.fault = std::move(fault);
    armed.id = next_id_++;
    armed_.push_back(std::move(armed));
    return armed_.back().id;
}

void FaultyDevice::remove(std::uint64_t fault) {
    MutexLock guard(lock_);
    std::erase_if(armed_, [&](const Armed& armed) { return armed.id == fault; });
    released_.notify_all();
}

void FaultyDevice::clear() {
    MutexLock guard(lock_);
    armed_.clear();
    released_.notify_all();
}

std::uint64_t FaultyDevice::fail_reads(int code, std::uint64_t times, std::uint64_t skip) {
    return add(failure({Kind::Read}, code, times, skip));
}

std::uint64_t FaultyDevice::fail_writes(int code, std::uint64_t times, std::uint64_t skip) {
    return add(failure({Kind::Write, Kind::Fua}, code, times, skip));
}

std::uint64_t FaultyDevice::fail_flushes(int code, std::uint64_t times, std::uint64_t skip) {
    return add(failure({Kind::Flush}, code, times, skip));
}

std::uint64_t FaultyDevice::fail_range(Kind kind, std::uint64_t offset, std::uint64_t length, int code) {
    DeviceFault fault = failure({kind}, code, DeviceFault::for_good, 0);
    fault.offset = offset;
    fault.length = length;
    return add(std::move(fault));
}

void FaultyDevice::die(int code) { add(failure({}, code, DeviceFault::for_good, 0)); }

std::uint64_t FaultyDevice::hits(std::uint64_t fault) const {
    MutexLock guard(lock_);
    for (const Armed& armed : armed_)
        if (armed.id == fault) return armed.hits;
    return 0;
}

std::uint64_t FaultyDevice::stuck() const {
    MutexLock guard(lock_);
    return stuck_;
}

void FaultyDevice::release_stuck() {
    MutexLock guard(lock_);
    std::erase_if(armed_, [](const Armed& armed) { return armed.fault.effect == Effect::Stick; });
    released_.notify_all();
}

std::vector<DeviceFault> FaultyDevice::faults_for(const DeviceRequest& request) {
    std::vector<std::pair<std::uint64_t, std::function<bool(const DeviceRequest&)>>> candidates;
    {
        MutexLock guard(lock_);
        for (const Armed& armed : armed_)
            if (concerns(armed.fault, request)) candidates.emplace_back(armed.id, armed.fault.predicate);
    }
    std::erase_if(candidates, [&](const auto& item) { return item.second && !item.second(request); });
    if (candidates.empty()) return {};

    std::vector<std::pair<std::uint64_t, DeviceFault>> hit;
    {
        MutexLock guard(lock_);
        for (Armed& armed : armed_) {
            const bool candidate = std::any_of(candidates.begin(), candidates.end(),
                                               [&](const auto& item) { return item.first == armed.id; });
            if (!candidate || armed.seen++ < armed.fault.skip || armed.hits >= armed.fault.times) continue;
            ++armed.hits;
            hit.emplace_back(armed.id, armed.fault);
        }
    }
    std::vector<DeviceFault> faults;
    for (auto& [id, fault] : hit) {
        if (fault.effect == Effect::Slow) this_thread::sleep(fault.delay);
        else if (fault.effect == Effect::Stick) wait_until_released(id);
        else faults.push_back(std::move(fault));
    }
    return faults;
}

void FaultyDevice::wait_until_released(std::uint64_t id) {
    MutexLock guard(lock_);
    ++stuck_;
    auto armed = [&]() UEXT4_NO_THREAD_SAFETY_ANALYSIS {
        return std::any_of(armed_.begin(), armed_.end(), [&](const Armed& item) { return item.id == id; });
    };
    while (armed()) released_.wait(lock_);
    --stuck_;
}

Result<void> FaultyDevice::read_with(Reader reader, std::uint64_t offset, Bytes out) {
    const DeviceRequest request{Kind::Read, offset, out.size()};
    std::uint64_t from = offset;
    std::vector<DeviceFault> flips;
    for (DeviceFault& fault : faults_for(request)) {
        if (fault.effect == Effect::Fail || fault.effect == Effect::Torn) return injected(fault, *this, request);
        if (fault.effect == Effect::Misdirect) from += fault.bytes;
        if (fault.effect == Effect::BitFlip) flips.push_back(std::move(fault));
    }
    TRY(((*base_).*reader)(from, out));
    for (const DeviceFault& fault : flips) flip(out, fault);
    return {};
}

Result<void> FaultyDevice::write_with(Writer writer, Kind kind, std::uint64_t offset, ConstBytes in) {
    const DeviceRequest request{kind, offset, in.size()};
    std::uint64_t to = offset;
    std::vector<std::byte> changed;
    for (const DeviceFault& fault : faults_for(request)) {
        switch (fault.effect) {
            case Effect::Fail: return injected(fault, *this, request);
            case Effect::Torn:
                TRY(transfer(&BlockDevice::write, Kind::Write, to,
                             in.first(std::min<std::uint64_t>(fault.bytes, in.size()))));
                return injected(fault, *this, request);
            case Effect::Lose: return {};
            case Effect::TearSilent: in = in.first(std::min<std::uint64_t>(fault.bytes, in.size())); break;
            case Effect::Misdirect: to += fault.bytes; break;
            case Effect::BitFlip: {
                std::vector<std::byte> copy(in.begin(), in.end());
                changed.swap(copy);
                flip(changed, fault);
                in = changed;
                break;
            }
            case Effect::Slow:
            case Effect::Stick: break;  // over by now
        }
    }
    return transfer(writer, kind, to, in);
}

Result<void> FaultyDevice::transfer(Writer writer, Kind kind, std::uint64_t offset, ConstBytes in) {
    const bool within = offset <= size() && in.size() <= size() - offset;
    if (failed_flush_ == FailedFlush::Keeps || !within) return ((*base_).*writer)(offset, in);
    MutexLock guard(cache_lock_);
    TRY(keep_flushed(offset, in.size()));
    TRY(((*base_).*writer)(offset, in));
    if (kind == Kind::Fua) flushed_.write(offset, in);
    return {};
}

Result<void> FaultyDevice::keep_flushed(std::uint64_t offset, std::uint64_t length) {
    SparsePages::Page page{};
    const std::uint64_t end = divide_up(offset + length, SparsePages::page_size);
    for (std::uint64_t index = offset / SparsePages::page_size; index < end; ++index) {
        if (flushed_.has_page(index)) continue;
        const std::uint64_t at = index * SparsePages::page_size;
        const Bytes whole = Bytes(page).first(std::min(SparsePages::page_size, size() - at));
        TRY(base_->read(at, whole));
        flushed_.write(at, whole);
    }
    return {};
}

Result<void> FaultyDevice::drop_unflushed() {
    if (failed_flush_ == FailedFlush::Keeps) return {};
    MutexLock guard(cache_lock_);
    Result<void> dropped;
    flushed_.for_each([&](std::uint64_t index, const SparsePages::Page& page) {
        const std::uint64_t at = index * SparsePages::page_size;
        if (dropped) dropped = base_->write(at, ConstBytes(page).first(std::min(SparsePages::page_size, size() - at)));
    });
    if (dropped) flushed_.erase(0, round_up(size(), SparsePages::page_size));
    return dropped;
}

Result<void> FaultyDevice::read(std::uint64_t offset, Bytes out) { return read_with(&BlockDevice::read, offset, out); }

Result<void> FaultyDevice::read_from_medium(std::uint64_t offset, Bytes out) {
    return read_with(&BlockDevice::read_from_medium, offset, out);
}

Result<void> FaultyDevice::write(std::uint64_t offset, ConstBytes in) {
    return write_with(&BlockDevice::write, Kind::Write, offset, in);
}

Result<void> FaultyDevice::write_fua(std::uint64_t offset, ConstBytes in) {
    return write_with(&BlockDevice::write_fua, Kind::Fua, offset, in);
}

Result<void> FaultyDevice::flush() {
    const DeviceRequest request{Kind::Flush, 0, 0};
    for (const DeviceFault& fault : faults_for(request)) {
        if (fault.effect == Effect::Fail || fault.effect == Effect::Torn) {
            TRY(drop_unflushed());
            return injected(fault, *this, request);
        }
        if (fault.effect == Effect::Lose) return {};
    }
    if (failed_flush_ == FailedFlush::Keeps) return base_->flush();
    MutexLock guard(cache_lock_);
    TRY(base_->flush());
    flushed_.erase(0, round_up(size(), SparsePages::page_size));
    return {};
}

Result<void> FaultyDevice::discard(std::uint64_t offset, std::uint64_t length) {
    const DeviceRequest request{Kind::Discard, offset, length};
    for (const DeviceFault& fault : faults_for(request)) {
        if (fault.effect == Effect::Fail || fault.effect == Effect::Torn) return injected(fault, *this, request);
        if (fault.effect == Effect::Lose) return {};
    }
    return base_->discard(offset, length);
}

}  // namespace uext4
