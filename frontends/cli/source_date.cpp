#include "cli/source_date.h"

#include "cli/session.h"
#include "inode/attributes.h"

#include <charconv>
#include <cstdlib>
#include <string_view>

namespace uext4::cli {

Result<std::optional<std::int64_t>> source_date_epoch() {
    constexpr std::uint64_t latest = 0x37FFFFFFF;  // the last second of an inode's times
    const char* const text = std::getenv("SOURCE_DATE_EPOCH");
    if (!text) return std::nullopt;
    const std::string_view digits(text);
    std::uint64_t seconds = 0;
    const auto [end, error] = std::from_chars(digits.begin(), digits.end(), seconds);
    if (end != digits.end() || digits.empty() || error == std::errc::invalid_argument)
        return fail(EINVAL, "SOURCE_DATE_EPOCH: '{}' is no decimal number of seconds since 1970", digits);
    if (error != std::errc() || seconds > latest)
        return fail(EINVAL, "SOURCE_DATE_EPOCH: '{}' is too late, at most {}", digits, latest);
    return static_cast<std::int64_t>(seconds);
}

format::Timestamp present_time() {
    const Result<std::optional<std::int64_t>> epoch = source_date_epoch();
    if (!epoch) fail_with(exit_failure, epoch.error().what);
    return *epoch ? format::Timestamp{**epoch, 0} : current_time();
}

}  // namespace uext4::cli
