// Transactions while the journal runs: room, time, freed blocks, file contents, and devices that fail.
#include "sync/thread.h"
#include "tests/doubles/faulty_device.h"
#include "tests/doubles/recording_device.h"
#include "tests/fixtures/log_fixture.h"

#include <algorithm>
#include <atomic>

namespace uext4::test {
namespace {

std::unique_ptr<Journal> open_journal(BufferCache& cache, const LogShape& shape, bool with_log) {
    if (!with_log) return Journal::create_without_log(cache, quiet());
    auto opened = Journal::open(cache, log_runs(shape), quiet());
    EXPECT_TRUE(opened) << opened.error().what;
    return opened ? std::move(*opened) : nullptr;
}

TEST(JournalLife, ACheckpointWritesHomeAndCloseLeavesAnEmptyLog) {
    const LogShape shape;
    auto device = make_log(shape);
    Mounted m(*device, shape);
    m.set(10, 1);
    EXPECT_EQ(byte_of(*device, shape, 10), 0u);
    EXPECT_TRUE(*needs_recovery(*device, shape.block_size, log_runs(shape)));
    ASSERT_TRUE(m.journal->checkpoint_all());
    EXPECT_EQ(byte_of(*device, shape, 10), 1u);
    Handle handle = m.start();
    m.put(handle, 12, 3);
    handle.stop();
    ASSERT_TRUE(m.journal->close());
    EXPECT_EQ(byte_of(*device, shape, 12), 3u);
    EXPECT_FALSE(*needs_recovery(*device, shape.block_size, log_runs(shape)));
    EXPECT_EQ(m.journal->start(1).error().code, EROFS);
}

TEST(JournalLife, ATransactionThatIsTooBigIsRefusedAndAFullOneMakesRoom) {
    const LogShape shape;
    auto device = make_log(shape);
    Mounted m(*device, shape);
    const unsigned most = m.journal->max_credits();
    EXPECT_LE(most, shape.log_blocks / 4);
    EXPECT_EQ(m.journal->start(most + 1).error().code, ENOSPC);
    Handle handle = m.start(most - 2);
    EXPECT_TRUE(handle.extend(most));
    EXPECT_FALSE(handle.extend(most + 1));
    EXPECT_TRUE(handle.restart(most));
    handle.stop();
    for (unsigned round = 1; round <= 20; ++round) {
        Handle big = m.start(most);
        for (unsigned k = 0; k < most; ++k) m.put(big, 10 + k, round);
    }
    ASSERT_TRUE(m.journal->close());
    EXPECT_EQ(byte_of(*device, shape, 10), 20u);
    EXPECT_EQ(byte_of(*device, shape, 10 + most - 1), 20u);
}

// Whoever restarts with what it knew before its structures grew would find no room in the same transaction, for ever.
TEST(JournalLife, ARestartHasWhatAnExtensionWasRefused) {
    const LogShape shape;
    auto device = make_log(shape);
    Mounted m(*device, shape);
    const unsigned most = m.journal->max_credits();
    {
        Handle before = m.start(most);
        for (unsigned k = 0; k < most - 8; ++k) m.put(before, 10 + k, 1);
    }
    Handle handle = m.start(4);
    const Tid tid = handle.tid();
    EXPECT_FALSE(handle.extend(12));
    ASSERT_TRUE(handle.restart(4));
    EXPECT_GT(handle.tid(), tid);
    EXPECT_GE(handle.credits(), 12u);
    // It is forgotten then.
    ASSERT_TRUE(handle.restart(4));
    EXPECT_EQ(handle.credits(), 4u);
    handle.stop();
    ASSERT_TRUE(m.journal->close());
}

LogShape one_at_a_time() {
    LogShape shape;
    shape.log_blocks = 64;  // room for one transaction
    return shape;
}

// A transaction is in the log, and whoever brings it home sticks where the log's tail moves.
void commit_before_a_stuck_tail(Mounted& m, FaultyDevice& device, const LogShape& shape) {
    Handle first = m.start();
    for (unsigned k = 0; k < 14; ++k) m.put(first, 10 + k, 1);
    const Tid tid = first.tid();
    first.stop();
    DeviceFault stick;
    stick.effect = DeviceFault::Effect::Stick;
    stick.kinds = {DeviceRequest::Kind::Fua};
    stick.offset = log_place(shape, 0).value * shape.block_size;
    stick.length = shape.block_size;
    stick.skip = 1;  // the first tells that the log is in use
    device.add(stick);
    ASSERT_TRUE(m.journal->commit(tid));
}

// What a checkpoint frees counts only once the superblock tells of it; who starts meanwhile waits.
TEST(JournalLife, AHandleWaitsForATailThatIsBeingMoved) {
    const LogShape shape = one_at_a_time();
    const auto device = std::make_shared<FaultyDevice>(make_log(shape));
    Mounted m(*device, shape);
    ASSERT_NO_FATAL_FAILURE(commit_before_a_stuck_tail(m, *device, shape));
    Thread mover("mover", [&] { EXPECT_TRUE(m.journal->checkpoint_all()); });
    while (device->stuck() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    Thread starter("starter", [&] {
        Handle handle = m.start();
        m.put(handle, 10, 2);
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    device->clear();
    starter.join();
    mover.join();
    ASSERT_TRUE(m.journal->close());
    EXPECT_EQ(byte_of(*device, shape, 10), 2u);
}

// Whoever waits for the log, for room or for a commit, is told of its end at once, also where it comes from elsewhere
// and the device answers nobody.
TEST(JournalLife, AnAbortEndsAllWaiting) {
    const LogShape shape = one_at_a_time();
    const auto device = std::make_shared<FaultyDevice>(make_log(shape));
    Mounted m(*device, shape);
    ASSERT_NO_FATAL_FAILURE(commit_before_a_stuck_tail(m, *device, shape));
    Thread mover("mover", [&] { (void)m.journal->checkpoint_all(); });
    while (device->stuck() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::atomic<int> started{-1}, checkpointed{-1};
    Thread starter("starter", [&] {
        const Result<Handle> handle = m.journal->start(4);
        started = handle ? 0 : handle.error().code;
    });
    Thread other("other", [&] {
        const Result<void> done = m.journal->checkpoint_all();
        checkpointed = done ? 0 : done.error().code;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(started.load(), -1);
    EXPECT_EQ(checkpointed.load(), -1);
    m.journal->abort(Error{EIO, "a flush elsewhere failed"});
    for (int i = 0; i < 10000 && (started < 0 || checkpointed < 0); ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_EQ(started.load(), EROFS);
    EXPECT_EQ(checkpointed.load(), EIO);
    device->clear();
    starter.join(), other.join(), mover.join();
    (void)m.journal->close();
}

// Whatever the device is at, and however full the log, another thread may begin a change: transactions of all sizes
// that are not full, one behind the other, in blocks that are home when they are changed again, but for one that each
// of them changes.
TEST(JournalLife, AHandleIsHadWhileTheDeviceFlushes) {
    const LogShape shape;
    const auto device = std::make_shared<FaultyDevice>(make_log(shape));
    Mounted m(*device, shape);
    constexpr unsigned hot = 5, first = 10, last = 1900, rounds = 300;  // more blocks than the log holds
    std::atomic<unsigned> flushes{0}, refused{0};
    std::vector<Thread> waiting;
    DeviceFault look;
    look.kinds = {DeviceRequest::Kind::Flush, DeviceRequest::Kind::Fua};
    look.predicate = [&](const DeviceRequest&) {
        ++flushes;
        const auto had = std::make_shared<std::atomic<bool>>(false);
        Thread other("other", [&m, had] {
            EXPECT_TRUE(m.journal->start(1));
            *had = true;
        });
        for (unsigned ms = 0; ms < 10000 && !*had; ++ms) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        if (*had) return false;
        // It waits for what this thread is about to do: it is waited for later.
        ++refused;
        waiting.push_back(std::move(other));
        return false;
    };
    device->add(look);
    const unsigned most = m.journal->max_credits() - 3;
    unsigned next = first;
    for (unsigned round = 0; round < rounds && refused == 0; ++round) {
        const unsigned blocks = 1 + round * 37 % (most - 1);
        if (next + blocks > last) next = first;
        Handle handle = m.start(blocks + 1);
        for (unsigned k = 0; k < blocks; ++k) m.put(handle, next + k, round);
        m.put(handle, hot, round);
        next += blocks;
        const Tid tid = handle.tid();
        handle.stop();
        ASSERT_TRUE(m.journal->commit(tid));
    }
    EXPECT_EQ(refused, 0u) << "of " << flushes;
    device->clear();
    waiting.clear();
    ASSERT_TRUE(m.journal->close());
    EXPECT_GT(m.journal->counters().checkpoints, rounds / 2);
}

TEST(JournalLife, ARequestForAFutureTransactionAsksForNothing) {
    const LogShape shape;
    auto device = make_log(shape);
    Mounted m(*device, shape);
    m.journal->request_commit(1000000);
    Handle handle = m.start();
    m.put(handle, 10, 1);
    const Tid tid = handle.tid();
    handle.stop();
    this_thread::sleep(std::chrono::milliseconds(50));
    EXPECT_FALSE(m.journal->is_durable(tid));
}

TEST(JournalLife, TheTimerCommits) {
    const LogShape shape;
    auto device = make_log(shape);
    JournalOptions options;
    options.commit_interval = std::chrono::milliseconds(20);
    Mounted m(*device, shape, options);
    Handle handle = m.start();
    m.put(handle, 10, 1);
    const Tid tid = handle.tid();
    handle.stop();
    for (int i = 0; i < 500 && !m.journal->is_durable(tid); ++i) this_thread::sleep(std::chrono::milliseconds(10));
    EXPECT_TRUE(m.journal->is_durable(tid));
}

// What a transaction holds is memory: while the log takes its time nobody adds to one that holds twice what it should,
// however much the log could take. Who has a handle open waits for nothing.
TEST(JournalLife, WhatATransactionHoldsInMemoryIsBounded) {
    const LogShape shape;
    const auto device = std::make_shared<FaultyDevice>(make_log(shape));
    JournalOptions options = quiet();
    options.max_transaction_bytes = 8 * shape.block_size;
    Mounted m(*device, shape, options);
    m.set(10, 1);
    DeviceFault stick;
    stick.effect = DeviceFault::Effect::Stick;
    stick.kinds = {DeviceRequest::Kind::Write};
    device->add(stick);
    Thread committer("committer", [&] { m.set(11, 1); });
    while (device->stuck() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    Handle open = m.start(32);
    const Tid tid = open.tid();
    for (unsigned i = 0; i < 12; ++i) m.put(open, 20 + i, 2);
    Thread early("early", [&] { m.start(4).stop(); });  // less than twice as much
    early.join();
    for (unsigned i = 12; i < 24; ++i) m.put(open, 20 + i, 2);
    std::atomic<Tid> joined{0};
    Thread starter("starter", [&] { joined = m.start(4).tid(); });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(joined.load(), 0u);
    EXPECT_TRUE(open.extend(40));
    m.put(open, 60, 2);
    open.stop();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_EQ(joined.load(), 0u);
    device->clear();
    committer.join();
    starter.join();
    EXPECT_GT(joined.load(), tid);
    ASSERT_TRUE(m.journal->close());
    EXPECT_EQ(byte_of(*device, shape, 60), 2u);
}

TEST(JournalLife, ABigTransactionIsCommittedUnasked) {
    const LogShape shape;
    auto device = make_log(shape);
    JournalOptions options = quiet();
    options.max_transaction_bytes = 8 * shape.block_size;
    Mounted m(*device, shape, options);
    Handle handle = m.start();
    for (unsigned i = 0; i < 12; ++i) m.put(handle, 10 + i, 1);
    const Tid tid = handle.tid();
    handle.stop();
    for (int i = 0; i < 500 && !m.journal->is_durable(tid); ++i) this_thread::sleep(std::chrono::milliseconds(10));
    EXPECT_TRUE(m.journal->is_durable(tid));
}

// Freed blocks take no place in memory by themselves, but what is remembered of them does.
TEST(JournalLife, ATransactionThatFreesMuchIsCommittedUnasked) {
    const LogShape shape;
    auto device = make_log(shape);
    JournalOptions options = quiet();
    options.max_transaction_bytes = 8 * shape.block_size;
    Mounted m(*device, shape, options);
    Handle handle = m.start();
    m.put(handle, 10, 1);
    const unsigned freed = 8 * shape.block_size / 128;
    for (unsigned i = 0; i < freed; ++i) {
        ASSERT_TRUE(handle.revoke(BlockNr(20 + i)));
        handle.on_durable([] {});
    }
    const Tid tid = handle.tid();
    handle.stop();
    for (int i = 0; i < 500 && !m.journal->is_durable(tid); ++i) this_thread::sleep(std::chrono::milliseconds(10));
    EXPECT_TRUE(m.journal->is_durable(tid));
}

TEST(JournalLife, ABlockFreedWhileItsImageWaitsNeverGoesHome) {
    const LogShape shape;
    auto device = make_log(shape);
    Mounted m(*device, shape);
    m.set(10, 1);
    m.set(11, 1);
    Handle handle = m.start();
    ASSERT_TRUE(handle.revoke(BlockNr(10)));
    handle.stop();
    ASSERT_TRUE(m.journal->checkpoint_all());
    EXPECT_EQ(byte_of(*device, shape, 10), 0u);
    EXPECT_EQ(byte_of(*device, shape, 11), 1u);
    EXPECT_FALSE(m.cache.find(BlockNr(10)));
}

TEST(JournalLife, ABlockThatIsAlwaysBusyDoesNotStopCheckpoints) {
    LogShape shape;
    shape.log_blocks = 164;
    auto device = make_log(shape);
    Mounted m(*device, shape);
    for (unsigned i = 0; i < 400; ++i) {
        Handle handle = m.start(4);
        m.put(handle, 10, i);
        m.put(handle, 11 + i % 50, i);
        const Tid tid = handle.tid();
        handle.stop();
        m.journal->request_commit(tid);
        if (i % 2) {
            ASSERT_TRUE(m.journal->commit(tid));
        }
    }
    ASSERT_TRUE(m.journal->close());
    EXPECT_EQ(byte_of(*device, shape, 10), 399u & 255);
}

TEST(JournalLife, ALogOfAsynchronousCommitsGoesOnWithOrderedOnes) {
    LogShape shape;
    shape.sums = Sums::v1;
    auto device = make_log(shape);
    format::JournalSuper super = super_of(*device, shape);
    super.feature_incompat = super.feature_incompat | j::incompat_async_commit;
    ASSERT_TRUE(device->write(log_place(shape, 0).value * shape.block_size, bytes_of(super)));
    Mounted m(*device, shape);
    m.set(10, 1);
    EXPECT_FALSE(super_of(*device, shape).has_incompat(j::incompat_async_commit));
    auto crashed = device->clone();
    recovered(*crashed, shape);
    EXPECT_EQ(byte_of(*crashed, shape, 10), 1u);
}

// The kernel sets the area at the end apart for fast commits once it has recovered the log, wherever that ended.
TEST(JournalLife, TheEndOfALogIsLeftToFastCommits) {
    constexpr std::uint32_t area = 40;
    for (const bool large : {true, false}) {
        SCOPED_TRACE(large ? "a log with room for them" : "a log that the kernel finds too small");
        LogShape shape;
        shape.log_blocks = 1024 + area - (large ? 0 : 1);
        auto device = make_log(shape);
        const auto change_super = [&](auto change) {
            format::JournalSuper super = super_of(*device, shape);
            change(super);
            super.checksum = format::journal_super_checksum(super);
            ASSERT_TRUE(
                device->write(log_place(shape, 0).value * shape.block_size, std::as_bytes(std::span(&super, 1))));
        };
        change_super([&](format::JournalSuper& super) { super.num_fc_blocks = area; });
        JournalOptions options = quiet();
        options.reserves_fast_commit_area = true;
        const auto has_area = [&] { return super_of(*device, shape).has_incompat(j::incompat_fast_commit); };
        std::vector<std::byte> untouched(shape.block_size), block(shape.block_size);
        const auto touched = [&] {
            for (std::uint32_t i = shape.log_blocks - area; i < shape.log_blocks; ++i) {
                EXPECT_TRUE(device->read(log_place(shape, i).value * shape.block_size, block));
                if (block != untouched) return true;
            }
            return false;
        };
        {
            Mounted m(*device, shape, options);
            for (unsigned n = 0; n < 400; ++n) {
                Handle handle = m.start(8);
                for (unsigned k = 0; k < 6; ++k) m.put(handle, 10 + (n + k) % 50, n % 250 + 1);
                handle.stop();
                ASSERT_TRUE(m.journal->commit_all());
            }
            EXPECT_EQ(touched(), !large);
            EXPECT_EQ(has_area(), large) << "in use";
            const auto cut = device->clone();
            recovered(*cut, shape);
            EXPECT_EQ(byte_of(*cut, shape, 10 + 399 % 50), 399 % 250 + 1);
            ASSERT_TRUE(m.journal->close());
        }
        EXPECT_FALSE(has_area()) << "whoever does not know of them may use it";
        EXPECT_EQ(super_of(*device, shape).start, 0u);
    }
}

TEST(JournalLife, ManySmallTransactionsGoHomeTogether) {
    const LogShape shape;
    RecordingDevice device(make_log(shape));
    Mounted m(device, shape);
    for (unsigned i = 0; i < 40; ++i) m.set(10 + i % 20, i);
    (void)device.take_log();
    ASSERT_TRUE(m.journal->checkpoint_all());
    EXPECT_EQ(m.journal->counters().checkpoints, 40u);
    const auto log = device.take_log();
    const auto slow = std::ranges::count_if(log, [](const RecordedWrite& w) {
        return w.kind == RecordedWrite::Kind::Flush || w.kind == RecordedWrite::Kind::Fua;
    });
    EXPECT_LE(slow, 3);  // the blocks, the tail, the empty log
    for (unsigned b = 0; b < 20; ++b) EXPECT_EQ(byte_of(device, shape, 10 + b), 20 + b);
}

// What is written over the place where the log began is behind that: lost alone, the log would begin in the middle of
// it.
TEST(JournalLife, WhereTheLogBeginsIsDurableBeforeItsFormerPlaceIsWrittenTo) {
    const LogShape shape;
    RecordingDevice device(make_log(shape));
    Mounted m(device, shape);
    for (unsigned i = 0; i < 1000; ++i) m.set(10 + i % 20, i);
    const std::uint64_t super = log_place(shape, 0).value * shape.block_size;
    unsigned moves = 0;
    for (const RecordedWrite& w : device.log()) {
        if (w.kind == RecordedWrite::Kind::Flush || w.offset != super) continue;
        EXPECT_EQ(w.kind, RecordedWrite::Kind::Fua);
        ++moves;
    }
    EXPECT_GT(moves, 4u);
}

class EveryMode : public testing::TestWithParam<bool> {};

TEST_P(EveryMode, ADeadDeviceEndsEverythingWithoutHanging) {
    const LogShape shape;
    FaultyDevice device(make_log(shape));
    BufferCache cache(device, shape.block_size, shape.blocks, 1u << 20);
    auto journal = open_journal(cache, shape, GetParam());
    auto buffer = cache.read(BlockNr(10), "test");
    auto handle = journal->start(1);
    ASSERT_TRUE(buffer && handle);
    ASSERT_TRUE(handle->get_write_access(*buffer));
    const Tid tid = handle->tid();
    handle->stop();
    device.die();
    EXPECT_EQ(journal->commit(tid).error().code, EIO);
    EXPECT_FALSE(journal->checkpoint_all());
    EXPECT_FALSE(journal->close());
}

TEST_P(EveryMode, AFailedWriteHomeAborts) {
    const LogShape shape;
    FaultyDevice device(make_log(shape));
    BufferCache cache(device, shape.block_size, shape.blocks, 1u << 20);
    auto journal = open_journal(cache, shape, GetParam());
    auto buffer = cache.read(BlockNr(10), "test");
    auto handle = journal->start(1);
    ASSERT_TRUE(buffer && handle);
    ASSERT_TRUE(handle->get_write_access(*buffer));
    handle->stop();
    device.fail_range(DeviceRequest::Kind::Write, 10 * shape.block_size, shape.block_size);
    EXPECT_FALSE(journal->checkpoint_all());
    EXPECT_TRUE(journal->is_aborted());
    EXPECT_FALSE(journal->close());
}

struct Contents final : JournaledData {
    int value = 0, copies = 0;
    void copy_for_commit(BlockNr, Bytes out) override {
        ++copies;
        std::ranges::fill(out, static_cast<std::byte>(value));
    }
};

TEST_P(EveryMode, FileContentsAreCopiedAtCommitAndLeaveTheCacheOnceHome) {
    const LogShape shape;
    auto device = make_log(shape);
    BufferCache cache(*device, shape.block_size, shape.blocks, 1u << 20);
    auto journal = open_journal(cache, shape, GetParam());
    auto contents = std::make_shared<Contents>();
    std::vector<std::byte> out(16);
    for (int round = 1; round <= 2; ++round) {
        auto handle = journal->start(1);
        ASSERT_TRUE(handle);
        ASSERT_TRUE(handle->journal_data(BlockNr(20), contents));
        const Tid tid = handle->tid();
        handle->stop();
        contents->value = 40 + round;
        ASSERT_TRUE(journal->commit(tid));
        EXPECT_EQ(contents->copies, round);
        EXPECT_EQ(journal->read_journaled_data(BlockNr(20), 8, out), GetParam());
        if (GetParam()) {
            EXPECT_EQ(out[0], static_cast<std::byte>(40 + round));
        }
    }
    ASSERT_TRUE(journal->checkpoint_all());
    EXPECT_FALSE(journal->read_journaled_data(BlockNr(20), 8, out));
    EXPECT_FALSE(cache.find(BlockNr(20)));
    EXPECT_EQ(byte_of(*device, shape, 20), 42u);
    ASSERT_TRUE(journal->close());
}

INSTANTIATE_TEST_SUITE_P(Journal, EveryMode, testing::Bool(),
                         [](const auto& tested) { return tested.param ? "log" : "none"; });

}  // namespace
}  // namespace uext4::test
