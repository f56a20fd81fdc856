// Features that a file system gets when something first needs them, as Linux gives them: programs that know less would
// take what they stand for as damage.
#pragma once

#include "extent_status/fs_context.h"

namespace uext4 {

// An extended attribute is stored. One credit.
Result<void> enable_ext_attr(FsContext& fs, Handle& handle);
// A size of 2 GiB or more is stored. One credit.
Result<void> enable_large_file(FsContext& fs, Handle& handle);

inline constexpr std::uint64_t max_small_file_size = 0x7FFFFFFF;

}  // namespace uext4
