#include "device/file_device.h"

#include "device/holders.h"
#include "device/host_use.h"
#include "sync/scheduler.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

namespace uext4 {

namespace {

constexpr std::size_t vectors_per_call = 256;

// What is left of a scatter list, handed to the kernel in batches.
template <class Part>
class Vectors {
public:
    explicit Vectors(std::span<const Part> parts) : parts_(parts) { skip_empty(); }

    bool done() const { return index_ == parts_.size(); }

    std::span<iovec> batch() {
        std::size_t count = 0;
        std::uint64_t within = within_;
        for (std::size_t i = index_; i < parts_.size() && count < vectors_per_call; ++i, within = 0) {
            if (parts_[i].size() == within) continue;
            vectors_[count++] = {const_cast<std::byte*>(parts_[i].data()) + within, parts_[i].size() - within};
        }
        return {vectors_.data(), count};
    }

    void advance(std::uint64_t bytes) {
        while (bytes > 0) {
            const std::uint64_t left = parts_[index_].size() - within_;
            const std::uint64_t step = bytes < left ? bytes : left;
            within_ += step;
            bytes -= step;
            skip_empty();
        }
    }

private:
    void skip_empty() {
        while (index_ < parts_.size() && within_ == parts_[index_].size()) {
            ++index_;
            within_ = 0;
        }
    }

    std::span<const Part> parts_;
    std::size_t index_ = 0;
    std::uint64_t within_ = 0;
    std::array<iovec, vectors_per_call> vectors_;
};

template <class Part>
std::uint64_t total_size(std::span<const Part> parts) {
    std::uint64_t total = 0;
    for (const Part& part : parts) total += part.size();
    return total;
}

// Announces a request to a schedule explorer at both ends.
struct RequestPoints {
    const void* device;
    const char* what;
    RequestPoints(const void* d, const char* w) : device(d), what(w) { schedule_point(Point::IoStart, what, device); }
    ~RequestPoints() { schedule_point(Point::IoComplete, what, device); }
};

}  // namespace

// Tries again what another user of the image refuses, until the time is over that all attempts together have.
class FileDevice::LockTimeout {
public:
    explicit LockTimeout(const FileDeviceOptions& options) : options_(options) {}

