#include "fuse/protocol.h"

#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstring>

namespace uext4::fuse {

namespace {

// A structure of the protocol at the start of `size` bytes; what an older kernel leaves out at its end is zero.
template <typename T>
T leading(const void* bytes, std::size_t size) {
    T out{};
    std::memcpy(&out, bytes, size < sizeof out ? size : sizeof out);
    return out;
}

bool asks_to_take_set_ids(std::uint32_t opcode, const void* body, std::size_t size) {
    switch (opcode) {
        case FUSE_WRITE: return leading<fuse_write_in>(body, size).write_flags & FUSE_WRITE_KILL_SUIDGID;
        case FUSE_SETATTR: return leading<fuse_setattr_in>(body, size).valid & FATTR_KILL_SUIDGID;
        case FUSE_OPEN: return leading<fuse_open_in>(body, size).open_flags & FUSE_OPEN_KILL_SUIDGID;
        case FUSE_CREATE: return leading<fuse_create_in>(body, size).open_flags & FUSE_OPEN_KILL_SUIDGID;
        default: return false;
    }
}

// Of versions 7.37 and 7.39.
constexpr std::uint32_t opcode_tmpfile = 51, opcode_statx = 52;

// What begins as another request goes on as that.
void pass_as(const fuse_buf& request, std::uint32_t opcode) {
    std::memcpy(static_cast<std::byte*>(request.mem) + offsetof(fuse_in_header, opcode), &opcode, sizeof opcode);
}

constexpr std::uint32_t much = 64 << 10;

bool moves_much(std::uint32_t opcode, const void* body, std::size_t size) {
    return (opcode == FUSE_READ && leading<fuse_read_in>(body, size).size >= much) ||
           (opcode == FUSE_WRITE && leading<fuse_write_in>(body, size).size >= much);
}

}  // namespace

void Protocol::note(const fuse_buf& request) {
    caller_.reset();
    statx_.reset();
    takes_set_ids_ = makes_unnamed_ = false;
    if ((request.flags & FUSE_BUF_IS_FD) || request.size < sizeof(fuse_in_header)) return;
    auto header = leading<fuse_in_header>(request.mem, request.size);
    if (header.opcode == opcode_tmpfile) {
        makes_unnamed_ = true;
        pass_as(request, header.opcode = FUSE_CREATE);
    }
    if (header.opcode == opcode_statx) {
        statx_ = header.unique;
        pass_as(request, header.opcode = FUSE_GETATTR);
    }
    const auto* body = static_cast<const std::byte*>(request.mem) + sizeof header;
    const std::size_t size = request.size - sizeof header;
    // Two processors are better than one for those who copy.
    if (!moves_much(header.opcode, body, size)) caller_ = static_cast<pid_t>(header.pid);
    takes_set_ids_ = asks_to_take_set_ids(header.opcode, body, size);
    if (header.opcode != FUSE_INIT) return;
    greeting_ = header.unique;
    const auto offer = leading<fuse_init_in>(body, size);
    // Only with the cache of writes does it say of every change that may take the bits that there was one.
    constexpr std::uint32_t both = FUSE_HANDLE_KILLPRIV_V2 | FUSE_WRITEBACK_CACHE;
    kernel_agrees_ = (offer.flags & both) == both;
}

bool Protocol::lets_go(const fuse_buf& request) {
    if ((request.flags & FUSE_BUF_IS_FD) || request.size < sizeof(fuse_in_header)) return false;
    switch (leading<fuse_in_header>(request.mem, request.size).opcode) {
        case FUSE_FORGET:
        case FUSE_BATCH_FORGET:
        case FUSE_RELEASE:
        case FUSE_RELEASEDIR: return true;
        default: return false;
    }
}

bool Protocol::is_of_the_kernel(const fuse_buf& request) {
    if ((request.flags & FUSE_BUF_IS_FD) || request.size < sizeof(fuse_in_header)) return false;
    const auto* body = static_cast<const std::byte*>(request.mem) + sizeof(fuse_in_header);
    switch (leading<fuse_in_header>(request.mem, request.size).opcode) {
        case FUSE_INIT:
        case FUSE_DESTROY:
        case FUSE_INTERRUPT: return true;
        case FUSE_WRITE:
            return leading<fuse_write_in>(body, request.size - sizeof(fuse_in_header)).write_flags & FUSE_WRITE_CACHE;
        default: return lets_go(request);
    }
}

fuse_out_header Protocol::refusal(const fuse_buf& request, int error) {
    return {sizeof(fuse_out_header), -error, leading<fuse_in_header>(request.mem, request.size).unique};
}

Protocol::StatxAnswer Protocol::answer_statx(std::uint64_t number, const struct stat& attributes, double valid,
                                             std::optional<timespec> born) {
    static_assert(sizeof(StatxAnswer) == sizeof(fuse_out_header) + 32 + 256);
    const auto time_of = [](const timespec& time) {
        struct statx_timestamp out{};
        out.tv_sec = time.tv_sec;
        out.tv_nsec = static_cast<std::uint32_t>(time.tv_nsec);
        return out;
    };
    StatxAnswer answer{};
    answer.header = {sizeof answer, 0, number};
    answer.valid_seconds = static_cast<std::uint64_t>(valid);
    answer.valid_nanoseconds = static_cast<std::uint32_t>((valid - std::floor(valid)) * 1e9);
    struct statx& told = answer.attributes;
    told.stx_mask = STATX_BASIC_STATS;
    told.stx_blksize = static_cast<std::uint32_t>(attributes.st_blksize);
    told.stx_nlink = static_cast<std::uint32_t>(attributes.st_nlink);
    told.stx_uid = attributes.st_uid;
    told.stx_gid = attributes.st_gid;
    told.stx_mode = static_cast<std::uint16_t>(attributes.st_mode);
    told.stx_ino = attributes.st_ino;
    told.stx_size = static_cast<std::uint64_t>(attributes.st_size);
    told.stx_blocks = static_cast<std::uint64_t>(attributes.st_blocks);
    told.stx_atime = time_of(attributes.st_atim);
    told.stx_mtime = time_of(attributes.st_mtim);
    told.stx_ctime = time_of(attributes.st_ctim);
    told.stx_rdev_major = major(attributes.st_rdev);
    told.stx_rdev_minor = minor(attributes.st_rdev);
    if (born) {
        told.stx_mask |= STATX_BTIME;
        told.stx_btime = time_of(*born);
    }
    return answer;
}

void Protocol::complete(iovec* parts, int count) {
    if (greeted_.load(std::memory_order_relaxed) || count < 2 || parts[0].iov_len != sizeof(fuse_out_header)) return;
    fuse_out_header header;
    std::memcpy(&header, parts[0].iov_base, sizeof header);
    if (header.unique != greeting_ || header.error != 0) return;
    greeted_.store(true);
    constexpr std::size_t at = offsetof(fuse_init_out, flags);
    std::uint32_t flags = 0;
    if (!kernel_agrees_ || parts[1].iov_len < at + sizeof flags) return;
    auto* place = static_cast<std::byte*>(parts[1].iov_base) + at;
    std::memcpy(&flags, place, sizeof flags);
    if (flags & FUSE_WRITEBACK_CACHE) flags |= FUSE_HANDLE_KILLPRIV_V2;
    std::memcpy(place, &flags, sizeof flags);
}

bool Protocol::answers(const iovec* parts, int count) {
    if (count < 1 || parts[0].iov_len < sizeof(fuse_out_header)) return false;
    return leading<fuse_out_header>(parts[0].iov_base, parts[0].iov_len).unique != 0;
}

ssize_t Protocol::send(int fd, iovec* parts, int count) {
    complete(parts, count);
    std::array<std::byte, 512> whole;
    std::size_t size = 0;
    for (int i = 0; i < count; ++i) size += parts[i].iov_len;
    if (count == 1) return ::write(fd, parts[0].iov_base, parts[0].iov_len);
    if (size > whole.size()) return ::writev(fd, parts, count);
    // The kernel looks up the pages of each part: of one that is less than a copy more.
    std::size_t at = 0;
    for (int i = 0; i < count; at += parts[i++].iov_len)
        std::memcpy(whole.data() + at, parts[i].iov_base, parts[i].iov_len);
    return ::write(fd, whole.data(), size);
}

}  // namespace uext4::fuse
