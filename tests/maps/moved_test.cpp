// Several threads that map, move and end their maps, each of a file of its own: the addresses that one leaves are the
// next one's at once, and nobody meets what was another's.
#include "mapped_image.h"

#include <atomic>
#include <chrono>
#include <random>
#include <thread>

namespace uext4::test::moved_test {
namespace {

constexpr std::size_t page = 4096, pages = 16;
constexpr int threads = 4, most_rounds = 20'000;
constexpr auto duration = std::chrono::seconds(3);

thread_local volatile std::sig_atomic_t may_be_refused = 0;

class MovedMaps : public MappedImage {
protected:
    enum class End { by_library, by_munmap, either };

    // As refused(), with the handlers of in_threads(), which all threads share.
    template <class Access>
    static bool refused_here(Access access) {
        volatile bool out = true;
        if (sigsetjmp(refused_at, 1) == 0) {
            may_be_refused = 1;
            access();
            out = false;
        }
        may_be_refused = 0;
        return out;
    }

    // Calls `round` of each thread's file in `threads` threads until the time is over or one has failed.
    template <class Round>
    void in_threads(Round round) {
        struct sigaction action{}, old_bus{}, old_segv{};
        action.sa_handler = [](int number) {
            if (may_be_refused) siglongjmp(refused_at, 1);
            ::signal(number, SIG_DFL);
        };
        ASSERT_EQ(::sigaction(SIGBUS, &action, &old_bus), 0);
        ASSERT_EQ(::sigaction(SIGSEGV, &action, &old_segv), 0);
        std::atomic<bool> stop{false};
        std::vector<std::thread> all;
        const auto until = std::chrono::steady_clock::now() + duration;
        for (int t = 0; t < threads; ++t)
            all.emplace_back([&, t] {
                uext4_file* file = open(fmt::format("/f{}", t).c_str());
                std::string model(pages * page, static_cast<char>('0' + t));
                write(file, model);
                std::mt19937 random(static_cast<unsigned>(t) + 1);
                for (int i = 0; i < most_rounds && !stop && std::chrono::steady_clock::now() < until; ++i) {
                    round(file, model, random);
                    if (HasFailure()) stop = true;
                }
                EXPECT_TRUE(read(file, model.size()) == model) << "the file of thread " << t << " differs";
                uext4_close(file);
            });
        std::thread syncer([&] {
            while (!stop && std::chrono::steady_clock::now() < until) {
                EXPECT_EQ(uext4_syncfs(fs), 0);
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
            }
        });
        for (std::thread& one : all) one.join();
        syncer.join();
        ::sigaction(SIGBUS, &old_bus, nullptr);
        ::sigaction(SIGSEGV, &old_segv, nullptr);
    }

