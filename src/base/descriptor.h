// A descriptor of the host that is closed in time.
#pragma once

#include <unistd.h>

#include <utility>

namespace uext4 {

// Open as long as this; or none, -1.
class Descriptor {
public:
    Descriptor() = default;
    explicit Descriptor(int fd) : fd_(fd) {}
    Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
    Descriptor& operator=(Descriptor&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~Descriptor() {
        if (is_open()) ::close(fd_);
    }

    bool is_open() const { return fd_ >= 0; }
    int fd() const { return fd_; }
    // Whoever gets it closes it.
    int release() { return std::exchange(fd_, -1); }
    // 0, or -1 and errno: what could not be written some file systems tell only now.
    int close() { return ::close(release()); }

private:
    int fd_ = -1;
};

}  // namespace uext4