    // `in_vain`: nobody but this process could end what refuses the attempt.
    template <class Attempt, class InVain>
    auto operator()(Attempt attempt, InVain in_vain) -> decltype(attempt()) {
        for (bool again = false;; again = true) {
            auto result = attempt();
            if (result || result.error().code != EBUSY || (!again && in_vain())) return result;
            const auto waited = Clock::now() - begin_;
            if (waited >= options_.lock_timeout) {
                if (options_.lock_timeout.count() > 0)
                    result.error().what += fmt::format("; waited {:g} seconds for it",
                                                       std::chrono::duration<double>(options_.lock_timeout).count());
                return result;
            }
            if (waited >= until_told && !std::exchange(told_, true) && options_.on_wait)
                options_.on_wait(fmt::format("{}; waiting for it, at most {:g} seconds", result.error().what,
                                             std::chrono::duration<double>(options_.lock_timeout).count()));
            std::this_thread::sleep_for(std::min<Clock::duration>(pause_, options_.lock_timeout - waited));
            pause_ = std::min(pause_ * 2, longest_pause);
        }
    }
    template <class Attempt>
    auto operator()(Attempt attempt) -> decltype(attempt()) {
        return (*this)(attempt, [] { return false; });
    }

private:
    using Clock = std::chrono::steady_clock;
    static constexpr std::chrono::milliseconds until_told{1000}, longest_pause{50};
    const FileDeviceOptions& options_;
    const Clock::time_point begin_ = Clock::now();
    std::chrono::milliseconds pause_{5};
    bool told_ = false;
};

Result<std::unique_ptr<FileDevice>> FileDevice::open(const std::string& path, const FileDeviceOptions& options) {
    LockTimeout patience(options);
    const int fd = TRY(patience([&] { return open_image(path, options.writable); }));
    std::unique_ptr<FileDevice> device(new FileDevice(fd, options.name.empty() ? path : options.name));
    TRY(device->prepare(options, patience));
    return device;
}

Result<std::unique_ptr<FileDevice>> FileDevice::adopt(int fd, std::string name, const FileDeviceOptions& options) {
    std::unique_ptr<FileDevice> device(new FileDevice(fd, std::move(name)));
    const int flags = fcntl(fd, F_GETFL);
    if (flags < 0) return fail(errno, "{}: descriptor {}: {}", device->name_, fd, std::strerror(errno));
    FileDeviceOptions possible = options;
    if ((flags & O_ACCMODE) != O_RDWR) possible.writable = false;
    LockTimeout patience(possible);
    TRY(device->prepare(possible, patience));
    return device;
}

FileDevice::~FileDevice() {
    unlock_backing_files();
    unlock_file(fd_);
    // Somebody may have been given the descriptor.
    if (leased_) fcntl(fd_, F_SETLEASE, F_UNLCK);
    close(fd_);
}

// A lease makes the kernel ask its holder before it lets anybody else open the file, and hold them until the lease is
// gone, or for 45 seconds. Nobody may have the file open yet.
void FileDevice::request_lease() {
    if (writable_ && !block_device_) leased_ = fcntl(fd_, F_SETLEASE, F_WRLCK) == 0;
}

void FileDevice::downgrade_to_read_only() {
    // A lock of the same bytes takes the place of the exclusive one; if that fails, readers are kept out as before.
    if (std::exchange(writable_, false) && locked_) (void)lock_file(fd_, false, offset_, locked_length_, name_);
}

void FileDevice::unlock_backing_files() {
    for (const int file : std::exchange(backing_files_, {})) {
        unlock_file(file);
        close(file);
    }
}

Result<void> FileDevice::prepare(const FileDeviceOptions& options, LockTimeout& patience) {
    struct stat info{};
    if (fstat(fd_, &info) != 0) return fail(errno, "{}: fstat: {}", name_, std::strerror(errno));
    std::uint64_t whole = 0;
    if (S_ISREG(info.st_mode)) {
        whole = static_cast<std::uint64_t>(info.st_size);
    } else if (S_ISBLK(info.st_mode)) {
        block_device_ = true;
        if (ioctl(fd_, BLKGETSIZE64, &whole) != 0)
            return fail(errno, "{}: its size cannot be read: {}", name_, std::strerror(errno));
        int is_read_only = 0;
        if (options.writable && ioctl(fd_, BLKROGET, &is_read_only) == 0 && is_read_only)
            return fail(EROFS, "{}: the device is read-only", name_);
    } else {
        return fail(EINVAL, "{}: neither a regular file nor a block device", name_);
    }
    if (options.offset > whole || options.length > whole - options.offset)
        return fail(EINVAL, "{}: a view of {} bytes at {} is outside of its {} bytes", name_, options.length,
                    options.offset, whole);
    writable_ = options.writable;
    offset_ = options.offset;
    length_ = options.length != 0 ? options.length : whole - options.offset;
    rlimit largest{};
    if (writable_ && !block_device_ && getrlimit(RLIMIT_FSIZE, &largest) == 0 && largest.rlim_cur < offset_ + length_)
        return fail(EFBIG, "{}: has {} bytes, and the process may write to the first {} of a file (RLIMIT_FSIZE)",
                    name_, offset_ + length_, largest.rlim_cur);
    if (offset_ == 0 && length_ == whole)
        if (Result<PartitionTable> table = PartitionTable::prepare(fd_, name_))
            table_ = std::make_unique<PartitionTable>(std::move(*table));
    return lock_image(options, patience);
}

// Keeps others out, or finds that they keep this process out.
Result<void> FileDevice::lock_image(const FileDeviceOptions& options, LockTimeout& patience) {
    if (options.lock) {
        TRY(patience([&] { return lock_file(fd_, writable_, offset_, options.length, name_); },
                     [&] { return this_process_holds(fd_, writable_, {offset_, options.length}); }));
        locked_ = true;
        locked_length_ = options.length;
        TRY(patience([&] {
            unlock_backing_files();
            return lock_loop_backing_files(fd_, writable_, offset_, options.length, name_, backing_files_);
        }));
    }
    if (writable_ && options.refuse_mounted)
        TRY(patience([&] { return refuse_if_mounted(fd_, offset_, options.length, name_); }));
    return {};
}

Result<void> FileDevice::read(std::uint64_t offset, Bytes out) {
    return readv(offset, std::span<const Bytes>(&out, 1));
}

Result<void> FileDevice::write(std::uint64_t offset, ConstBytes in) {
    return writev(offset, std::span<const ConstBytes>(&in, 1));
}

Result<void> FileDevice::readv(std::uint64_t offset, std::span<const Bytes> parts) {
    TRY(check_range(*this, "read", offset, total_size(parts)));
    RequestPoints points(this, "read");
    Vectors<Bytes> left(parts);
    for (std::uint64_t at = offset_ + offset; !left.done();) {
        const std::span<iovec> batch = left.batch();
        const ssize_t got = preadv(fd_, batch.data(), static_cast<int>(batch.size()), static_cast<off_t>(at));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail(errno, "{}: read at {}: {}", name_, at - offset_, std::strerror(errno));
        if (got == 0) return fail(EIO, "{}: read at {}: the file has become shorter", name_, at - offset_);
        left.advance(static_cast<std::uint64_t>(got));
        at += static_cast<std::uint64_t>(got);
    }
    return {};
}

Result<void> FileDevice::writev(std::uint64_t offset, std::span<const ConstBytes> parts) {
    TRY(check_writable_range(*this, "write", offset, total_size(parts)));
    RequestPoints points(this, "write");
    Vectors<ConstBytes> left(parts);
    for (std::uint64_t at = offset_ + offset; !left.done();) {
        const std::span<iovec> batch = left.batch();
        const ssize_t put = pwritev(fd_, batch.data(), static_cast<int>(batch.size()), static_cast<off_t>(at));
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return fail(errno, "{}: write at {}: {}", name_, at - offset_, std::strerror(errno));
        if (put == 0) return fail(EIO, "{}: write at {}: nothing was written", name_, at - offset_);
        left.advance(static_cast<std::uint64_t>(put));
        at += static_cast<std::uint64_t>(put);
    }
    return {};
}

Result<void> FileDevice::write_fua(std::uint64_t offset, ConstBytes in) {
    TRY(check_writable_range(*this, "write", offset, in.size()));
    {
        RequestPoints points(this, "fua");
        for (std::uint64_t at = offset_ + offset; !in.empty();) {
            iovec vector{const_cast<std::byte*>(in.data()), in.size()};
            const ssize_t put = pwritev2(fd_, &vector, 1, static_cast<off_t>(at), RWF_DSYNC);
            if (put < 0 && errno == EINTR) continue;
            if (put < 0 && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL)) break;
            if (put < 0) return fail(errno, "{}: write at {}: {}", name_, at - offset_, std::strerror(errno));
            if (put == 0) return fail(EIO, "{}: write at {}: nothing was written", name_, at - offset_);
            in = in.subspan(static_cast<std::size_t>(put));
            at += static_cast<std::uint64_t>(put);
            offset += static_cast<std::uint64_t>(put);
        }
    }
    // Whoever cannot write through flushes.
    return in.empty() ? Result<void>{} : BlockDevice::write_fua(offset, in);
}

