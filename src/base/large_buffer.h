// Bytes for a while. Much of them goes back to the system when this goes: malloc would keep it for later, and the
// memory that a process takes at most would not be what its cache says.
#pragma once

#include "base/bytes.h"

#include <sys/mman.h>

#include <vector>

namespace uext4 {

class LargeBuffer {
public:
    explicit LargeBuffer(std::size_t size) : size_(size) {
        if (size >= map_threshold)
            map_ = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (map_ == MAP_FAILED) heap_.resize(size);
    }
    ~LargeBuffer() {
        if (map_ != MAP_FAILED) ::munmap(map_, size_);
    }
    LargeBuffer(const LargeBuffer&) = delete;
    LargeBuffer& operator=(const LargeBuffer&) = delete;

    std::byte* data() { return map_ != MAP_FAILED ? static_cast<std::byte*>(map_) : heap_.data(); }
    std::size_t size() const { return size_; }
    std::byte* begin() { return data(); }
    std::byte* end() { return data() + size_; }

private:
    static constexpr std::size_t map_threshold = std::size_t{1} << 20;
    std::size_t size_;
    void* map_ = MAP_FAILED;
    std::vector<std::byte> heap_;
};

}  // namespace uext4
