#include "device/callback_device.h"

#include "base/large_buffer.h"
#include "sync/rank.h"
#include "sync/scheduler.h"

#include <algorithm>
#include <cstring>

namespace uext4 {

namespace {

Result<void> check_status(int status, const std::string& name, const char* what, std::uint64_t offset) {
    if (status == 0) return {};
    const int code = status < 0 ? -status : status;
    return fail(code, "{}: {} at {}: {}", name, what, offset, std::strerror(code));
}

// The functions may be those of a program that keeps the image in a file of another file system of ours.
int apart(const auto& function) {
    const RankSuspension none_of_these;
    return function();
}

// Requests cost a slow or distant device more than copies: how much is gathered for one.
constexpr std::size_t gathered_bytes = 256 << 10;

// How many of the parts, at least one, go into a request together.
template <typename Part>
std::size_t gathered_parts(std::span<const Part> parts, std::size_t& bytes) {
    std::size_t n = 1;
    for (bytes = parts[0].size(); n < parts.size() && bytes + parts[n].size() <= gathered_bytes; ++n)
        bytes += parts[n].size();
    return n;
}

}  // namespace

CallbackDevice::CallbackDevice(std::uint64_t size, DeviceCallbacks callbacks, std::string name)
    : size_(size), callbacks_(std::move(callbacks)), name_(std::move(name)) {}

CallbackDevice::~CallbackDevice() {
    if (callbacks_.close) callbacks_.close();
}

Result<void> CallbackDevice::read(std::uint64_t offset, Bytes out) {
    TRY(check_range(*this, "read", offset, out.size()));
    if (!callbacks_.read) return fail(ENOTSUP, "{}: it has no function to read with", name_);
    schedule_point(Point::IoStart, "read", this);
    const int status = apart([&] { return callbacks_.read(offset, out.data(), out.size()); });
    schedule_point(Point::IoComplete, "read", this);
    return check_status(status, name_, "read", offset);
}

Result<void> CallbackDevice::write(std::uint64_t offset, ConstBytes in) {
    TRY(check_writable_range(*this, "write", offset, in.size()));
    schedule_point(Point::IoStart, "write", this);
    const int status = apart([&] { return callbacks_.write(offset, in.data(), in.size()); });
    schedule_point(Point::IoComplete, "write", this);
    return check_status(status, name_, "write", offset);
}

Result<void> CallbackDevice::readv(std::uint64_t offset, std::span<const Bytes> parts) {
    while (!parts.empty()) {
        std::size_t bytes = 0;
        const std::size_t n = gathered_parts(parts, bytes);
        if (n == 1) {
            TRY(read(offset, parts[0]));
        } else {
            LargeBuffer all(bytes);
            TRY(read(offset, Bytes(all)));
            ConstBytes rest(all);
            for (const Bytes part : parts.first(n)) {
                std::ranges::copy(rest.first(part.size()), part.begin());
                rest = rest.subspan(part.size());
            }
        }
        offset += bytes;
        parts = parts.subspan(n);
    }
    return {};
}

Result<void> CallbackDevice::writev(std::uint64_t offset, std::span<const ConstBytes> parts) {
    while (!parts.empty()) {
        std::size_t bytes = 0;
        const std::size_t n = gathered_parts(parts, bytes);
        if (n == 1) {
            TRY(write(offset, parts[0]));
        } else {
            LargeBuffer all(bytes);
            std::byte* at = all.data();
            for (const ConstBytes part : parts.first(n)) at = std::ranges::copy(part, at).out;
            TRY(write(offset, ConstBytes(all)));
        }
        offset += bytes;
        parts = parts.subspan(n);
    }
    return {};
}

Result<void> CallbackDevice::write_fua(std::uint64_t offset, ConstBytes in) {
    if (!callbacks_.write_fua || read_only()) return BlockDevice::write_fua(offset, in);
    TRY(check_writable_range(*this, "write", offset, in.size()));
    schedule_point(Point::IoStart, "fua", this);
    const int status = apart([&] { return callbacks_.write_fua(offset, in.data(), in.size()); });
    schedule_point(Point::IoComplete, "fua", this);
    return check_status(status, name_, "write", offset);
}

Result<void> CallbackDevice::flush() {
    if (!callbacks_.flush) return {};
    schedule_point(Point::IoStart, "flush", this);
    const int status = apart([&] { return callbacks_.flush(); });
    schedule_point(Point::IoComplete, "flush", this);
    return check_status(status, name_, "flush", 0);
}

Result<void> CallbackDevice::discard(std::uint64_t offset, std::uint64_t length) {
    TRY(check_writable_range(*this, "discard", offset, length));
    if (!callbacks_.discard) return BlockDevice::discard(offset, length);
    const int status = apart([&] { return callbacks_.discard(offset, length); });
    return check_status(status, name_, "discard", offset);
}

}  // namespace uext4
