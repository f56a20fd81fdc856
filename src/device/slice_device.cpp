#include "device/slice_device.h"

namespace uext4 {

namespace {

template <class Part>
std::uint64_t total_size(std::span<const Part> parts) {
    std::uint64_t total = 0;
    for (const Part& part : parts) total += part.size();
    return total;
}

}  // namespace

Result<std::unique_ptr<SliceDevice>> SliceDevice::make(std::shared_ptr<BlockDevice> base, std::uint64_t offset,
                                                       std::uint64_t length) {
    TRY(check_range(*base, "slice", offset, length));
    return std::unique_ptr<SliceDevice>(new SliceDevice(std::move(base), offset, length));
}

Result<void> SliceDevice::read(std::uint64_t offset, Bytes out) {
    TRY(check_range(*this, "read", offset, out.size()));
    return base_->read(offset_ + offset, out);
}

Result<void> SliceDevice::write(std::uint64_t offset, ConstBytes in) {
    TRY(check_range(*this, "write", offset, in.size()));
    return base_->write(offset_ + offset, in);
}

Result<void> SliceDevice::readv(std::uint64_t offset, std::span<const Bytes> parts) {
    TRY(check_range(*this, "read", offset, total_size(parts)));
    return base_->readv(offset_ + offset, parts);
}

Result<void> SliceDevice::writev(std::uint64_t offset, std::span<const ConstBytes> parts) {
    TRY(check_range(*this, "write", offset, total_size(parts)));
    return base_->writev(offset_ + offset, parts);
}

Result<void> SliceDevice::write_fua(std::uint64_t offset, ConstBytes in) {
    TRY(check_range(*this, "write", offset, in.size()));
    return base_->write_fua(offset_ + offset, in);
}

Result<void> SliceDevice::flush() { return base_->flush(); }

Result<void> SliceDevice::discard(std::uint64_t offset, std::uint64_t length) {
    TRY(check_range(*this, "discard", offset, length));
    return base_->discard(offset_ + offset, length);
}

Result<void> SliceDevice::read_from_medium(std::uint64_t offset, Bytes out) {
    TRY(check_range(*this, "read", offset, out.size()));
    return base_->read_from_medium(offset_ + offset, out);
}

std::string SliceDevice::name() const { return fmt::format("{} from {}", base_->name(), offset_); }

}  // namespace uext4
