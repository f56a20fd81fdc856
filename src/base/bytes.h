// Byte ranges and the integers of disk structures: fixed byte order, no alignment, trivially copyable.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace uext4 {

using Bytes = std::span<std::byte>;
using ConstBytes = std::span<const std::byte>;

template <class Int, std::endian Order>
struct DiskInt {
    std::byte raw[sizeof(Int)];

    constexpr DiskInt() = default;
    DiskInt(Int v) { *this = v; }  // NOLINT(google-explicit-constructor): reads like an integer
    DiskInt& operator=(Int v) {
        if constexpr (Order != std::endian::native) v = swap(v);
        std::memcpy(raw, &v, sizeof v);
        return *this;
    }
    operator Int() const {  // NOLINT(google-explicit-constructor)
        Int v;
        std::memcpy(&v, raw, sizeof v);
        if constexpr (Order != std::endian::native) v = swap(v);
        return v;
    }
    Int get() const { return *this; }

private:
    static Int swap(Int v) {
        if constexpr (sizeof(Int) == 2) return __builtin_bswap16(v);
        else if constexpr (sizeof(Int) == 4) return __builtin_bswap32(v);
        else return __builtin_bswap64(v);
    }
};

using Le16 = DiskInt<std::uint16_t, std::endian::little>;
using Le32 = DiskInt<std::uint32_t, std::endian::little>;
using Le64 = DiskInt<std::uint64_t, std::endian::little>;
using Be16 = DiskInt<std::uint16_t, std::endian::big>;
using Be32 = DiskInt<std::uint32_t, std::endian::big>;
using Be64 = DiskInt<std::uint64_t, std::endian::big>;

// A disk structure inside a buffer. The caller has checked that it fits; checked here once more.
template <class T>
T& view_as(Bytes bytes, std::size_t offset = 0) {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) == 1);
    if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) __builtin_trap();
    return *reinterpret_cast<T*>(bytes.data() + offset);
}
template <class T>
const T& view_as(ConstBytes bytes, std::size_t offset = 0) {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) == 1);
    if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) __builtin_trap();
    return *reinterpret_cast<const T*>(bytes.data() + offset);
}

template <class T>
ConstBytes bytes_of(const T& value) {
    return std::as_bytes(std::span<const T, 1>(&value, 1));
}
inline ConstBytes bytes_of_string(const char* text, std::size_t size) {
    return {reinterpret_cast<const std::byte*>(text), size};
}
inline bool all_zero(ConstBytes bytes) {
    for (auto b : bytes)
        if (b != std::byte{0}) return false;
    return true;
}

constexpr std::uint64_t divide_up(std::uint64_t a, std::uint64_t b) { return a / b + (a % b != 0); }
constexpr std::uint64_t round_up(std::uint64_t a, std::uint64_t b) { return divide_up(a, b) * b; }
constexpr std::uint64_t round_down(std::uint64_t a, std::uint64_t b) { return a / b * b; }

}  // namespace uext4
