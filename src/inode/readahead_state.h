// Where readers of a file would go on if they read it from one end to the other: a few of them, each with how far was
// read ahead for it last; and how far is worth it. A guess: who is overtaken by another thread reads a little more or
// less.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace uext4 {

class ReadaheadState {
public:
    enum class AccessKind : bool { of_bytes, of_pages };  // who reads bytes may have read a part of the folio before

    // Whoever reads from folio `first` on was expected there: the folios of its last window, 0 if it had none.
    std::optional<std::uint64_t> window_at(std::uint64_t first, AccessKind reader) const {
        for (const std::atomic<std::uint64_t>& stream : streams_) {
            const std::uint64_t seen = stream.load(std::memory_order_relaxed);
            if (reader == AccessKind::of_bytes ? is_at(seen, first) : seen >> window_bits == first)
                return seen & window_mask;
        }
        return {};
    }

    // The folios of a window at most, for a reader who had `last` of them: `largest`, until folios read ahead were
    // reclaimed before they were used (`in_vain`). Then half of what there was, and from there slowly more.
    std::uint64_t max_window(std::uint64_t last, std::uint64_t largest, bool in_vain) {
        const std::uint64_t seen = max_window_.load(std::memory_order_relaxed);
        if (!in_vain && seen >= largest) return largest;
        const std::uint64_t now =
            in_vain ? std::max<std::uint64_t>(1, std::min({seen, largest, last}) / 2) : seen + seen / 8 + 1;
        max_window_.store(now, std::memory_order_relaxed);
        return std::min(now, largest);
    }

    // Somebody has read from folio `first` on and goes on at `next`. `window`: what was read ahead for it; 0: nothing.
    void record_read(std::uint64_t first, std::uint64_t next, std::uint64_t window) {
        for (std::atomic<std::uint64_t>& stream : streams_) {
            const std::uint64_t seen = stream.load(std::memory_order_relaxed);
            if (!is_at(seen, first)) continue;
            const std::uint64_t now = next << window_bits | (window ? window & window_mask : seen & window_mask);
            if (now != seen) stream.store(now, std::memory_order_relaxed);
            return;
        }
        // Who reads here and there does not take the place of those that go on.
        const std::uint32_t turn = turn_.fetch_add(1, std::memory_order_relaxed);
        std::size_t place = turn % streams_.size();
        for (std::size_t i = 0; i < streams_.size(); ++i) {
            const std::size_t one = (turn + i) % streams_.size();
            if (streams_[one].load(std::memory_order_relaxed) & window_mask) continue;
            place = one;
            break;
        }
        streams_[place].store(next << window_bits, std::memory_order_relaxed);
    }

private:
    static constexpr unsigned window_bits = 16;
    static constexpr std::uint64_t window_mask = (std::uint64_t{1} << window_bits) - 1;
    // Of the folio before it may have read a part.
    static bool is_at(std::uint64_t stream, std::uint64_t first) {
        const std::uint64_t next = stream >> window_bits;
        return next == first || next == first + 1;
    }

    std::array<std::atomic<std::uint64_t>, 16> streams_{};  // the folio where it goes on, and its window
    std::atomic<std::uint32_t> turn_{0};
    std::atomic<std::uint64_t> max_window_{window_mask};
};

}  // namespace uext4
