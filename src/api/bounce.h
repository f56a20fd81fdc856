// Reads into and writes from memory that is itself a map of a file. The bytes go through a buffer of our own, and the
// program's memory is touched with no lock held: its fault may need any of them.
#pragma once

#include "base/bytes.h"
#include "base/result.h"

#include <functional>

namespace uext4 {

// `read(done, part)` fills a part of at most `out`; its count. An access of `out` that is refused ends the transfer:
// the bytes before it, or EFAULT.
Result<std::size_t> read_bounced(Bytes out, const std::function<Result<std::size_t>(std::size_t, Bytes)>& read);
Result<std::size_t> write_bounced(ConstBytes in,
                                  const std::function<Result<std::size_t>(std::size_t, ConstBytes)>& write);

}  // namespace uext4
