// Room for the buffer of one call through which bytes go in pieces. All of them together stay within bounds, however
// many calls are under way: while much is taken already, a call has to do with a small piece.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>

namespace uext4 {

class TransferBuffer {
public:
    static constexpr std::size_t max_size = std::size_t{1} << 20, min_size = std::size_t{64} << 10;  // of one call
    static constexpr std::size_t max_total = 8 * max_size;  // but for the small ones

    explicit TransferBuffer(std::size_t wanted) : size_(std::min(wanted, max_size)) {
        if (size_ <= min_size) return;
        counted_ = taken_.fetch_add(size_, std::memory_order_relaxed) + size_ <= max_total;
        if (counted_) return;
        taken_.fetch_sub(size_, std::memory_order_relaxed);
        size_ = min_size;
    }
    ~TransferBuffer() {
        if (counted_) taken_.fetch_sub(size_, std::memory_order_relaxed);
    }
    TransferBuffer(const TransferBuffer&) = delete;
    TransferBuffer& operator=(const TransferBuffer&) = delete;
    std::size_t size() const { return size_; }

private:
    static inline std::atomic<std::size_t> taken_{0};
    std::size_t size_;
    bool counted_ = false;
};

}  // namespace uext4
