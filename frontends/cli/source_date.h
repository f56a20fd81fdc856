// SOURCE_DATE_EPOCH: two runs that do the same to equal images give equal images (docs/COMMAND.md).
#pragma once

#include "base/result.h"
#include "format/inode.h"

#include <cstdint>
#include <optional>

namespace uext4::cli {

// What the environment says, in seconds since 1970. EINVAL for what is no number of seconds that an image can hold.
Result<std::optional<std::int64_t>> source_date_epoch();
// The time that a verb which writes takes for the present: that of the environment, or the clock's. The end of the verb
// where the variable is malformed.
format::Timestamp present_time();

}  // namespace uext4::cli
