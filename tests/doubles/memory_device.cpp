#include "tests/doubles/memory_device.h"

#include "sync/scheduler.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <vector>

namespace uext4 {

MemoryDevice::MemoryDevice(std::uint64_t size, std::string name)
    : MemoryDevice(std::make_shared<SparsePages>(), size, std::move(name)) {}

MemoryDevice::MemoryDevice(std::shared_ptr<SparsePages> content, std::uint64_t size, std::string name)
    : content_(std::move(content)), size_(size), name_(std::move(name)) {}

std::unique_ptr<MemoryDevice> MemoryDevice::clone() const {
    return std::make_unique<MemoryDevice>(std::make_shared<SparsePages>(*content_), size_, name_);
}

Result<std::unique_ptr<MemoryDevice>> MemoryDevice::load(const std::string& path) {
    struct Descriptor {
        int fd;
        ~Descriptor() {
            if (fd >= 0) close(fd);
        }
    } file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    struct stat info{};
    if (file.fd < 0 || fstat(file.fd, &info) != 0) return fail(errno, "{}: {}", path, std::strerror(errno));
    if (!S_ISREG(info.st_mode)) return fail(EINVAL, "{}: not a regular file", path);
    const auto size = static_cast<std::uint64_t>(info.st_size);
    auto device = std::make_unique<MemoryDevice>(size, path);
    std::vector<std::byte> buffer(1 << 20);
    for (std::uint64_t at = 0; at < size;) {
        const off_t data = lseek(file.fd, static_cast<off_t>(at), SEEK_DATA);
        if (data < 0 && errno == ENXIO) break;
        if (data > 0) at = round_down(static_cast<std::uint64_t>(data), SparsePages::page_size);
        const ssize_t got = pread(file.fd, buffer.data(), buffer.size(), static_cast<off_t>(at));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail(errno, "{}: read at {}: {}", path, at, std::strerror(errno));
        if (got == 0) break;
        for (ConstBytes left(buffer.data(), static_cast<std::size_t>(got)); !left.empty();) {
            const ConstBytes part = left.first(std::min<std::size_t>(left.size(), SparsePages::page_size));
            if (!all_zero(part)) device->content_->write(at, part);
            at += part.size();
            left = left.subspan(part.size());
        }
    }
    return device;
}

Result<void> MemoryDevice::save(const std::string& path) const {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return fail(errno, "{}: {}", path, std::strerror(errno));
    int code = ftruncate(fd, static_cast<off_t>(size_)) == 0 ? 0 : errno;
    content_->for_each([&](std::uint64_t index, const SparsePages::Page& page) {
        const std::uint64_t start = index * SparsePages::page_size;
        if (code != 0 || start >= size_) return;
        std::size_t done = 0;
        const std::size_t wanted = std::min<std::uint64_t>(page.size(), size_ - start);
        while (done < wanted && code == 0) {
            const ssize_t put = pwrite(fd, page.data() + done, wanted - done, static_cast<off_t>(start + done));
            if (put > 0) done += static_cast<std::size_t>(put);
            else if (put == 0) code = EIO;
            else if (errno != EINTR) code = errno;
        }
    });
    if (close(fd) != 0 && code == 0) code = errno;
    if (code != 0) return fail(code, "{}: {}", path, std::strerror(code));
    return {};
}

Result<void> MemoryDevice::read(std::uint64_t offset, Bytes out) {
    TRY(check_range(*this, "read", offset, out.size()));
    schedule_point(Point::IoStart, "read", this);
    content_->read(offset, out);
    schedule_point(Point::IoComplete, "read", this);
    return {};
}

Result<void> MemoryDevice::write(std::uint64_t offset, ConstBytes in) {
    TRY(check_writable_range(*this, "write", offset, in.size()));
    schedule_point(Point::IoStart, "write", this);
    content_->write(offset, in);
    schedule_point(Point::IoComplete, "write", this);
    return {};
}

Result<void> MemoryDevice::write_fua(std::uint64_t offset, ConstBytes in) { return write(offset, in); }

Result<void> MemoryDevice::flush() {
    schedule_point(Point::IoStart, "flush", this);
    schedule_point(Point::IoComplete, "flush", this);
    return {};
}

Result<void> MemoryDevice::discard(std::uint64_t offset, std::uint64_t length) {
    TRY(check_writable_range(*this, "discard", offset, length));
    schedule_point(Point::IoStart, "discard", this);
    content_->erase(offset, length);
    schedule_point(Point::IoComplete, "discard", this);
    return {};
}

}  // namespace uext4