Result<void> FileDevice::flush() {
    if (!writable_) return {};
    RequestPoints points(this, "flush");
    // Never grown or shrunk here, so the data and what is needed to find it is all there is.
    while (fdatasync(fd_) != 0)
        if (errno != EINTR) return fail(errno, "{}: flush: {}", name_, std::strerror(errno));
    return {};
}

Result<void> FileDevice::discard(std::uint64_t offset, std::uint64_t length) {
    TRY(check_writable_range(*this, "discard", offset, length));
    RequestPoints points(this, "discard");
    std::uint64_t start = offset_ + offset;
    std::uint64_t end = start + length;
    int code = 0;
    if (block_device_) {
        int sector = 512;
        if (ioctl(fd_, BLKSSZGET, &sector) != 0 || sector <= 0) sector = 512;
        start = round_up(start, static_cast<std::uint64_t>(sector));
        end = round_down(end, static_cast<std::uint64_t>(sector));
        if (start >= end) return {};
        std::uint64_t range[2] = {start, end - start};
        while ((code = ioctl(fd_, BLKDISCARD, range)) != 0 && errno == EINTR) {
        }
    } else {
        if (start >= end) return {};
        while ((code = fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(start),
                                 static_cast<off_t>(end - start))) != 0 &&
               errno == EINTR) {
        }
    }
    if (code != 0) return fail(errno, "{}: discard of {} bytes at {}: {}", name_, length, offset, std::strerror(errno));
    return {};
}

Result<void> FileDevice::read_from_medium(std::uint64_t offset, Bytes out) {
    TRY(check_range(*this, "read", offset, out.size()));
    if (out.empty()) return {};
    // Direct reads need alignment that no caller promises: a wider window is read into a buffer of its own.
    constexpr std::uint64_t alignment = 4096;
    const std::uint64_t first = offset_ + offset;
    const std::uint64_t start = round_down(first, alignment);
    const std::uint64_t window = round_up(first + out.size(), alignment) - start;
    const std::string path = fmt::format("/proc/self/fd/{}", fd_);
    const int direct = ::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC | O_NONBLOCK);
    std::unique_ptr<void, void (*)(void*)> buffer(direct < 0 ? nullptr : std::aligned_alloc(alignment, window), &free);
    bool served = false;
    if (direct >= 0 && buffer) {
        RequestPoints points(this, "direct read");
        ssize_t got;
        do got = pread(direct, buffer.get(), window, static_cast<off_t>(start));
        while (got < 0 && errno == EINTR);
        if (got >= 0 && static_cast<std::uint64_t>(got) >= first - start + out.size()) {
            std::memcpy(out.data(), static_cast<std::byte*>(buffer.get()) + (first - start), out.size());
            served = true;
        }
    }
    if (direct >= 0) close(direct);
    if (served) return {};
    // Without direct reads: ask the cache to forget what it can, then take what is there.
    posix_fadvise(fd_, static_cast<off_t>(start), static_cast<off_t>(window), POSIX_FADV_DONTNEED);
    return read(offset, out);
}

}  // namespace uext4
