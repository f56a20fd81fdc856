#include "sync/thread.h"
#include "tests/doubles/faulty_device.h"
#include "tests/fixtures/log_fixture.h"

#include <atomic>

namespace uext4::test {
namespace {

class EveryFormat : public testing::TestWithParam<LogShape> {};

TEST_P(EveryFormat, WhatWasCommittedIsRecovered) {
    const LogShape shape = GetParam();
    auto device = make_log(shape);
    Mounted m(*device, shape);
    for (unsigned i = 0; i < 20; ++i) m.set(10 + i, i + 1);
    auto crashed = device->clone();
    EXPECT_EQ(byte_of(*crashed, shape, 10), 0u);
    EXPECT_EQ(recovered(*crashed, shape).transactions, 20u);
    for (unsigned i = 0; i < 20; ++i) EXPECT_EQ(byte_of(*crashed, shape, 10 + i), i + 1);
    ASSERT_TRUE(m.journal->close());
    for (unsigned i = 0; i < 20; ++i) EXPECT_EQ(byte_of(*device, shape, 10 + i), i + 1);
}

TEST_P(EveryFormat, ManyBlocksInOneTransactionNeedSeveralDescriptors) {
    const LogShape shape = GetParam();
    auto device = make_log(shape);
    Mounted m(*device, shape);
    Handle h = m.start(200);
    for (unsigned i = 0; i < 200; ++i) m.put(h, 100 + i, i + 1);
    h.stop();
    ASSERT_TRUE(m.journal->commit_all());
    auto crashed = device->clone();
    EXPECT_EQ(recovered(*crashed, shape).blocks, 200u);
    for (unsigned i = 0; i < 200; ++i) EXPECT_EQ(byte_of(*crashed, shape, 100 + i), (i + 1) & 255);
}

TEST_P(EveryFormat, BlocksThatBeginWithTheMagicAreEscaped) {
    const LogShape shape = GetParam();
    auto device = make_log(shape);
    Mounted m(*device, shape);
    Handle h = m.start();
    auto buffer = m.cache.read(BlockNr(5), "test");
    ASSERT_TRUE(buffer);
    ASSERT_TRUE(h.get_write_access(*buffer));
    view_as<Be32>((*buffer)->data()) = j::magic;
    view_as<Be32>((*buffer)->data(), 4) = 7u;
    h.stop();
    ASSERT_TRUE(m.journal->commit_all());
    auto crashed = device->clone();
    std::vector<std::byte> bytes(shape.block_size);
    // In the log nobody takes it for one of the log's own.
    unsigned without = 0;
    for (std::uint32_t i = 1; i < shape.log_blocks; ++i) {
        ASSERT_TRUE(crashed->read(log_place(shape, i).value * shape.block_size, bytes));
        if (view_as<Be32>(ConstBytes(bytes), 4).get() != 7u) continue;
        EXPECT_EQ(view_as<Be32>(ConstBytes(bytes)).get(), 0u);
        ++without;
    }
    EXPECT_EQ(without, 1u);
    recovered(*crashed, shape);
    ASSERT_TRUE(crashed->read(5 * shape.block_size, bytes));
    EXPECT_EQ(view_as<Be32>(ConstBytes(bytes)), j::magic);
    EXPECT_EQ(view_as<Be32>(ConstBytes(bytes), 4), 7u);
}

TEST_P(EveryFormat, ARevokedBlockIsNotReplayed) {
    const LogShape shape = GetParam();
    auto device = make_log(shape);
    Mounted m(*device, shape);
    m.set(20, 1);
    m.set(21, 2);
    Handle h = m.start();
    ASSERT_TRUE(h.revoke(BlockNr(20)));
    h.stop();
    ASSERT_TRUE(m.journal->commit_all());
    // The block is file data now.
    std::vector<std::byte> data(shape.block_size, std::byte{99});
    ASSERT_TRUE(device->write(20 * shape.block_size, data));
    m.set(22, 3);
    auto crashed = device->clone();
    EXPECT_EQ(recovered(*crashed, shape).revoked, 1u);
    EXPECT_EQ(byte_of(*crashed, shape, 20), 99u);
    // What was committed before the first revoke is there all the same.
    EXPECT_EQ(byte_of(*crashed, shape, 21), 2u);
    EXPECT_EQ(byte_of(*crashed, shape, 22), 3u);
    ASSERT_TRUE(m.journal->close());
    EXPECT_EQ(byte_of(*device, shape, 20), 99u);
}

TEST_P(EveryFormat, TheLogWraps) {
    const LogShape shape = GetParam();
    auto device = make_log(shape);
    Mounted m(*device, shape);
    for (unsigned round = 0; round < 400; ++round) {
        Handle h = m.start();
        for (unsigned i = 0; i < 8; ++i) m.put(h, 50 + (round * 3 + i) % 40, round);
        h.stop();
        ASSERT_TRUE(m.journal->commit_all());
        if (round % 50 != 49) continue;
        auto crashed = device->clone();
        recovered(*crashed, shape);
        for (unsigned i = 0; i < 8; ++i) EXPECT_EQ(byte_of(*crashed, shape, 50 + (round * 3 + i) % 40), round & 255);
    }
    EXPECT_GT(m.journal->counters().checkpoints, 0u);
}

INSTANTIATE_TEST_SUITE_P(Journal, EveryFormat,
                         testing::Values(LogShape{Sums::none, false}, LogShape{Sums::none, true},
                                         LogShape{Sums::v1, false}, LogShape{Sums::v1, true}, LogShape{Sums::v2, false},
                                         LogShape{Sums::v2, true}, LogShape{Sums::v3, false}, LogShape{Sums::v3, true}),
                         [](const auto& made) { return shape_name(made.param); });

TEST(Journal, ATransactionThatChangedNothingLeavesNoGapInTheLog) {
    const LogShape shape;
    auto device = make_log(shape);
    Mounted m(*device, shape);
    m.set(10, 1);
    m.start().stop();
    ASSERT_TRUE(m.journal->commit_all());
    m.set(11, 2);
    auto crashed = device->clone();
    recovered(*crashed, shape);
    EXPECT_EQ(byte_of(*crashed, shape, 10), 1u);
    EXPECT_EQ(byte_of(*crashed, shape, 11), 2u);
}

TEST(Journal, SequenceNumbersWrap) {
    LogShape shape;
    shape.sequence = 0xFFFFFFFE;
    auto device = make_log(shape);
    Mounted m(*device, shape);
    for (unsigned i = 0; i < 6; ++i) m.set(10, i + 1);
    auto crashed = device->clone();
    recovered(*crashed, shape);
    EXPECT_EQ(byte_of(*crashed, shape, 10), 6u);
}

TEST(Journal, ADurableTransactionCostsNoMoreRequests) {
    const LogShape shape;
    auto device = make_log(shape);
    Mounted m(*device, shape);
    m.set(10, 1);
    const auto before = m.journal->counters().commits;
    ASSERT_TRUE(m.journal->commit_all());
    ASSERT_TRUE(m.journal->commit_all());
    EXPECT_EQ(m.journal->counters().commits, before);
}

TEST(Journal, ABlockThatIsUsedAgainInTheSameTransactionIsLogged) {
    const LogShape shape;
    auto device = make_log(shape);
    Mounted m(*device, shape);
    m.set(20, 1);
    Handle h = m.start();
    ASSERT_TRUE(h.revoke(BlockNr(20)));
    m.put(h, 20, 5);
    h.stop();
    ASSERT_TRUE(m.journal->commit_all());
    auto crashed = device->clone();
    recovered(*crashed, shape);
    EXPECT_EQ(byte_of(*crashed, shape, 20), 5u);
}

TEST(Journal, ARunningTransactionIsNotRecovered) {
    const LogShape shape;
    auto device = make_log(shape);
    Mounted m(*device, shape);
    m.set(10, 1);
    Handle h = m.start();
    m.put(h, 10, 2);
    auto crashed = device->clone();
    recovered(*crashed, shape);
    EXPECT_EQ(byte_of(*crashed, shape, 10), 1u);
    h.stop();
    ASSERT_TRUE(m.journal->close());
    EXPECT_EQ(byte_of(*device, shape, 10), 2u);
}

TEST(Journal, ActionsHaveRunWhenTheCommitReturns) {
    const LogShape shape;
    auto device = make_log(shape);
    Mounted m(*device, shape);
    std::atomic<bool> done{false};
    Handle h = m.start();
    m.put(h, 10, 1);
    h.on_durable([&] {
        this_thread::sleep(std::chrono::milliseconds(30));
        done = true;
    });
    h.stop();
    ASSERT_TRUE(m.journal->commit_all());
    EXPECT_TRUE(done);
}

TEST(Journal, AFailedWriteAborts) {
    const LogShape shape;
    auto device = std::make_shared<FaultyDevice>(make_log(shape));
    unsigned calls = 0;
    JournalOptions options = quiet();
    options.on_abort = [&](const Error&) { ++calls; };
    Mounted m(*device, shape, options);
    m.set(10, 1);
    Handle h = m.start();
    m.put(h, 11, 2);
    h.stop();
    device->fail_writes(EIO, 1);
    EXPECT_EQ(m.journal->commit_all().error().code, EIO);
    EXPECT_TRUE(m.journal->is_aborted());
    EXPECT_EQ(m.journal->start(1).error().code, EROFS);
    EXPECT_EQ(m.journal->commit_all().error().code, EIO);
    EXPECT_FALSE(m.journal->close());
    EXPECT_EQ(calls, 1u);
}

TEST(Journal, AnAbortedJournalChangesNoBuffer) {
    const LogShape shape;
    auto device = make_log(shape);
    Mounted m(*device, shape);
    m.set(10, 1);
    Handle h = m.start();
    m.journal->abort(Error{EIO, "test"});
    auto buffer = m.cache.read(BlockNr(10), "test");
    ASSERT_TRUE(buffer);
    EXPECT_FALSE(h.get_create_access(*buffer));
    EXPECT_EQ(std::to_integer<unsigned>((*buffer)->data()[17]), 1u);
}

TEST(Journal, AnAbortIsRememberedInTheLog) {
    const LogShape shape;
    auto device = make_log(shape);
    {
        Mounted m(*device, shape);
        m.set(10, 1);
        m.journal->abort(Error{EIO, "test"});
        for (int i = 0; i < 200 && super_of(*device, shape).error == 0; ++i)
            this_thread::sleep(std::chrono::milliseconds(5));
    }
    EXPECT_NE(super_of(*device, shape).error, 0u);
    recovered(*device, shape);
    EXPECT_EQ(byte_of(*device, shape, 10), 1u);
}

TEST(Journal, MoreRevokesThanTheLogHoldsAreRefused) {
    LogShape shape;
    shape.log_blocks = 164;
    shape.blocks = 1u << 16;
    auto device = make_log(shape);
    Mounted m(*device, shape);
    m.set(10, 1);
    Handle h = m.start();
    for (std::uint64_t b = 5000; b < 45000; ++b) ASSERT_TRUE(h.revoke(BlockNr(b)));
    h.stop();
    EXPECT_FALSE(m.journal->commit_all());
    recovered(*device, shape);
    EXPECT_EQ(byte_of(*device, shape, 10), 1u);
}

}  // namespace
}  // namespace uext4::test
