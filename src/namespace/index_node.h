// A validated index block of a hashed directory: pairs (hash, block), ascending; the first pair's hash counts as 0 and
// its place on disk holds the limit and the count.
#pragma once

#include "base/bytes.h"

#include <algorithm>
#include <cstdint>

namespace uext4 {

inline constexpr std::uint32_t index_root_offset = 32;  // of the pairs in block 0: two records and the root's info
inline constexpr std::uint32_t index_node_offset = 8;   // in an inner block: one record that covers the block
inline constexpr std::uint32_t index_entry_size = 8;
inline constexpr std::uint32_t index_info_offset = 24;  // of the root's info: 4 zero bytes, then these
inline constexpr std::uint32_t hash_version_offset = 28;
inline constexpr std::uint32_t info_length_offset = 29;
inline constexpr std::uint32_t index_levels_offset = 30;
inline constexpr std::uint8_t index_info_length = 8;
inline constexpr std::uint32_t index_tail_size = 8;  // with metadata_csum

inline std::uint8_t byte_at(ConstBytes block, std::uint32_t offset) {
    return std::to_integer<std::uint8_t>(block[offset]);
}

class IndexView {
public:
    IndexView(ConstBytes block, std::uint32_t offset) : block_(block), offset_(offset) {}
    std::uint32_t limit() const { return view_as<Le16>(block_, offset_); }
    std::uint32_t count() const { return std::min<std::uint32_t>(view_as<Le16>(block_, offset_ + 2), limit()); }
    std::uint32_t hash(std::uint32_t i) const { return i == 0 ? 0 : view_as<Le32>(block_, offset_ + i * 8).get(); }
    std::uint32_t block(std::uint32_t i) const {
        constexpr std::uint32_t pointer_bits = 0x0fffffff;  // the upper 4 are reserved
        return view_as<Le32>(block_, offset_ + i * 8 + 4) & pointer_bits;
    }
    bool full() const { return count() >= limit(); }

    // The last pair whose hash is not above `hash`; pair 0 at least.
    std::uint32_t position(std::uint32_t hash_wanted) const {
        std::uint32_t low = 1, high = count();
        while (low < high) {
            const std::uint32_t middle = low + (high - low) / 2;
            if (hash(middle) > hash_wanted) high = middle;
            else low = middle + 1;
        }
        return low - 1;
    }

protected:
    ConstBytes block_;
    std::uint32_t offset_;
};

class IndexEdit : public IndexView {
public:
    IndexEdit(Bytes block, std::uint32_t offset) : IndexView(block, offset), bytes_(block) {}
    void set_limit(std::uint32_t limit) { view_as<Le16>(bytes_, offset_) = static_cast<std::uint16_t>(limit); }
    void set_count(std::uint32_t count) { view_as<Le16>(bytes_, offset_ + 2) = static_cast<std::uint16_t>(count); }
    void set(std::uint32_t i, std::uint32_t hash_value, std::uint32_t block_number) {
        if (i != 0) view_as<Le32>(bytes_, offset_ + i * 8) = hash_value;
        view_as<Le32>(bytes_, offset_ + i * 8 + 4) = block_number;
    }
    // Room for one more is the caller's business.
    void insert(std::uint32_t at, std::uint32_t hash_value, std::uint32_t block_number) {
        const std::uint32_t last = count();
        for (std::uint32_t i = last; i > at; --i) set(i, hash(i - 1), block(i - 1));
        set(at, hash_value, block_number);
        set_count(last + 1);
    }

private:
    Bytes bytes_;
};

}  // namespace uext4
