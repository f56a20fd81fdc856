// What a power cut can leave: every prefix of the requests, and subsets of what was not flushed. After recovery the
// blocks are as they were after some transaction, not older than the last one that was reported durable.
#include "sync/thread.h"
#include "tests/doubles/recording_device.h"
#include "tests/fixtures/log_fixture.h"

#include <map>
#include <random>

namespace uext4::test {
namespace {

constexpr int anything = -1;
using Promised = std::map<std::uint64_t, int>;  // of the blocks whose contents are promised

struct History {
    LogShape shape;
    std::shared_ptr<MemoryDevice> before;
    std::vector<RecordedWrite> log;
    std::vector<Promised> states;  // state i is reached at mark i
};

// Changes blocks 10 to 49, frees some, writes file contents to the freed ones past the journal, uses those again.
History make_history(const LogShape& shape, unsigned transactions) {
    History h{shape, make_log(shape), {}, {}};
    auto memory = std::shared_ptr<MemoryDevice>(h.before->clone());
    RecordingDevice device(memory);
    std::mt19937 random(4711);
    Promised now;
    for (std::uint64_t b = 10; b < 50; ++b) now[b] = 0;
    h.states.push_back(now);
    const auto durable = [&] {
        h.states.push_back(now);
        device.mark("state");
    };
    {
        Mounted m(device, shape);
        for (unsigned i = 0; i < transactions; ++i) {
            const std::uint64_t freed = i % 4 == 3 ? 10 + random() % 40 : 0;
            Handle handle = m.start(8);
            for (int k = 0; k < 4; ++k) {
                const std::uint64_t b = 10 + random() % 40;
                if (b == freed) continue;
                now[b] = static_cast<int>(1 + random() % 250);
                m.put(handle, b, static_cast<unsigned>(now[b]));
            }
            if (freed) {
                EXPECT_TRUE(handle.revoke(BlockNr(freed)));
                now[freed] = anything;
            }
            handle.stop();
            if (i % 7 == 6) m.start().stop();
            EXPECT_TRUE(m.journal->commit_all());
            durable();
            if (!freed) continue;
            now[freed] = static_cast<int>(1 + random() % 250);
            const std::vector<std::byte> data(shape.block_size, static_cast<std::byte>(now[freed]));
            EXPECT_TRUE(device.write(freed * shape.block_size, data));
            EXPECT_TRUE(device.flush());
            durable();
            m.cache.invalidate(BlockNr(freed));
        }
        EXPECT_TRUE(m.journal->close());
    }
    h.log = device.take_log();
    return h;
}

bool is_state(BlockDevice& device, const LogShape& shape, const Promised& state) {
    for (const auto& [block, value] : state) {
        if (value == anything) continue;
        for (const std::size_t at : {std::size_t{0}, std::size_t{17}, std::size_t{shape.block_size - 1}})
            if (byte_of(device, shape, block, at) != static_cast<unsigned>(value)) return false;
    }
    return true;
}

// Between two marks the cut may fall before or after the one change they enclose.
testing::AssertionResult recovers(const History& h, MemoryDevice& device, std::size_t durable) {
    const auto report = recover(device, h.shape.block_size, h.shape.blocks, log_runs(h.shape));
    if (!report) return testing::AssertionFailure() << report.error().what;
    for (std::size_t i = durable; i < h.states.size() && i <= durable + 1; ++i)
        if (is_state(device, h.shape, h.states[i])) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "neither state " << durable << " nor the next";
}

class CrashStates : public testing::TestWithParam<LogShape> {};

TEST_P(CrashStates, EveryPrefixRecovers) {
    const History h = make_history(GetParam(), 60);
    auto disk = h.before->clone();
    std::size_t durable = 0;
    for (std::size_t i = 0; i < h.log.size(); ++i) {
        if (h.log[i].kind == RecordedWrite::Kind::Mark) ++durable;
        ASSERT_TRUE(RecordingDevice::apply(h.log[i], *disk));
        ASSERT_TRUE(recovers(h, *disk->clone(), durable)) << "after request " << i + 1 << " of " << h.log.size();
    }
}

TEST_P(CrashStates, WhatWasNotFlushedMayBeMissing) {
    const History h = make_history(GetParam(), 60);
    auto flushed = h.before->clone();
    std::size_t durable = 0, since = 0;
    std::mt19937 random(1);
    for (std::size_t i = 0; i < h.log.size(); ++i) {
        if (h.log[i].kind == RecordedWrite::Kind::Mark) ++durable;
        if (h.log[i].kind == RecordedWrite::Kind::Flush) {
            for (; since <= i; ++since) ASSERT_TRUE(RecordingDevice::apply(h.log[since], *flushed));
            continue;
        }
        for (int round = 0; round < 2; ++round) {
            auto disk = flushed->clone();
            for (std::size_t k = since; k <= i; ++k)
                if (h.log[k].kind == RecordedWrite::Kind::Fua || random() % 2) {
                    ASSERT_TRUE(RecordingDevice::apply(h.log[k], *disk));
                }
            ASSERT_TRUE(recovers(h, *disk, durable)) << "after request " << i + 1 << " of " << h.log.size();
        }
    }
}

TEST_P(CrashStates, ASecondCutDuringRecoveryChangesNothing) {
    const History h = make_history(GetParam(), 30);
    auto disk = h.before->clone();
    std::size_t durable = 0;
    for (std::size_t i = 0; i < h.log.size(); ++i) {
        if (h.log[i].kind == RecordedWrite::Kind::Mark) ++durable;
        ASSERT_TRUE(RecordingDevice::apply(h.log[i], *disk));
        if (i % 23 != 0) continue;
        RecordingDevice recording(std::shared_ptr<MemoryDevice>(disk->clone()));
        ASSERT_TRUE(recover(recording, h.shape.block_size, h.shape.blocks, log_runs(h.shape)));
        const auto writes = recording.take_log();
        auto again = disk->clone();
        for (const RecordedWrite& w : writes) {
            ASSERT_TRUE(RecordingDevice::apply(w, *again));
            ASSERT_TRUE(recovers(h, *again->clone(), durable)) << "after request " << i + 1;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Journal, CrashStates,
                         testing::Values(LogShape{Sums::none, false, 1024, 164}, LogShape{Sums::v1, true, 1024, 164},
                                         LogShape{Sums::v2, false, 1024, 164},
                                         LogShape{Sums::v3, true, 1024, 164, 0xFFFFFFE8}),
                         [](const auto& tested) { return shape_name(tested.param); });

TEST(CrashStates, FourThreadsCountInSharedBlocks) {
    LogShape shape;
    shape.log_blocks = 300;
    auto device = make_log(shape);
    constexpr unsigned rounds = 300;
    std::shared_ptr<MemoryDevice> crashed;
    {
        Mounted m(*device, shape);
        std::vector<Thread> threads;
        for (unsigned t = 0; t < 4; ++t) {
            threads.emplace_back("count", [&m, t] {
                for (unsigned i = 0; i < rounds; ++i) {
                    Handle handle = m.start(2);
                    for (unsigned k = 0; k < 2; ++k) {
                        auto buffer = m.cache.read(BlockNr(30 + (t + i + k * 3) % 6), "test");
                        ASSERT_TRUE(buffer);
                        ASSERT_TRUE(handle.get_write_access(*buffer));
                        MutexLock guard((*buffer)->lock);
                        auto& count = view_as<Le32>((*buffer)->data());
                        count = count + 1;
                    }
                    const Tid tid = handle.tid();
                    handle.stop();
                    if (i % 10 == t) {
                        ASSERT_TRUE(m.journal->commit(tid));
                    }
                }
            });
        }
        for (Thread& t : threads) t.join();
        ASSERT_TRUE(m.journal->commit_all());
        crashed = device->clone();
    }
    recovered(*crashed, shape);
    unsigned sum = 0;
    for (std::uint64_t b = 30; b < 36; ++b) {
        std::vector<std::byte> bytes(shape.block_size);
        ASSERT_TRUE(crashed->read(b * shape.block_size, bytes));
        sum += view_as<Le32>(ConstBytes(bytes));
    }
    EXPECT_EQ(sum, 4 * rounds * 2);
}

}  // namespace
}  // namespace uext4::test
