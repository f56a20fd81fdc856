#include "tests/doubles/faulty_device.h"
#include "sync/thread.h"
#include "tests/doubles/memory_device.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

namespace uext4 {
namespace {

using namespace std::chrono_literals;
using Effect = DeviceFault::Effect;
using Kind = DeviceRequest::Kind;

class FaultyDeviceTest : public testing::Test {
protected:
    std::shared_ptr<MemoryDevice> base = std::make_shared<MemoryDevice>(1 << 16);
    FaultyDevice device{base};

    std::vector<std::byte> filled(std::size_t size, int value) { return {size, static_cast<std::byte>(value)}; }
    int write(std::uint64_t offset, int value, std::size_t size = 1000) {
        const auto data = filled(size, value);
        const auto result = device.write(offset, data);
        return result ? 0 : result.error().code;
    }
    std::byte at(std::uint64_t offset) {
        std::byte b{};
        EXPECT_TRUE(base->read(offset, Bytes(&b, 1)));
        return b;
    }
    int read(std::uint64_t offset) {
        std::byte b{};
        const auto result = device.read(offset, Bytes(&b, 1));
        return result ? 0 : result.error().code;
    }
};

TEST_F(FaultyDeviceTest, PassesWhenNothingIsArmed) {
    EXPECT_EQ(write(0, 1), 0);
    EXPECT_EQ(at(0), std::byte{1});
    EXPECT_TRUE(device.flush());
    EXPECT_TRUE(device.discard(0, 4096));
    EXPECT_EQ(at(0), std::byte{0});
}

TEST_F(FaultyDeviceTest, CountsSkipsAndTimes) {
    const auto fault = device.fail_writes(ENOSPC, 2, 1);
    EXPECT_EQ(write(0, 1), 0);
    EXPECT_EQ(write(0, 2), ENOSPC);
    EXPECT_EQ(write(0, 3), ENOSPC);
    EXPECT_EQ(at(0), std::byte{1});
    EXPECT_EQ(write(0, 4), 0);
    EXPECT_EQ(device.hits(fault), 2u);
}

TEST_F(FaultyDeviceTest, KindsRangesAndPredicates) {
    device.fail_range(Kind::Read, 4096, 4096);
    EXPECT_EQ(read(4095), 0);
    EXPECT_EQ(read(4096), EIO);
    EXPECT_EQ(read(8191), EIO);
    EXPECT_EQ(read(8192), 0);
    EXPECT_EQ(write(4096, 1), 0);
    std::vector<std::byte> across(200);
    EXPECT_FALSE(device.read(4000, across));
    device.clear();
    DeviceFault odd;
    odd.predicate = [](const DeviceRequest& request) { return request.offset == 7; };
    device.add(odd);
    EXPECT_EQ(read(7), EIO);
    EXPECT_EQ(read(8), 0);
    device.clear();
    device.fail_flushes(EIO, 1);
    EXPECT_FALSE(device.flush());
    EXPECT_TRUE(device.flush());
    device.die();
    EXPECT_EQ(read(0), EIO);
    EXPECT_EQ(write(0, 1), EIO);
    EXPECT_FALSE(device.flush());
    EXPECT_FALSE(device.discard(0, 1));
}

TEST_F(FaultyDeviceTest, TornLostMisdirectedAndFlipped) {
    DeviceFault fault;
    fault.kinds = {Kind::Write};
    fault.times = 1;
    fault.effect = Effect::Torn;
    fault.bytes = 512;
    device.add(fault);
    EXPECT_EQ(write(0, 1), EIO);
    EXPECT_EQ(at(511), std::byte{1});
    EXPECT_EQ(at(512), std::byte{0});
    fault.effect = Effect::TearSilent;
    device.add(fault);
    EXPECT_EQ(write(0, 2), 0);
    EXPECT_EQ(at(511), std::byte{2});
    EXPECT_EQ(at(512), std::byte{0});
    fault.effect = Effect::Lose;
    device.add(fault);
    EXPECT_EQ(write(0, 3), 0);
    EXPECT_EQ(at(0), std::byte{2});
    fault.effect = Effect::Misdirect;
    fault.bytes = 8192;
    device.add(fault);
    EXPECT_EQ(write(0, 4), 0);
    EXPECT_EQ(at(0), std::byte{2});
    EXPECT_EQ(at(8192), std::byte{4});
    fault.effect = Effect::BitFlip;
    fault.bytes = 3;
    fault.bit = 7;
    device.add(fault);
    EXPECT_EQ(write(0, 5), 0);
    EXPECT_EQ(at(2), std::byte{5});
    EXPECT_EQ(at(3), std::byte{0x85});
    fault.kinds = {Kind::Read};
    fault.bytes = 0;
    device.add(fault);
    std::byte b{};
    ASSERT_TRUE(device.read(0, Bytes(&b, 1)));
    EXPECT_EQ(b, std::byte{0x85});
    ASSERT_TRUE(device.read(0, Bytes(&b, 1)));
    EXPECT_EQ(b, std::byte{5});
}

TEST_F(FaultyDeviceTest, AFailedFlushDropsWhatWasNotFlushed) {
    FaultyDevice cached(base, FailedFlush::Drops);
    auto write = [&](std::uint64_t offset, int value, bool durable = false) {
        const auto data = filled(1000, value);
        ASSERT_TRUE(durable ? cached.write_fua(offset, data) : cached.write(offset, data));
    };
    write(0, 1);
    ASSERT_TRUE(cached.flush());
    write(0, 2);
    write(500, 3, true);
    write(9000, 4);
    write(base->size() - 1000, 5);
    cached.fail_flushes(EIO, 1);
    EXPECT_FALSE(cached.flush());
    EXPECT_EQ(at(499), std::byte{1});
    EXPECT_EQ(at(500), std::byte{3});
    EXPECT_EQ(at(9000), std::byte{0});
    EXPECT_EQ(at(base->size() - 1), std::byte{0});
    // What is written afterwards is kept by a flush that succeeds.
    write(9000, 6);
    EXPECT_TRUE(cached.flush());
    cached.die();
    EXPECT_FALSE(cached.flush());
    EXPECT_EQ(at(9000), std::byte{6});
}

TEST_F(FaultyDeviceTest, SlowAndStuck) {
    DeviceFault fault;
    fault.effect = Effect::Slow;
    fault.delay = 20ms;
    fault.times = 1;
    device.add(fault);
    const auto start = monotonic_now();
    EXPECT_EQ(read(0), 0);
    EXPECT_GE(monotonic_now() - start, 20ms);

    fault.effect = Effect::Stick;
    fault.times = DeviceFault::for_good;
    fault.kinds = {Kind::Write};
    device.add(fault);
    std::atomic<int> ended{0};
    Thread a("a", [&] {
        EXPECT_EQ(write(0, 1), 0);
        ++ended;
    });
    Thread b("b", [&] {
        EXPECT_EQ(write(0, 1), 0);
        ++ended;
    });
    while (device.stuck() != 2) this_thread::sleep(1ms);
    EXPECT_EQ(ended.load(), 0);
    EXPECT_EQ(read(0), 0);
    device.release_stuck();
    a.join();
    b.join();
    EXPECT_EQ(ended.load(), 2);
    EXPECT_EQ(device.stuck(), 0u);
    EXPECT_EQ(write(0, 2), 0);
}

}  // namespace
}  // namespace uext4
