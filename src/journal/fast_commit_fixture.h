// For tests: the bytes of fast commits, as the kernel lays them out, or with any lie in them.
#pragma once

#include "base/bytes.h"
#include "base/numbers.h"
#include "format/checksum.h"
#include "format/journal.h"

#include <cstring>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace uext4::test {

class FastCommitWriter {
public:
    FastCommitWriter(std::uint32_t block_size, std::uint32_t tid) : block_size_(block_size), tid_(tid) { head(tid); }

    void head(std::uint32_t tid, std::uint32_t features = 0) { put(format::fc_head, {features, tid}); }
    void inode(std::uint32_t number, ConstBytes raw) {
        std::vector<std::byte> value = words({number});
        value.insert(value.end(), raw.begin(), raw.end());
        tag(format::fc_inode, value);
    }
    void name(format::FastCommitTagType type, std::uint32_t parent, std::uint32_t number, std::string_view text) {
        std::vector<std::byte> value = words({parent, number});
        const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
        value.insert(value.end(), bytes.begin(), bytes.end());
        tag(type, value);
    }
    // A `count` beyond 32768 is that of an unwritten extent.
    void add_range(std::uint32_t number, std::uint32_t logical, std::uint32_t count, std::uint64_t physical) {
        const auto high = static_cast<std::uint32_t>(physical >> 32 & 0xFFFF);
        put(format::fc_add_range, {number, logical, count | high << 16, static_cast<std::uint32_t>(physical)});
    }
    void delete_range(std::uint32_t number, std::uint32_t logical, std::uint32_t count) {
        put(format::fc_delete_range, {number, logical, count});
    }
    // Padded to the next block where the rest of this one is too short.
    void tag(std::uint16_t type, ConstBytes value) {
        const std::size_t left = block_size_ - bytes_.size() % block_size_;
        if (left < header + value.size()) {
            if (left >= header) append(format::fc_pad, std::vector<std::byte>(left - header));
            else bytes_.resize(bytes_.size() + left);
        }
        append(type, value);
    }
    void put(std::uint16_t type, std::initializer_list<std::uint32_t> values) { tag(type, words(values)); }
    // Fills up its block: the next fast commit begins with the next one.
    void commit() { commit(tid_); }
    void commit(std::uint32_t tid, std::uint32_t wrong = 0) {
        if (block_size_ - bytes_.size() % block_size_ < header + 8) tag(format::fc_pad, std::vector<std::byte>(8));
        const std::size_t left = block_size_ - bytes_.size() % block_size_;
        std::vector<std::byte> value(left - header);
        view_as<Le32>(Bytes(value), 0) = tid;
        const std::uint32_t sum =
            format::crc32c(format::crc32c(sum_, tag_of(format::fc_tail, value.size())), ConstBytes(value).first(4));
        view_as<Le32>(Bytes(value), 4) = sum ^ wrong;
        append(format::fc_tail, value);
        sum_ = 0;
    }

    // The area, from its first block on.
    const std::vector<std::byte>& bytes() const { return bytes_; }
    std::vector<std::byte>& bytes() { return bytes_; }

private:
    static constexpr std::size_t header = sizeof(format::FastCommitTag);

    static std::vector<std::byte> words(std::initializer_list<std::uint32_t> values) {
        std::vector<std::byte> out(4 * values.size());
        std::size_t at = 0;
        for (const std::uint32_t value : values) view_as<Le32>(Bytes(out), std::exchange(at, at + 4)) = value;
        return out;
    }
    static std::vector<std::byte> tag_of(std::uint16_t type, std::size_t length) {
        std::vector<std::byte> out(header);
        auto& tag = view_as<format::FastCommitTag>(Bytes(out));
        tag.tag = type;
        tag.length = static_cast<std::uint16_t>(length);
        return out;
    }
    void append(std::uint16_t type, ConstBytes value) {
        const std::vector<std::byte> tag = tag_of(type, value.size());
        if (type != format::fc_tail) sum_ = format::crc32c(format::crc32c(sum_, tag), value);
        bytes_.insert(bytes_.end(), tag.begin(), tag.end());
        bytes_.insert(bytes_.end(), value.begin(), value.end());
    }

    std::uint32_t block_size_, tid_;
    std::uint32_t sum_ = 0;
    std::vector<std::byte> bytes_;
};

// Makes the sums of all fast commits right again, as far as their tags can be followed.
inline void seal_fast_commits(Bytes area, std::uint32_t block_size) {
    std::uint32_t sum = 0;
    for (std::size_t block = 0; block + block_size <= area.size(); block += block_size) {
        for (std::size_t at = block; at + 4 <= block + block_size;) {
            const auto& tag = view_as<format::FastCommitTag>(ConstBytes(area), at);
            const std::size_t size = 4u + tag.length.get();
            if (tag.tag == 0u || size > block + block_size - at) return;
            if (tag.tag == format::fc_tail && tag.length >= 8u) {
                view_as<Le32>(area, at + 8) = format::crc32c(sum, ConstBytes(area).subspan(at, 8));
                sum = 0;
            } else {
                sum = format::crc32c(sum, ConstBytes(area).subspan(at, size));
            }
            at += size;
        }
    }
}

}  // namespace uext4::test
