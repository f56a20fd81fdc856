// Problems B and F: a range is punched while other threads load from it through maps, read it, and have it read ahead.
// From the moment on that the punch returns it is zeros, for everybody, until somebody writes there again.
#include "settled_image.h"

#include <atomic>
#include <random>
#include <thread>

namespace uext4::problems {
namespace {

class PunchUnderFaults : public SettledImage, public testing::WithParamInterface<std::tuple<const char*, const char*>> {
protected:
    void SetUp() override { make(std::get<0>(GetParam()), std::string(std::get<1>(GetParam())) + ",cache=1M"); }
};

TEST_P(PunchUnderFaults, WhatIsGoneStaysAway) {
    constexpr std::size_t size = 512 * page, hole = 24 * page;
    auto file = open("/f");
    char* memory = map(*file, size);
    NEED_MAP(memory);
    write(*file, std::string(size, 'x'));
    std::atomic<bool> stop{false};
    std::vector<std::thread> crowd;
    for (unsigned t = 0; t < 3; ++t)
        crowd.emplace_back([&, t] {
            std::mt19937 random(first_seed() * 10 + t);
            auto own = open("/f", O_RDONLY);
            while (!stop) {
                const std::size_t at = random() % size;
                const char byte = static_cast<volatile char*>(memory)[at];
                EXPECT_TRUE(byte == 'x' || byte == 0) << "a load at " << at;
                for (const char c : read(*own, 8 * page, at / page * page)) {
                    if (c == 'x' || c == 0) continue;
                    ADD_FAILURE() << "a read near " << at;
                    break;
                }
            }
        });
    crowd.emplace_back([&] {
        while (!stop) {
            ok(fs->sync());
            fs->volume().fs().pages.reclaim();
        }
    });
    std::mt19937 random(first_seed());
    for (int i = 0; i < (long_run() ? 5000 : 150) && !HasFailure(); ++i) {
        const std::size_t at = random() % (size - hole - page), n = random() % hole + 1;
        const int mode = i % 3 == 0 ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        const bool extents = std::string_view(std::get<0>(GetParam())).find("^extents") == std::string_view::npos;
        ok(file->fallocate(extents ? mode : FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, n));
        for (int look = 0; look < 3; ++look) {
            EXPECT_EQ(std::string(memory + at, n).find_first_not_of('\0'), std::string::npos) << "the map, " << at;
            EXPECT_EQ(read(*file, n, at).find_first_not_of('\0'), std::string::npos) << "a read, " << at;
        }
        write(*file, std::string(n, 'x'), at);
    }
    stop = true;
    for (std::thread& thread : crowd) thread.join();
    EXPECT_TRUE(read(*file, size) == std::string(size, 'x'));
    unmap(memory, size);
    file.reset();
    settle();
}

INSTANTIATE_TEST_SUITE_P(Formats, PunchUnderFaults,
                         testing::Combine(testing::Values("-b 4096", "-b 1024", "-b 1024 -O ^extents,^64bit"),
                                          testing::Values("data=ordered", "data=journal")));

}  // namespace
}  // namespace uext4::problems
