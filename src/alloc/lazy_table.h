// A table whose elements are made in pieces, when one of them is first asked for: mounting does not look at each group
// of a file system that has a hundred thousand.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

namespace uext4 {

// Elements are default-constructed and stay where they are. Any thread may ask.
template <typename T>
class LazyTable {
public:
    explicit LazyTable(std::size_t size) : pieces_((size + in_piece - 1) / in_piece) {}
    ~LazyTable() {
        for (std::atomic<T*>& piece : pieces_) delete[] piece.load(std::memory_order_relaxed);
    }
    LazyTable(const LazyTable&) = delete;

    T& operator[](std::size_t n) {
        std::atomic<T*>& slot = pieces_[n / in_piece];
        T* piece = slot.load(std::memory_order_acquire);
        if (!piece) {
            auto made = std::make_unique<T[]>(in_piece);
            if (slot.compare_exchange_strong(piece, made.get(), std::memory_order_acq_rel)) piece = made.release();
        }
        return piece[n % in_piece];
    }

private:
    static constexpr std::size_t in_piece = 512;
    std::vector<std::atomic<T*>> pieces_;
};

}  // namespace uext4
