// Descriptors: one that is closed in time, and those that a process has of whoever started it and does not need.
#pragma once

#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

namespace uext4 {

// Open as long as this; or none.
struct Descriptor {
    int number = -1;
    explicit Descriptor(int fd = -1) : number(fd) {}
    Descriptor(Descriptor&& other) noexcept : number(std::exchange(other.number, -1)) {}
    Descriptor& operator=(Descriptor&& other) noexcept {
        std::swap(number, other.number);
        return *this;
    }
    ~Descriptor() {
        if (number >= 0) ::close(number);
    }
};

// All from `first` on that are none of these.
void close_all_but(std::vector<int> kept, int first);

// Those beyond the three standard ones that no word of the command line names (/dev/fd/N and its other spellings): a
// process that has been taken over could use them, and locks would be held as long as it lives.
void close_unnamed(const std::vector<std::string>& words);

}  // namespace uext4
