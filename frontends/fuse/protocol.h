// What of the kernel's protocol libfuse 3.14 does not pass on: who asks, before the request is worked on; who takes
// set-id bits away (FUSE_HANDLE_KILLPRIV_V2); files without a name (FUSE_TMPFILE); when a file was made (FUSE_STATX).
//
// Without the agreement on set-id bits the kernel asks for security.capability at each write(2) and for the attributes
// at each chown(2): a round trip per call, where the call itself ends in the kernel's cache. So the two ends of the
// conversation are looked at on their way through libfuse, and the agreement is added to its greeting. The two requests
// that libfuse does not know go through it as the older ones that begin alike.
// Source: include/uapi/linux/fuse.h.
#pragma once

#include "fuse/library.h"

#include <linux/fuse.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <atomic>
#include <cstdint>
#include <optional>

namespace uext4::fuse {

class Protocol {
public:
    // The reading thread has received this request, and is about to give it to libfuse.
    void note(const fuse_buf& request);
    // It only says what the kernel holds no longer: of no request read before it.
    static bool lets_go(const fuse_buf& request);
    // The kernel's own: what it writes of its cache, and what it lets go. Others may wait for it with locks held.
    static bool is_of_the_kernel(const fuse_buf& request);
    // An answer that says nothing but why there is none.
    static fuse_out_header refusal(const fuse_buf& request, int error);
    // Of the request noted last: the thread that waits for the answer (0: what the kernel does on its own; none of much
    // data, which it asks for ahead), and whether the change that it asks for takes set-id bits.
    std::optional<pid_t> caller() const { return caller_; }
    bool takes_set_ids() const { return takes_set_ids_; }
    // FUSE_TMPFILE, which arrives as FUSE_CREATE: the name says nothing.
    bool makes_unnamed() const { return makes_unnamed_; }
    // The number of a FUSE_STATX, which arrives as FUSE_GETATTR: its answer is a StatxAnswer.
    std::optional<std::uint64_t> statx() const { return statx_; }
    struct StatxAnswer {
        fuse_out_header header;
        std::uint64_t valid_seconds;
        std::uint32_t valid_nanoseconds, flags;
        std::uint64_t spare[2];
        struct statx attributes;
    };
    // `valid`: seconds. `born`: when the file was made, where that is known.
    static StatxAnswer answer_statx(std::uint64_t number, const struct stat& attributes, double valid,
                                    std::optional<timespec> born);
    // Of what libfuse sends: an answer to a request, and nothing that the kernel is told unasked.
    static bool answers(const iovec* parts, int count);
    // In the place of writev(2), for all that libfuse sends.
    ssize_t send(int fd, iovec* parts, int count);

private:
    // Adds to the greeting what was agreed on.
    void complete(iovec* parts, int count);

    std::optional<pid_t> caller_;
    bool takes_set_ids_ = false, makes_unnamed_ = false;
    std::optional<std::uint64_t> statx_;
    bool kernel_agrees_ = false;
    std::uint64_t greeting_ = 0;        // its number
    std::atomic<bool> greeted_{false};  // answers come from many threads after it
};

}  // namespace uext4::fuse
