// Flushes in turn: those that wait share one, and a failure is known before the next begins.
#include "device/flush_order_device.h"
#include "sync/thread.h"
#include "tests/doubles/memory_device.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <thread>
#include <vector>

namespace uext4 {
namespace {

// Flushes as `flushing` says; it is given the number of the flush, from 1 on.
class Flushing final : public BlockDevice {
public:
    std::function<Result<void>(int)> flushing = [](int) { return Result<void>(); };
    std::atomic<int> flushes{0}, at_once{0}, most_at_once{0};

    std::uint64_t size() const override { return memory_.size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override { return memory_.read(offset, out); }
    Result<void> write(std::uint64_t offset, ConstBytes in) override { return memory_.write(offset, in); }
    Result<void> flush() override {
        const int now = ++at_once;
        if (now > most_at_once) most_at_once = now;
        const Result<void> result = flushing(++flushes);
        --at_once;
        return result;
    }
    bool read_only() const override { return false; }
    std::string name() const override { return "flushing"; }

private:
    MemoryDevice memory_{1 << 20};
};

class FlushOrder : public testing::Test {
protected:
    // Starts `count` flushes while the first one runs, and lets that go on when they wait.
    std::vector<int> beside_a_slow_one(int count) {
        std::vector<int> codes(static_cast<std::size_t>(count));
        std::vector<std::thread> others;
        const auto next = base_->flushing;
        base_->flushing = [&, next](int number) {
            if (number == 1) {
                for (int& code : codes)
                    others.emplace_back([this, &code] {
                        const Result<void> done = device_.flush();
                        code = done ? 0 : done.error().code;
                    });
                wait_for(static_cast<unsigned>(count));
            }
            return next(number);
        };
        const Result<void> first = device_.flush();
        first_code_ = first ? 0 : first.error().code;
        for (std::thread& other : others) other.join();
        return codes;
    }

    void wait_for(unsigned waiting) const {
        for (int i = 0; i < 10000 && device_.waiting_flushes() < waiting; ++i)
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        EXPECT_EQ(device_.waiting_flushes(), waiting);
    }

    std::shared_ptr<Flushing> base_ = std::make_shared<Flushing>();
    FlushOrderDevice device_{base_};
    int first_code_ = -1;
};

TEST_F(FlushOrder, ThoseThatWaitShareOne) {
    EXPECT_EQ(beside_a_slow_one(6), std::vector<int>(6, 0));
    EXPECT_EQ(base_->most_at_once, 1);
    // The first cannot have what the others wrote after it began.
    EXPECT_EQ(base_->flushes, 2);
    EXPECT_FALSE(device_.has_lost_writes());
}

TEST_F(FlushOrder, AFailureIsOfAllThatSharedIt) {
    base_->flushing = [](int number) { return number == 2 ? Result<void>(fail(EIO, "lost")) : Result<void>(); };
    const std::vector<int> codes = beside_a_slow_one(1);
    EXPECT_EQ(first_code_, 0);
    EXPECT_EQ(codes, std::vector<int>{EIO});
    EXPECT_TRUE(device_.has_lost_writes());
}

TEST_F(FlushOrder, AFailureIsKnownToWhoFlushesNext) {
    base_->flushing = [](int number) { return number == 1 ? Result<void>(fail(EIO, "lost")) : Result<void>(); };
    // It works, for what is written from now on; whoever acknowledges older writes must not rely on it.
    EXPECT_EQ(beside_a_slow_one(1), std::vector<int>{0});
    EXPECT_EQ(first_code_, EIO);
    const Result<void> durable = flush_completed_writes(device_);
    ASSERT_FALSE(durable);
    EXPECT_EQ(durable.error().code, EIO);
}

TEST_F(FlushOrder, AWriteThroughTakesItsTurnAndTellsOfLosses) {
    base_->flushing = [](int number) { return number == 2 ? Result<void>(fail(EIO, "lost")) : Result<void>(); };
    const std::vector<std::byte> block(512);
    int code = -1;
    std::thread other;
    const auto next = base_->flushing;
    base_->flushing = [&, next](int number) {
        if (number == 1) {
            other = std::thread([&] {
                const Result<void> written = device_.write_fua(0, block);
                code = written ? 0 : written.error().code;
            });
            wait_for(1);
        }
        return next(number);
    };
    EXPECT_TRUE(device_.flush());
    other.join();
    EXPECT_EQ(code, EIO);
    EXPECT_EQ(base_->most_at_once, 1);
    EXPECT_TRUE(device_.has_lost_writes());
    EXPECT_FALSE(flush_completed_writes(device_));
}

// One ends between two looks of a thread that comes to wait: that has the turn then, and gives it back.
TEST_F(FlushOrder, ManyThatComeAndGoAllEnd) {
    constexpr int threads = 4, each = 1'000'000;
    std::vector<std::future<void>> done;
    for (int t = 0; t < threads; ++t)
        done.push_back(std::async(std::launch::async, [this] {
            for (int i = 0; i < each; ++i) ASSERT_TRUE(device_.flush());
        }));
    for (const auto& one : done)
        if (one.wait_for(std::chrono::seconds(120)) != std::future_status::ready) {
            std::fputs("a flush waits for a turn that nobody has\n", stderr);
            std::abort();  // the threads cannot be joined
        }
    EXPECT_EQ(base_->most_at_once, 1);
}

}  // namespace
}  // namespace uext4
