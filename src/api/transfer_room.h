// Room for the buffer of one call through which bytes go in pieces. All of them together stay within bounds, however
// many calls are under way: while much is taken already, a call has to do with a small piece.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>

namespace uext4 {

class TransferRoom {
public:
    static constexpr std::size_t most = std::size_t{1} << 20, least = std::size_t{64} << 10;  // of one call
    static constexpr std::size_t all = 8 * most;                                              // but for the small ones

    explicit TransferRoom(std::size_t wanted) : size_(std::min(wanted, most)) {
        if (size_ <= least) return;
        counted_ = taken_.fetch_add(size_, std::memory_order_relaxed) + size_ <= all;
        if (counted_) return;
        taken_.fetch_sub(size_, std::memory_order_relaxed);
        size_ = least;
    }
    ~TransferRoom() {
        if (counted_) taken_.fetch_sub(size_, std::memory_order_relaxed);
    }
    TransferRoom(const TransferRoom&) = delete;
    TransferRoom& operator=(const TransferRoom&) = delete;
    std::size_t size() const { return size_; }

private:
    static inline std::atomic<std::size_t> taken_{0};
    std::size_t size_;
    bool counted_ = false;
};

}  // namespace uext4
