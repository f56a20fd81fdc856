// Runs of clear bits, against a search bit by bit.
#include "alloc/free_run_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace uext4 {
namespace {

using Bits = FreeRunIndex::Bits;

bool is_clear(const Bits& bits, std::uint32_t i) { return (bits[i / 64] >> (i % 64) & 1) == 0; }

void change(Bits& bits, std::uint32_t first, std::uint32_t count, bool set) {
    for (std::uint32_t i = first; i < first + count; ++i) {
        const std::uint64_t bit = std::uint64_t{1} << (i % 64);
        bits[i / 64] = set ? bits[i / 64] | bit : bits[i / 64] & ~bit;
    }
}

// The longest run of [from, end), and where the first one of at least `length` starts.
std::pair<std::uint32_t, std::uint32_t> searched(const Bits& bits, std::uint32_t from, std::uint32_t end,
                                                 std::uint32_t length) {
    std::uint32_t longest = 0, first = end;
    for (std::uint32_t at = from; at < end;) {
        std::uint32_t stop = at;
        while (stop < end && is_clear(bits, stop)) ++stop;
        longest = std::max(longest, stop - at);
        if (first == end && stop > at && stop - at >= length) first = at;
        at = stop + 1;
    }
    return {longest, first};
}

void expect_same(const FreeRunIndex& runs, const Bits& bits, std::uint32_t from, std::uint32_t end,
                 std::uint32_t length) {
    const auto [longest, first] = searched(bits, from, end, length);
    EXPECT_EQ(runs.longest_run(bits, from, end), longest) << from << ".." << end;
    EXPECT_EQ(runs.first_run(bits, from, end, length), first) << length << " in " << from << ".." << end;
}

// 8,192 words are the group of a file system with blocks of 64 KiB.
class OfWords : public ::testing::TestWithParam<std::uint32_t> {};

TEST_P(OfWords, AreThoseOfASearch) {
    Bits bits(GetParam());
    const auto size = static_cast<std::uint32_t>(bits.size() * 64);
    std::mt19937 random(GetParam());
    const auto below = [&](std::uint32_t limit) { return static_cast<std::uint32_t>(random() % limit); };
    FreeRunIndex runs;
    runs.build(bits);
    EXPECT_EQ(runs.longest_run(), size);
    expect_same(runs, bits, 0, size, size);
    const int rounds = size > 100000 ? 40 : 400;
    for (int round = 0; round < rounds; ++round) {
        // Now long stretches, now single bits; now a lot of the one, now of the other.
        const std::uint32_t most = round % 3 == 0 ? size : round % 3 == 1 ? 100 : 2;
        for (int n = 0; n < (most == 2 ? 40 : 2); ++n) {
            const std::uint32_t first = below(size), count = std::min(1 + below(most), size - first);
            change(bits, first, count, below(100) < (round < rounds / 2 ? 70 : 30));
            runs.update(bits, first, count);
        }
        if (round == rounds * 3 / 4) runs.build(bits);
        const std::uint32_t from = below(size), end = from + below(size - from) + 1;
        const std::uint32_t longest = searched(bits, 0, size, 1).first;
        EXPECT_EQ(runs.longest_run(), longest);
        for (std::uint32_t length : {1u, 2u, 1 + below(70), 1 + below(longest + 1), std::max(longest, 1u)}) {
            expect_same(runs, bits, 0, size, length);
            expect_same(runs, bits, from, end, length);
        }
        expect_same(runs, bits, from, from, 1);
        if (HasFailure()) FAIL() << "round " << round;
    }
}

INSTANTIATE_TEST_SUITE_P(FreeRuns, OfWords, ::testing::Values(1u, 7u, 8u, 9u, 64u, 65u, 512u, 8192u));

}  // namespace
}  // namespace uext4