    void move_maps(End end) {
        make("-t ext4 -b 4096");
        NEED_MAPS();
        in_threads([&](uext4_file* file, std::string& model, std::mt19937& random) {
            const std::size_t from = random() % 8 * page, length = pages * page - from;
            char* memory = map(file, length, static_cast<off_t>(from));
            for (unsigned k = random() % 8; k > 0; --k) {
                const std::size_t at = random() % length;
                model[from + at] = memory[at] = static_cast<char>('a' + random() % 26);
            }
            void* place = ::mmap(nullptr, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            void* moved = ::mremap(memory, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, place);
            ASSERT_EQ(moved, place) << strerror(errno);
            memory = static_cast<char*>(moved);
            bool same = false;
            EXPECT_FALSE(refused_here([&] { same = std::memcmp(memory, model.data() + from, length) == 0; }));
            EXPECT_TRUE(same) << "a moved map shows something else";
            const std::size_t at = random() % length;
            EXPECT_FALSE(refused_here([&] { memory[at] = 'M'; }));
            model[from + at] = 'M';
            if (end == End::by_library || (end == End::either && random() % 2)) {
                EXPECT_EQ(uext4_unmap(memory, length), 0) << uext4_strerror();
            } else {
                EXPECT_EQ(::munmap(memory, length), 0);
            }
            EXPECT_TRUE(read(file, model.size()) == model) << "the file differs";
        });
        unmount();
    }
};

TEST_F(MovedMaps, AndUnmapped) { move_maps(End::by_library); }
TEST_F(MovedMaps, AndLeftByMunmap) { move_maps(End::by_munmap); }
TEST_F(MovedMaps, AndLeftByEither) { move_maps(End::either); }

// What was known of each map is gone before it is known what else there is, while the others' files are let go.
TEST_F(MovedMaps, WhatTheyHaveBecomeLongerBy) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    in_threads([&](uext4_file* file, std::string& model, std::mt19937& random) {
        const auto moved = [](char* memory, std::size_t before, std::size_t after) {
            void* place = ::mmap(nullptr, after * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            void* there = ::mremap(memory, before * page, after * page, MREMAP_MAYMOVE | MREMAP_FIXED, place);
            EXPECT_EQ(there, place) << strerror(errno);
            return static_cast<char*>(there);
        };
        char* memory = moved(map(file, 4 * page), 4, 12);
        std::size_t first = 4;  // of its pages
        EXPECT_EQ(::munmap(memory, first * page), 0);
        for (unsigned steps = random() % 5; steps > 0; --steps) {
            const std::size_t left = 12 - first;
            if (random() % 2) {
                memory = moved(memory + first * page, left, left) - first * page;
            } else {
                EXPECT_EQ(::munmap(memory + first * page, page), 0);
                ++first;
            }
        }
        const std::size_t at = first * page + random() % ((12 - first) * page);
        bool same = false;
        EXPECT_FALSE(refused_here(
            [&] { same = std::memcmp(memory + first * page, model.data() + first * page, (12 - first) * page) == 0; }));
        EXPECT_TRUE(same) << "the map differs";
        EXPECT_FALSE(refused_here([&] { memory[at] = 'G'; }));
        model[at] = 'G';
        if (random() % 2) {
            EXPECT_EQ(uext4_unmap(memory + first * page, (12 - first) * page), 0) << uext4_strerror();
        } else {
            EXPECT_EQ(::munmap(memory + first * page, (12 - first) * page), 0);
        }
        EXPECT_TRUE(read(file, model.size()) == model) << "the file differs";
    });
    unmount();
}

// What is found before the event of its move was read may be of either; the kernel knows which can be stored to.
TEST_F(MovedMaps, WhatCanBeStoredToBesideOneThatIsReadOnly) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    uext4_file* file = open("/f");
    uext4_file* reader = open("/f", O_RDONLY);
    ASSERT_EQ(uext4_ftruncate(file, 16 * page), 0);
    char* read_only = map(reader, 2 * page, 0, PROT_READ);
    constexpr int dont_unmap = 4;
    int times = 0;
    for (int i = 0; i < 100; ++i) {
        char* memory = map(file, page, static_cast<off_t>(8 * page));
        void* moved = ::mremap(memory, page, page, MREMAP_MAYMOVE | dont_unmap, nullptr);
        ASSERT_NE(moved, MAP_FAILED) << strerror(errno);
        void* longer = ::mremap(memory, page, 4 * page, MREMAP_MAYMOVE);
        ASSERT_NE(longer, MAP_FAILED) << strerror(errno);
        times += refused([&] { static_cast<char*>(longer)[2 * page + 9] = 's'; });
        EXPECT_EQ(::munmap(longer, 4 * page), 0);
        EXPECT_EQ(::munmap(moved, page), 0);
    }
    EXPECT_EQ(times, 0);
    EXPECT_EQ(uext4_unmap(read_only, 2 * page), 0);
    uext4_close(reader);
    uext4_close(file);
    unmount();
}

// It is not the program's any more: a race that is meant.
__attribute__((no_sanitize("thread"))) void look_at(const char* memory) {
    (void)*static_cast<const volatile char*>(memory);
}

// A thread that touches addresses which it does not own any more is refused, and nobody else notices.
TEST_F(MovedMaps, StrayAccessesLeaveNoTrace) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    in_threads([&](uext4_file* file, std::string& model, std::mt19937& random) {
        // Fresh memory behind the map, so that there is something to be seen too early.
        const std::size_t length = pages * page;
        char* memory = map(file, length);
        for (unsigned k = random() % 8; k > 0; --k) {
            const std::size_t at = random() % length;
            model[at] = memory[at] = static_cast<char>('a' + random() % 26);
        }
        EXPECT_TRUE(std::memcmp(memory, model.data(), length) == 0) << "the map differs";
        std::thread stray([memory] {
            for (std::size_t i = 0; i < 50; ++i) refused_here([&] { look_at(memory + i * 997 % (pages * page)); });
        });
        EXPECT_EQ(uext4_unmap(memory, length), 0);
        stray.join();
        EXPECT_TRUE(read(file, model.size()) == model) << "the file differs";
        if (random() % 7 == 0) {
            const std::size_t hole = random() % pages * page;
            EXPECT_EQ(uext4_fallocate(file, 3, static_cast<off_t>(hole), page), 0);
            model.replace(hole, page, page, 0);
        }
    });
    unmount();
}

}  // namespace
}  // namespace uext4::test::moved_test
