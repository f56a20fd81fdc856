// Cuts, threads, and e2fsck as a judge.
#include "sync/thread.h"
#include "tests/doubles/faulty_device.h"
#include "tests/doubles/recording_device.h"
#include "tests/fixtures/log_fixture.h"

#include <array>
#include <cstdio>
#include <cstdlib>

#include <unistd.h>

namespace uext4::test {
namespace {

// Every prefix of what was written recovers to a state that was committed, and never to one older than promised.
TEST(LogCrash, EveryPrefixOfTheWritesIsACommittedState) {
    LogShape shape;
    shape.log_blocks = 200;
    auto base = make_log(shape);
    auto before = base->clone();
    auto device = std::make_shared<RecordingDevice>(base);
    constexpr unsigned rounds = 60, width = 5;
    {
        Mounted m(*device, shape);
        for (unsigned n = 1; n <= rounds; ++n) {
            Handle h = m.start();
            for (unsigned i = 0; i < width; ++i) m.put(h, 30 + i, n);
            m.put(h, 100 + n, n);
            if (n > 3) {
                ASSERT_TRUE(h.revoke(BlockNr(100 + n - 3)));
            }
            h.stop();
            ASSERT_TRUE(m.journal->commit_all());
            device->mark(std::to_string(n));
        }
        ASSERT_TRUE(m.journal->close());
    }
    const auto log = device->log();
    unsigned promised = 0;
    for (std::size_t count = 0; count <= log.size(); ++count) {
        if (count > 0) {
            ASSERT_TRUE(RecordingDevice::apply(log[count - 1], *before));
            if (log[count - 1].kind == RecordedWrite::Kind::Mark)
                promised = static_cast<unsigned>(std::stoul(log[count - 1].label));
        }
        auto cut = before->clone();
        auto report = recover(*cut, shape.block_size, shape.blocks, log_runs(shape));
        ASSERT_TRUE(report) << count << ": " << report.error().what;
        const unsigned n = byte_of(*cut, shape, 30);
        ASSERT_GE(n, promised) << "after " << count << " writes";
        for (unsigned i = 1; i < width; ++i)
            ASSERT_EQ(byte_of(*cut, shape, 30 + i), n) << "after " << count << " writes";
        if (n > 0) {
            ASSERT_EQ(byte_of(*cut, shape, 100 + n), n) << "after " << count << " writes";
        }
    }
    EXPECT_EQ(promised, rounds);
}

// What a transaction changes before it frees the block never goes home in place of what was committed of it: the log
// has no room, so the older images go home while that transaction runs.
TEST(LogCrash, WhatIsChangedAndFreedGoesHomeAsItWasCommitted) {
    LogShape shape;
    shape.log_blocks = 164;
    constexpr unsigned width = 8, rounds = 120, counter = 20, never_committed = 255;
    using Values = std::array<unsigned, width>;  // of the blocks from 30 on; 0: free, so it may hold anything
    std::vector<Values> committed(1);
    auto base = make_log(shape);
    auto before = base->clone();
    auto device = std::make_shared<RecordingDevice>(base);
    {
        Mounted m(*device, shape);
        const auto commit = [&](Handle handle, const Values& values) {
            m.put(handle, counter, static_cast<unsigned>(committed.size()));
            committed.push_back(values);
            handle.stop();
            ASSERT_TRUE(m.journal->commit_all());
        };
        for (unsigned n = 1; n <= rounds; ++n) {
            Values values = committed.back();
            Handle use = m.start(4);
            m.put(use, 30 + n % width, n);
            values[n % width] = n;
            commit(std::move(use), values);
            Handle free = m.start(4);
            const unsigned freed = (n + 3) % width;
            m.put(free, 30 + freed, never_committed);
            ASSERT_TRUE(free.revoke(BlockNr(30 + freed)));
            values[freed] = 0;
            commit(std::move(free), values);
        }
        ASSERT_GT(m.journal->counters().checkpoints, rounds);
        ASSERT_TRUE(m.journal->close());
    }
    for (const RecordedWrite& write : device->log()) {
        ASSERT_TRUE(RecordingDevice::apply(write, *before));
        auto cut = before->clone();
        recovered(*cut, shape);
        const unsigned n = byte_of(*cut, shape, counter);
        for (unsigned i = 0; i < width; ++i)
            if (const unsigned value = committed[n][i]; value != 0) {
                ASSERT_EQ(byte_of(*cut, shape, 30 + i), value) << "block " << i << " after " << n << " commits";
            }
    }
}

// Whichever request fails, once: what a commit said is durable is there after a cut, at once and later.
TEST(LogCrash, NoRequestFailsUnseen) {
    LogShape shape;
    shape.log_blocks = 164;
    constexpr unsigned rounds = 60, freed = 3;
    for (const FailedFlush loses : {FailedFlush::Keeps, FailedFlush::Drops}) {
        bool all_met = false;
        for (std::uint64_t nth = 0; !all_met; ++nth) {
            const auto memory = make_log(shape);
            const auto device = std::make_shared<FaultyDevice>(memory, loses);
            Mounted m(*device, shape);
            DeviceFault fault;
            fault.kinds = {DeviceRequest::Kind::Write, DeviceRequest::Kind::Fua, DeviceRequest::Kind::Flush};
            fault.skip = nth;
            fault.times = 1;
            const auto number = device->add(fault);
            unsigned promised = 0;
            const auto look = [&](const char* when) {
                const auto cut = memory->clone();
                recovered(*cut, shape);
                EXPECT_GE(byte_of(*cut, shape, 30), promised) << when << ", request " << nth;
                for (unsigned n = promised < freed ? 1 : promised - freed + 1; n <= promised; ++n)
                    EXPECT_EQ(byte_of(*cut, shape, 100 + n), n) << when << ", request " << nth;
            };
            bool is_met = false;
            for (unsigned n = 1; n <= rounds && !testing::Test::HasFailure(); ++n) {
                auto handle = m.journal->start(8);
                if (!handle) break;
                m.put(*handle, 30, n);
                m.put(*handle, 100 + n, n);
                if (n > freed && !handle->revoke(BlockNr(100 + n - freed))) break;
                handle->stop();
                if (m.journal->commit_all()) promised = n;
                if (!is_met && device->hits(number) > 0) {
                    is_met = true;
                    look("at once");
                }
            }
            look("at the end");
            all_met = !is_met;
            ASSERT_FALSE(testing::Test::HasFailure());
            if (all_met) {
                EXPECT_EQ(promised, rounds);
                EXPECT_GT(nth, rounds * 2u) << "a commit has a flush and a commit record";
            }
        }
    }
}

TEST(LogCrash, CountersOfFourThreadsAreRecovered) {
    LogShape shape;
    shape.log_blocks = 400;
    auto device = make_log(shape);
    JournalOptions options;
    options.commit_interval = std::chrono::milliseconds(3);
    Mounted m(*device, shape, options);
    constexpr unsigned threads = 4, rounds = 300;
    Mutex turn{Rank::Buffer, "counter"};
    std::vector<Thread> running;
    for (unsigned t = 0; t < threads; ++t) {
        running.emplace_back("counter", [&, t] {
            for (unsigned n = 0; n < rounds; ++n) {
                Handle h = m.start(4);
                const Tid tid = h.tid();
                {
                    MutexLock guard(turn);
                    for (const std::uint64_t block : {30 + t, 40u}) {
                        auto buffer = m.cache.read(BlockNr(block), "test");
                        ASSERT_TRUE(buffer);
                        ASSERT_TRUE(h.get_write_access(*buffer));
                        auto& value = view_as<Le32>((*buffer)->data());
                        value = value + 1;
                    }
                }
                h.stop();
                if (n % 16 == t) {
                    ASSERT_TRUE(m.journal->commit(tid));
                }
            }
        });
    }
    running.clear();
    ASSERT_TRUE(m.journal->commit_all());
    auto crashed = device->clone();
    recovered(*crashed, shape);
    const auto count = [&](std::uint64_t block) {
        Le32 value;
        EXPECT_TRUE(crashed->read(block * shape.block_size, std::as_writable_bytes(std::span(&value, 1))));
        return value.get();
    };
    for (unsigned t = 0; t < threads; ++t) EXPECT_EQ(count(30 + t), rounds);
    EXPECT_EQ(count(40), threads * rounds);
    ASSERT_TRUE(m.journal->close());
}

TEST(LogCrash, CheckpointsAmongCommitsAndFreeingLoseNothing) {
    LogShape shape;
    shape.log_blocks = 300;
    auto device = make_log(shape);
    Mounted m(*device, shape);
    constexpr unsigned rounds = 60;
    std::vector<Thread> running;
    for (unsigned t = 0; t < 2; ++t) {
        running.emplace_back("writer", [&, t] {
            for (unsigned n = 1; n <= rounds; ++n) {
                Handle h = m.start(8);
                m.put(h, 30 + t, n);
                m.put(h, 100 + t * rounds + n, n);
                if (n > 1) {
                    ASSERT_TRUE(h.revoke(BlockNr(99 + t * rounds + n)));
                }
                const Tid tid = h.tid();
                h.stop();
                ASSERT_TRUE(m.journal->commit(tid));
            }
        });
    }
    running.emplace_back("checkpointer", [&] {
        for (unsigned n = 0; n < 20; ++n) ASSERT_TRUE(m.journal->checkpoint_all());
    });
    running.clear();
    auto crashed = device->clone();
    recovered(*crashed, shape);
    for (unsigned t = 0; t < 2; ++t) EXPECT_EQ(byte_of(*crashed, shape, 30 + t), rounds);
    ASSERT_TRUE(m.journal->close());
    EXPECT_EQ(super_of(*device, shape).start, 0u);
    for (unsigned t = 0; t < 2; ++t) EXPECT_EQ(byte_of(*device, shape, 30 + t), rounds);
}

int run(const std::string& command) { return WEXITSTATUS(std::system(("(" + command + ") >/dev/null 2>&1").c_str())); }

// A real file system: block numbers of its journal, and of a file that is to be overwritten through the log.
std::vector<std::uint64_t> blocks_of(const std::string& image, const std::string& what) {
    std::vector<std::uint64_t> out;
    FILE* pipe = ::popen(("debugfs -R 'blocks " + what + "' " + image + " 2>/dev/null").c_str(), "r");
    unsigned long long n = 0;
    while (pipe && std::fscanf(pipe, "%llu", &n) == 1) out.push_back(n);
    if (pipe) ::pclose(pipe);
    return out;
}

class Oracle : public testing::TestWithParam<Sums> {};

TEST_P(Oracle, E2fsckReplaysWhatWeLogged) {
    if (::access("/usr/sbin/mke2fs", X_OK) != 0) GTEST_SKIP() << "no mke2fs";
    const std::string stem =
        "/dev/shm/uext4-journal-" + std::to_string(::getpid()) + "-" + std::to_string(static_cast<int>(GetParam()));
    const std::string image = stem + ".img", contents = stem + ".txt", judged = stem + "-judged.img";
    struct Remove {
        std::vector<std::string> names;
        ~Remove() {
            for (const std::string& name : names) ::unlink(name.c_str());
        }
    } const remove{{image, contents, judged}};
    ASSERT_EQ(run("head -c 65536 /dev/zero | tr '\\0' x > " + contents), 0);
    ASSERT_EQ(run("mke2fs -q -F -t ext4 -b 1024 -J size=4 -O metadata_csum,64bit " + image + " 24M"), 0);
    ASSERT_EQ(run("debugfs -w -R 'write " + contents + " f' " + image), 0);
    const auto log = blocks_of(image, "<8>"), file = blocks_of(image, "f");
    ASSERT_GE(log.size(), 4096u);
    ASSERT_EQ(file.size(), 64u);
    ASSERT_EQ(run("debugfs -w -R 'feature needs_recovery' " + image), 0);
    std::vector<BlockRun> runs;
    for (const std::uint64_t b : log) {
        if (!runs.empty() && runs.back().first.value + runs.back().count == b) ++runs.back().count;
        else runs.push_back({BlockNr(b), 1});
    }
    LogShape shape;
    shape.sums = GetParam();
    auto loaded = MemoryDevice::load(image);
    ASSERT_TRUE(loaded) << loaded.error().what;
    std::shared_ptr<MemoryDevice> device = std::move(*loaded);
    // The variant of the log is the journal superblock's own business.
    std::vector<std::byte> bytes(shape.block_size);
    ASSERT_TRUE(device->read(log[0] * shape.block_size, bytes));
    auto& super = view_as<format::JournalSuper>(Bytes(bytes));
    super.feature_compat = shape.sums == Sums::v1 ? j::compat_checksum : 0u;
    super.feature_incompat = j::incompat_64bit | (shape.sums == Sums::v3   ? j::incompat_csum_v3
                                                  : shape.sums == Sums::v2 ? j::incompat_csum_v2
                                                                           : 0u);
    super.checksum_type = super.checksum_v2or3() ? j::checksum_crc32c : std::uint8_t{0};
    super.checksum = super.checksum_v2or3() ? format::journal_super_checksum(super) : 0u;
    ASSERT_TRUE(device->write(log[0] * shape.block_size, bytes));

    BufferCache cache(*device, shape.block_size, device->size() / shape.block_size, 8u << 20);
    auto opened = Journal::open(cache, runs, quiet());
    ASSERT_TRUE(opened) << opened.error().what;
    for (unsigned n = 1; n <= 5; ++n) {
        auto h = (*opened)->start(80);
        ASSERT_TRUE(h);
        for (std::size_t i = n; i < file.size(); ++i) {
            auto buffer = cache.read(BlockNr(file[i]), "file");
            ASSERT_TRUE(buffer && h->get_write_access(*buffer));
            std::memset((*buffer)->data().data(), static_cast<int>(n), shape.block_size);
            if (i % 7 == 0) view_as<Be32>((*buffer)->data()) = j::magic;
        }
        if (n == 3) {
            ASSERT_TRUE(h->revoke(BlockNr(file[1])));
        }
        h->stop();
        ASSERT_TRUE((*opened)->commit_all());
    }
    ASSERT_TRUE(device->save(judged));
    // 1: errors were corrected, which the replay of a log counts as.
    EXPECT_LE(run("e2fsck -E journal_only -y " + judged), 1);
    EXPECT_EQ(run("e2fsck -fn " + judged), 0);
    auto theirs = MemoryDevice::load(judged);
    ASSERT_TRUE(theirs);
    ASSERT_TRUE(recover(*device, shape.block_size, device->size() / shape.block_size, runs));
    std::vector<std::byte> ours(shape.block_size), other(shape.block_size);
    for (std::size_t i = 0; i < file.size(); ++i) {
        ASSERT_TRUE(device->read(file[i] * shape.block_size, ours));
        ASSERT_TRUE((*theirs)->read(file[i] * shape.block_size, other));
        EXPECT_EQ(ours, other) << "block " << i << " of the file";
        const unsigned last = static_cast<unsigned>(std::min<std::size_t>(i, 5));
        EXPECT_EQ(std::to_integer<unsigned>(ours[17]), i <= 1 ? unsigned{'x'} : last)
            << "block " << i << " of the file";
    }
}

INSTANTIATE_TEST_SUITE_P(LogCrash, Oracle, testing::Values(Sums::none, Sums::v1, Sums::v2, Sums::v3));

}  // namespace
}  // namespace uext4::test
