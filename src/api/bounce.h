// Reads into and writes from memory that is itself a map of a file. The bytes go through a buffer of our own, and the
// program's memory is touched with no lock held: its fault may need any of them.
#pragma once

#include "api/transfer_buffer.h"
#include "base/bytes.h"
#include "base/result.h"

#include <functional>
#include <memory>
#include <optional>
#include <span>

namespace uext4 {

// `read(done, part)` fills a part of at most `out`; its count. An access of `out` that is refused ends the transfer:
// the bytes before it, or EFAULT.
Result<std::size_t> read_through_bounce_buffer(Bytes out,
                                               const std::function<Result<std::size_t>(std::size_t, Bytes)>& read);

// The bytes of a write, in pieces that can be touched with locks held: a large part as it is, small ones joined and
// maps of files copied, in a buffer of bounded size that is aligned for direct requests.
class BounceGather {
public:
    explicit BounceGather(std::span<const ConstBytes> parts);
    ~BounceGather();
    BounceGather(const BounceGather&) = delete;
    // Valid until the next call; empty at the end. EFAULT where a map refuses to be read.
    Result<ConstBytes> next_part();

private:
    Result<void> allocate_buffer();

    std::span<const ConstBytes> parts_;
    std::size_t inside_ = 0;  // of the first part, what was handed out
    bool with_maps_;
    std::optional<TransferBuffer> taken_;
    Bytes room_;  // in one of these, made when it is needed
    std::unique_ptr<class PageBuffer> pages_;
    std::unique_ptr<std::byte[]> memory_;
};

}  // namespace uext4
