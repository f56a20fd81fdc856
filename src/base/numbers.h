// Strong integers: a block of the device, a block of a file, a group and an inode number cannot be mixed up.
#pragma once

#include <fmt/format.h>

#include <compare>
#include <cstdint>
#include <functional>

namespace uext4 {

template <class Tag>
struct Number {
    std::uint64_t value = 0;

    constexpr Number() = default;
    constexpr explicit Number(std::uint64_t v) : value(v) {}

    constexpr auto operator<=>(const Number&) const = default;
    constexpr explicit operator bool() const { return value != 0; }

    friend constexpr Number operator+(Number a, std::uint64_t n) { return Number(a.value + n); }
    friend constexpr Number operator-(Number a, std::uint64_t n) { return Number(a.value - n); }
    friend constexpr std::uint64_t operator-(Number a, Number b) { return a.value - b.value; }
    constexpr Number& operator+=(std::uint64_t n) {
        value += n;
        return *this;
    }
    constexpr Number& operator-=(std::uint64_t n) {
        value -= n;
        return *this;
    }
    constexpr Number& operator++() {
        ++value;
        return *this;
    }
};

using BlockNr = Number<struct BlockNrTag>;            // a block of the file system on its device; 0 means none
using LogicalBlock = Number<struct LogicalBlockTag>;  // a block of a file, counted from its start
using GroupNr = Number<struct GroupNrTag>;            // a block group
using InodeNr = Number<struct InodeNrTag>;            // an inode's number, from 1; 0 means none

}  // namespace uext4

template <class Tag>
struct std::hash<uext4::Number<Tag>> {
    std::size_t operator()(uext4::Number<Tag> n) const noexcept { return std::hash<std::uint64_t>{}(n.value); }
};

template <class Tag>
struct fmt::formatter<uext4::Number<Tag>> : fmt::formatter<std::uint64_t> {
    template <class Context>
    auto format(uext4::Number<Tag> n, Context& context) const {
        return fmt::formatter<std::uint64_t>::format(n.value, context);
    }
};
