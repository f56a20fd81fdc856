// A descriptor of the host's.
#pragma once

#include <unistd.h>

#include <utility>

namespace uext4::cli {

// A file of the host, open as long as this; or none.
class HostFile {
public:
    HostFile() = default;
    explicit HostFile(int fd) : fd_(fd) {}
    ~HostFile() {
        if (fd_ >= 0) ::close(fd_);
    }
    HostFile(HostFile&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    HostFile& operator=(HostFile&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    int fd() const { return fd_; }
    // 0, or -1 and errno: what could not be written some file systems tell only now.
    int close() { return ::close(std::exchange(fd_, -1)); }

private:
    int fd_ = -1;
};

}  // namespace uext4::cli
