// How far the space has gone down since the start: each time that the half of what was left is taken, from a gigabyte
// on.
#pragma once

#include <atomic>
#include <cstdint>

namespace uext4::fuse {

class SpaceLevel {
public:
    explicit SpaceLevel(std::uint64_t left) : level_(level_of(left)) {}

    // With what is left now, in bytes: whether it has gone down by a half since it was last told so. It has to double
    // before it can go down again. Thread-safe.
    bool fell(std::uint64_t left) {
        unsigned before = level_.load();
        const unsigned now = level_of(left);
        if (now > before) return level_.compare_exchange_strong(before, now);
        if (const unsigned safe = level_of(left / 2); safe < before) level_.compare_exchange_strong(before, safe);
        return false;
    }

private:
    static unsigned level_of(std::uint64_t left) {
        constexpr std::uint64_t first = std::uint64_t{1} << 30, last = std::uint64_t{1} << 20;
        unsigned level = 0;
        for (std::uint64_t limit = first; left < limit && limit >= last; limit /= 2) ++level;
        return level;
    }
    std::atomic<unsigned> level_;
};

}  // namespace uext4::fuse
