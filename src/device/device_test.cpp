// Memory, slices, overlays, recordings and callbacks.
#include "device/callback_device.h"
#include "device/overlay_device.h"
#include "device/slice_device.h"
#include "sync/thread.h"
#include "tests/doubles/memory_device.h"
#include "tests/doubles/recording_device.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace uext4 {
namespace {

std::vector<std::byte> pattern(std::size_t size, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<std::byte> data(size);
    for (auto& b : data) b = static_cast<std::byte>(random());
    return data;
}

std::vector<std::byte> content(BlockDevice& device, std::uint64_t offset, std::size_t size) {
    std::vector<std::byte> data(size, std::byte{0xee});
    const auto result = device.read(offset, data);
    EXPECT_TRUE(result.has_value()) << result.error().what;
    return data;
}

template <class R>
int code_of(const R& result) {
    return result ? 0 : result.error().code;
}

TEST(MemoryDevice, ReadsBackWhatWasWrittenAndZerosElsewhere) {
    MemoryDevice device(1 << 20);
    const auto data = pattern(10000, 1);
    ASSERT_TRUE(device.write(4000, data));
    EXPECT_EQ(content(device, 4000, data.size()), data);
    EXPECT_TRUE(all_zero(content(device, 0, 4000)));
    EXPECT_TRUE(all_zero(content(device, 14000, 5000)));
    EXPECT_EQ(device.content()->page_count(), 4u);
    EXPECT_TRUE(device.flush());
    EXPECT_TRUE(device.write_fua(0, data));
}

TEST(MemoryDevice, RangesAreChecked) {
    MemoryDevice device(10000);
    std::vector<std::byte> byte(1);
    EXPECT_EQ(code_of(device.read(10000, byte)), EINVAL);
    EXPECT_EQ(code_of(device.write(~0ull, byte)), EINVAL);
    EXPECT_EQ(code_of(device.discard(1, ~0ull)), EINVAL);
    EXPECT_EQ(code_of(device.read(10000, Bytes{})), 0);
    EXPECT_EQ(code_of(device.write(9999, byte)), 0);
    device.set_read_only(true);
    EXPECT_EQ(code_of(device.write(0, byte)), EROFS);
    EXPECT_EQ(code_of(device.discard(0, 1)), EROFS);
    EXPECT_EQ(code_of(device.read(0, byte)), 0);
}

TEST(MemoryDevice, ScatterAndGather) {
    MemoryDevice device(1 << 20);
    const auto a = pattern(100, 1), b = pattern(5000, 2), c = pattern(0, 3);
    const ConstBytes in[] = {a, c, b};
    ASSERT_TRUE(device.writev(77, in));
    std::vector<std::byte> x(100), y(5000);
    const Bytes out[] = {x, y};
    ASSERT_TRUE(device.readv(77, out));
    EXPECT_EQ(x, a);
    EXPECT_EQ(y, b);
}

TEST(MemoryDevice, DiscardZeroesAndFreesPages) {
    MemoryDevice device(1 << 20);
    const auto data = pattern(40960, 1);
    ASSERT_TRUE(device.write(0, data));
    ASSERT_TRUE(device.discard(100, 200));     // within a page
    ASSERT_TRUE(device.discard(5000, 20000));  // parts of two pages and whole ones
    EXPECT_EQ(device.content()->page_count(), 6u);
    auto expected = data;
    std::fill_n(expected.begin() + 100, 200, std::byte{0});
    std::fill_n(expected.begin() + 5000, 20000, std::byte{0});
    EXPECT_EQ(content(device, 0, data.size()), expected);
    ASSERT_TRUE(device.discard(0, 1 << 20));
    EXPECT_EQ(device.content()->page_count(), 0u);
}

TEST(MemoryDevice, ClonesAreIndependent) {
    MemoryDevice device(1 << 20);
    const auto data = pattern(8192, 1), other = pattern(50, 2), third = pattern(4096, 3);
    ASSERT_TRUE(device.write(0, data));
    auto clone = device.clone();
    auto second = clone->clone();
    ASSERT_TRUE(device.write(10, other));
    ASSERT_TRUE(second->write(4096, third));
    EXPECT_EQ(content(*clone, 0, 8192), data);
    EXPECT_EQ(content(device, 10, 50), other);
    EXPECT_EQ(content(device, 4096, 4096), std::vector(data.begin() + 4096, data.end()));
    EXPECT_EQ(content(*second, 4096, 4096), third);
    MemoryDevice shared(device.content(), device.size());
    ASSERT_TRUE(shared.write(0, third));
    EXPECT_EQ(content(device, 0, 4096), third);
}

TEST(MemoryDevice, SavesAndLoads) {
    const std::string path = testing::TempDir() + "memory_device_" + std::to_string(getpid());
    MemoryDevice device(3 * 4096 + 100);
    const auto data = pattern(60, 1);
    ASSERT_TRUE(device.write(3 * 4096 + 40, data));
    ASSERT_TRUE(device.write(5, data));
    ASSERT_TRUE(device.save(path));
    auto loaded = MemoryDevice::load(path);
    unlink(path.c_str());
    ASSERT_TRUE(loaded) << loaded.error().what;
    EXPECT_EQ((*loaded)->size(), device.size());
    EXPECT_EQ((*loaded)->content()->page_count(), 2u);
    EXPECT_EQ(content(**loaded, 0, device.size()), content(device, 0, device.size()));
    EXPECT_EQ(code_of(MemoryDevice::load(path)), ENOENT);
    EXPECT_EQ(code_of(device.save("/nonexistent/folder/file")), ENOENT);
}

TEST(MemoryDevice, ManyThreads) {
    MemoryDevice device(1 << 20);
    std::vector<Thread> threads;
    for (unsigned t = 0; t < 4; ++t)
        threads.emplace_back("writer", [&device, t] {
            const auto data = pattern(3000, t);
            for (int i = 0; i < 200; ++i) {
                const std::uint64_t at = 3000ull * t + 12000ull * (i % 20);
                EXPECT_TRUE(device.write(at, data));
                EXPECT_EQ(content(device, at, data.size()), data);
                if (i % 50 == 0) {
                    EXPECT_EQ(content(*device.clone(), at, data.size()), data);
                }
            }
        });
}

TEST(SliceDevice, IsAWindow) {
    auto base = std::make_shared<MemoryDevice>(100000);
    auto slice = SliceDevice::make(base, 1000, 5000);
    ASSERT_TRUE(slice);
    EXPECT_EQ((*slice)->size(), 5000u);
    const auto data = pattern(5000, 1);
    ASSERT_TRUE((*slice)->write(0, data));
    EXPECT_EQ(content(*base, 1000, 5000), data);
    EXPECT_TRUE(all_zero(content(*base, 6000, 100)));
    const auto late = pattern(2, 1);
    EXPECT_EQ(code_of((*slice)->write(4999, late)), EINVAL);
    const ConstBytes two[] = {data, late};
    EXPECT_EQ(code_of((*slice)->writev(0, two)), EINVAL);
    ASSERT_TRUE((*slice)->discard(0, 10));
    EXPECT_TRUE(all_zero(content(*base, 1000, 10)));
    EXPECT_EQ(code_of(SliceDevice::make(base, 99999, 2)), EINVAL);
    EXPECT_EQ(code_of(SliceDevice::make(base, ~0ull, 2)), EINVAL);
}

TEST(OverlayDevice, NeverWritesTheBase) {
    auto base = std::make_shared<MemoryDevice>(5 * 4096 + 77);
    const auto original = pattern(base->size(), 1);
    ASSERT_TRUE(base->write(0, original));
    base->set_read_only(true);
    OverlayDevice overlay(base);
    EXPECT_FALSE(overlay.read_only());
    auto expected = original;
    std::mt19937 random(5);
    for (unsigned i = 0; i < 200; ++i) {
        const std::size_t at = random() % expected.size();
        const std::size_t length = random() % std::min<std::size_t>(expected.size() - at, 6000) + (i % 2);
        if (length > expected.size() - at) continue;
        const auto data = pattern(length, i);
        ASSERT_TRUE(overlay.write(at, data));
        std::copy(data.begin(), data.end(), expected.begin() + static_cast<std::ptrdiff_t>(at));
        ASSERT_EQ(content(overlay, 0, expected.size()), expected);
    }
    EXPECT_TRUE(overlay.flush());
    EXPECT_EQ(code_of(overlay.discard(0, 4096)), ENOTSUP);
    EXPECT_EQ(content(*base, 0, original.size()), original);
    EXPECT_GT(overlay.page_count(), 0u);
    EXPECT_EQ(code_of(overlay.write(expected.size(), pattern(1, 1))), EINVAL);
}

TEST(RecordingDevice, EveryPrefixCanBeRebuilt) {
    auto base = std::make_shared<MemoryDevice>(1 << 16);
    ASSERT_TRUE(base->write(0, pattern(100, 9)));
    auto before = base->clone();
    RecordingDevice device(base);
    ASSERT_TRUE(device.write(0, pattern(5000, 1)));
    ASSERT_TRUE(device.flush());
    device.mark("first");
    ASSERT_TRUE(device.write_fua(2000, pattern(512, 2)));
    ASSERT_TRUE(device.discard(40960, 4096));
    EXPECT_EQ(code_of(device.write(1 << 16, pattern(1, 1))), EINVAL);
    const auto log = device.log();
    ASSERT_EQ(log.size(), 5u);
    EXPECT_EQ(log[0].kind, RecordedWrite::Kind::Write);
    EXPECT_EQ(log[1].kind, RecordedWrite::Kind::Flush);
    EXPECT_EQ(log[2].label, "first");
    EXPECT_EQ(log[3].kind, RecordedWrite::Kind::Fua);
    EXPECT_EQ(log[4].kind, RecordedWrite::Kind::Discard);
    EXPECT_STREQ(recorded_kind_name(log[4].kind), "discard");

    auto none = before->clone(), first = before->clone(), all = before->clone();
    ASSERT_TRUE(RecordingDevice::replay(log, 0, *none));
    ASSERT_TRUE(RecordingDevice::replay(log, 3, *first));
    ASSERT_TRUE(RecordingDevice::replay(log, 99, *all));
    EXPECT_EQ(content(*none, 0, 8192), content(*before, 0, 8192));
    EXPECT_EQ(content(*first, 0, 5000), pattern(5000, 1));
    EXPECT_EQ(content(*all, 0, 8192), content(*base, 0, 8192));
    EXPECT_EQ(device.take_log().size(), 5u);
    EXPECT_EQ(device.log_size(), 0u);
}

// The image may be a file of another file system of ours, whose locks come in an order of their own.
TEST(CallbackDevice, ItsFunctionsMayTakeAnyLock) {
    Mutex inner(Rank::Leaf, "of the one"), outer(Rank::Call, "of the other");
    DeviceCallbacks callbacks;
    int taken = 0;
    const auto take = [&](const auto&...) {
        const MutexLock guard(outer);
        ++taken;
        return 0;
    };
    callbacks.read = take;
    callbacks.write = callbacks.write_fua = take;
    callbacks.flush = take;
    callbacks.discard = take;
    CallbackDevice device(10000, callbacks, "nested");
    std::vector<std::byte> some(512);
    const MutexLock held(inner);
    EXPECT_EQ(code_of(device.read(0, some)), 0);
    EXPECT_EQ(code_of(device.write(0, some)), 0);
    EXPECT_EQ(code_of(device.write_fua(0, some)), 0);
    EXPECT_EQ(code_of(device.flush()), 0);
    EXPECT_EQ(code_of(device.discard(0, 512)), 0);
    EXPECT_EQ(taken, 5);
#if UEXT4_CHECKS
    EXPECT_TRUE(holds_rank(Rank::Leaf));
#endif
}

TEST(CallbackDevice, GathersSmallParts) {
    MemoryDevice disk(4 << 20);
    std::vector<std::size_t> requests;
    DeviceCallbacks callbacks;
    callbacks.read = [&](std::uint64_t offset, void* out, std::size_t length) {
        requests.push_back(length);
        return code_of(disk.read(offset, Bytes(static_cast<std::byte*>(out), length)));
    };
    callbacks.write = [&](std::uint64_t offset, const void* in, std::size_t length) {
        requests.push_back(length);
        return code_of(disk.write(offset, ConstBytes(static_cast<const std::byte*>(in), length)));
    };
    CallbackDevice device(disk.size(), callbacks);
    for (const std::size_t large : {std::size_t{0}, std::size_t{4096}, std::size_t{1} << 20}) {
        const auto data = pattern((200 << 12) + large, 5);
        std::vector<std::byte> back(data.size());
        std::vector<ConstBytes> in;
        std::vector<Bytes> out;
        for (std::size_t at = 0; at < data.size();) {
            const std::size_t n = at == 100 << 12 && large ? large : 4096;
            in.push_back(ConstBytes(data).subspan(at, n));
            out.push_back(Bytes(back).subspan(at, n));
            at += n;
        }
        const std::size_t most = large > 4096 ? 5 : 4;
        requests.clear();
        ASSERT_TRUE(device.writev(12345, in));
        EXPECT_LE(requests.size(), most);
        requests.clear();
        ASSERT_TRUE(device.readv(12345, out));
        EXPECT_LE(requests.size(), most);
        EXPECT_EQ(back, data);
    }
    ASSERT_TRUE(device.writev(0, {}));
    const auto one = pattern(4096, 1);
    const ConstBytes beyond[] = {one, one};
    EXPECT_EQ(code_of(device.writev(disk.size() - 4096, beyond)), EINVAL);
}

TEST(CallbackDevice, PassesRequestsAndErrorsOn) {
    std::vector<std::byte> disk(8192);
    int flushes = 0, closed = 0;
    int answer = 0;
    {
        DeviceCallbacks callbacks;
        callbacks.read = [&](std::uint64_t offset, void* out, std::size_t length) {
            std::memcpy(out, disk.data() + offset, length);
            return answer;
        };
        callbacks.write = [&](std::uint64_t offset, const void* in, std::size_t length) {
            std::memcpy(disk.data() + offset, in, length);
            return answer;
        };
        callbacks.flush = [&] {
            ++flushes;
            return 0;
        };
        callbacks.close = [&] { ++closed; };
        CallbackDevice device(disk.size(), callbacks, "mine");
        const auto data = pattern(100, 1);
        ASSERT_TRUE(device.write_fua(50, data));
        EXPECT_EQ(flushes, 1);
        EXPECT_EQ(content(device, 50, 100), data);
        EXPECT_EQ(code_of(device.discard(0, 1)), ENOTSUP);
        EXPECT_EQ(code_of(device.write(8192, data)), EINVAL);
        answer = -ENOSPC;
        const auto failed = device.write(7, data);
        ASSERT_FALSE(failed);
        EXPECT_EQ(failed.error().code, ENOSPC);
        EXPECT_NE(failed.error().what.find("mine"), std::string::npos);
        answer = EIO;
        std::vector<std::byte> out(1);
        EXPECT_EQ(code_of(device.read(0, out)), EIO);
    }
    EXPECT_EQ(closed, 1);
    CallbackDevice nothing(100, {});
    std::vector<std::byte> out(1);
    EXPECT_TRUE(nothing.read_only());
    EXPECT_EQ(code_of(nothing.read(0, out)), ENOTSUP);
    EXPECT_EQ(code_of(nothing.write(0, out)), EROFS);
    EXPECT_EQ(code_of(nothing.flush()), 0);
}

}  // namespace
}  // namespace uext4
