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
class SparseArray {
public:
    explicit SparseArray(std::size_t size) : pieces_((size + piece_size - 1) / piece_size) {}
    ~SparseArray() {
        for (std::atomic<T*>& piece : pieces_) delete[] piece.load(std::memory_order_relaxed);
    }
    SparseArray(const SparseArray&) = delete;

    T& operator[](std::size_t n) {
        std::atomic<T*>& slot = pieces_[n / piece_size];
        T* piece = slot.load(std::memory_order_acquire);
        if (!piece) {
            auto made = std::make_unique<T[]>(piece_size);
            if (slot.compare_exchange_strong(piece, made.get(), std::memory_order_acq_rel)) piece = made.release();
        }
        return piece[n % piece_size];
    }

private:
    static constexpr std::size_t piece_size = 512;
    std::vector<std::atomic<T*>> pieces_;
};

}  // namespace uext4
