#include "device/overlay_device.h"

#include <algorithm>

namespace uext4 {

Result<void> OverlayDevice::read_with(Reader reader, std::uint64_t offset, Bytes out) {
    TRY(check_range(*this, "read", offset, out.size()));
    constexpr std::uint64_t page = SparsePages::page_size;
    // In runs that come from one of the two, so that the base need not be readable where it is covered.
    while (!out.empty()) {
        const bool covered = pages_.has_page(offset / page);
        std::uint64_t end = round_down(offset, page) + page;
        while (end < offset + out.size() && pages_.has_page(end / page) == covered) end += page;
        const Bytes run = out.first(std::min<std::uint64_t>(end - offset, out.size()));
        if (covered) pages_.read(offset, run);
        else TRY(((*base_).*reader)(offset, run));
        offset += run.size();
        out = out.subspan(run.size());
    }
    return {};
}

Result<void> OverlayDevice::read(std::uint64_t offset, Bytes out) { return read_with(&BlockDevice::read, offset, out); }

Result<void> OverlayDevice::read_from_medium(std::uint64_t offset, Bytes out) {
    return read_with(&BlockDevice::read_from_medium, offset, out);
}

Result<void> OverlayDevice::write(std::uint64_t offset, ConstBytes in) {
    TRY(check_writable_range(*this, "write", offset, in.size()));
    return pages_.write_with_fill(offset, in, [&](std::uint64_t index, SparsePages::Page& page) -> Result<void> {
        const std::uint64_t start = index * SparsePages::page_size;
        return base_->read(start, Bytes(page).first(std::min<std::uint64_t>(page.size(), size() - start)));
    });
}

Result<void> OverlayDevice::write_fua(std::uint64_t offset, ConstBytes in) { return write(offset, in); }

Result<void> OverlayDevice::flush() { return {}; }

std::string OverlayDevice::name() const { return base_->name(); }

}  // namespace uext4
