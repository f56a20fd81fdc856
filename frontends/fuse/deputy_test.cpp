#include "fuse/deputy.h"

#include "fuse/signals.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <random>
#include <thread>

namespace uext4::fuse {
namespace {

// Whoever has the place works on the same things.
class Place {
public:
    explicit Place(Deputy& deputy) : deputy_(deputy) {}
    void stand_in() {
        ++times;
        while (!deputy_.wanted_back()) {
            work();
            std::this_thread::sleep_for(std::chrono::microseconds(200));
        }
    }
    void work() {
        EXPECT_FALSE(busy_.exchange(true)) << "two at once";
        ++done_;
        busy_ = false;
    }
    void answer(std::chrono::milliseconds held_up) {
        deputy_.leave();
        std::this_thread::sleep_for(held_up);
        deputy_.back();
    }
    std::uint64_t done() const { return done_; }

    std::atomic<int> times{0};

private:
    Deputy& deputy_;
    std::atomic<bool> busy_{false};
    std::uint64_t done_ = 0;  // without a lock: the place is one thread's
};

TEST(Deputy, WorksWhileAnAnswerIsHeldUpAndNotAfterwards) {
    Deputy deputy;
    Place place(deputy);
    ASSERT_TRUE(deputy.start([&] { place.stand_in(); }));
    for (int round = 1; round <= 3; ++round) {
        deputy.leave();
        for (int i = 0; i < 10000 && place.times.load() < round; ++i)
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        ASSERT_EQ(place.times.load(), round);
        deputy.back();
        const std::uint64_t done = place.done();
        std::this_thread::sleep_for(std::chrono::milliseconds(80));
        EXPECT_EQ(place.done(), done) << "goes on though nobody is away";
    }
    // It sleeps meanwhile, and wakes.
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    deputy.leave();
    for (int i = 0; i < 10000 && place.times.load() < 4; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_EQ(place.times.load(), 4);
    deputy.back();
    deputy.finish();
}

TEST(Deputy, AndTheOneItStandsInForAreNeverInThePlaceAtOnce) {
    Deputy deputy;
    Place place(deputy);
    ASSERT_TRUE(deputy.start([&] { place.stand_in(); }));
    std::mt19937 random(1);
    for (int round = 0; round < 60; ++round) {
        for (int i = 0; i < 200; ++i) {
            place.work();
            place.answer(std::chrono::milliseconds(0));
        }
        place.answer(std::chrono::milliseconds(random() % 70));
    }
    EXPECT_GT(place.times.load(), 0);
    deputy.finish();
    place.work();
}

// A request that its poll has shown may be another's before it reads: it waits for the next one, with the place.
TEST(Deputy, GivesThePlaceBackThoughItWaitsInTheKernel) {
    struct sigaction interrupt{}, before{};
    interrupt.sa_handler = [](int) {};
    ASSERT_EQ(sigaction(interrupting_signal, &interrupt, &before), 0);
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    std::atomic<bool> waits{false};
    Deputy deputy;
    ASSERT_TRUE(deputy.start([&] {
        while (!deputy.wanted_back()) {
            char byte;
            waits = true;
            EXPECT_EQ(read(ends[0], &byte, 1), -1);
            EXPECT_EQ(errno, EINTR);
        }
    }));
    deputy.leave();
    for (int i = 0; i < 10000 && !waits.load(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::atomic<bool> is_back{false};
    std::thread watch([&] {
        for (int i = 0; i < 10000 && !is_back.load(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        EXPECT_TRUE(is_back.load()) << "does not come back";
        close(ends[1]);  // whatever waits has an end
    });
    deputy.back();
    is_back = true;
    watch.join();
    deputy.finish();
    close(ends[0]);
    sigaction(interrupting_signal, &before, nullptr);
}

TEST(Deputy, EndsWhileNobodyIsAway) {
    for (int i = 0; i < 20; ++i) {
        Deputy deputy;
        Place place(deputy);
        ASSERT_TRUE(deputy.start([&] { place.stand_in(); }));
        if (i % 2) place.answer(std::chrono::milliseconds(0));
    }
}

}  // namespace
}  // namespace uext4::fuse
