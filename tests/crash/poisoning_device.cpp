#include "tests/crash/poisoning_device.h"

#include <algorithm>
#include <vector>

namespace uext4::crash {

Result<void> PoisoningDevice::discard(std::uint64_t offset, std::uint64_t length) {
    constexpr std::uint64_t part = 1024;
    const auto is_poison = [](std::byte b) { return b == static_cast<std::byte>(poison); };
    std::vector<std::byte> bytes(length);
    TRY(base_->read(offset, bytes));
    for (std::uint64_t at = 0; at < length;) {
        std::uint64_t end = at;
        while (end < length && !std::ranges::all_of(Bytes(bytes).subspan(end, std::min(part, length - end)), is_poison))
            end += std::min(part, length - end);
        if (end > at) {
            const auto run = Bytes(bytes).subspan(at, end - at);
            std::ranges::fill(run, static_cast<std::byte>(poison));
            TRY(base_->write(offset + at, run));
        }
        at = end + part;
    }
    return {};
}

}  // namespace uext4::crash
