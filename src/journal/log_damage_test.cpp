// What recovery makes of a log that is not as it was written.
#include "format/superblock.h"
#include "journal/log_reader.h"
#include "tests/fixtures/fast_commit_fixture.h"
#include "tests/fixtures/log_fixture.h"

namespace uext4::test {
namespace {

// Where the record of this type and sequence lies; 0: nowhere.
std::uint32_t find_record(BlockDevice& device, const LogShape& s, std::uint32_t type, std::uint32_t sequence) {
    std::vector<std::byte> bytes(s.block_size);
    for (std::uint32_t i = 1; i < s.log_blocks; ++i) {
        EXPECT_TRUE(device.read(log_place(s, i).value * s.block_size, bytes));
        const auto& h = view_as<format::JournalHeader>(ConstBytes(bytes));
        if (h.magic == j::magic && h.blocktype == type && h.sequence == sequence) return i;
    }
    return 0;
}

void flip(BlockDevice& device, const LogShape& s, std::uint32_t index, std::size_t at) {
    std::vector<std::byte> byte(1);
    const std::uint64_t offset = log_place(s, index).value * s.block_size + at;
    ASSERT_TRUE(device.read(offset, byte));
    byte[0] ^= std::byte{0x40};
    ASSERT_TRUE(device.write(offset, byte));
}

// Three transactions: block 10 becomes 1, 2, 3. The first one frees block 40 as well.
struct Three {
    explicit Three(Sums sums) : shape{sums, true} {
        auto device = make_log(shape);
        Mounted m(*device, shape);
        for (unsigned i = 1; i <= 3; ++i) {
            Handle h = m.start();
            m.put(h, 10, i);
            if (i == 1) {
                EXPECT_TRUE(h.revoke(BlockNr(40)));
            }
            h.stop();
            EXPECT_TRUE(m.journal->commit_all());
        }
        crashed = device->clone();
        first = super_of(*crashed, shape).sequence;
    }
    Result<RecoveryReport> recover_it() { return recover(*crashed, shape.block_size, shape.blocks, log_runs(shape)); }

    LogShape shape;
    std::unique_ptr<MemoryDevice> crashed;
    std::uint32_t first = 0;
};

TEST(LogDamage, ADescriptorOfACommittedTransactionThatLiesIsAnError) {
    for (const std::uint32_t n : {0u, 1u, 2u}) {
        Three t(Sums::v3);
        flip(*t.crashed, t.shape, find_record(*t.crashed, t.shape, j::descriptor, t.first + n), 13);
        const auto r = t.recover_it();
        ASSERT_FALSE(r) << "transaction " << n;
        EXPECT_EQ(r.error().code, EUCLEAN);
        EXPECT_EQ(byte_of(*t.crashed, t.shape, 10), 0u);
    }
}

TEST(LogDamage, ARevokeBlockOfACommittedTransactionThatLiesIsAnError) {
    Three t(Sums::v3);
    flip(*t.crashed, t.shape, find_record(*t.crashed, t.shape, j::revoke, t.first), 18);
    const auto r = t.recover_it();
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, EUCLEAN);
}

// Also where no checksum gives it away.
TEST(LogDamage, ARevokeBlockThatIsLongerThanItsBlockIsAnError) {
    for (const std::size_t count : {1020u, 1025u, 4096u, 65536u}) {
        Three t(Sums::none);
        const std::uint32_t at = find_record(*t.crashed, t.shape, j::revoke, t.first);
        std::vector<std::byte> block(t.shape.block_size);
        const std::uint64_t offset = log_place(t.shape, at).value * t.shape.block_size;
        ASSERT_TRUE(t.crashed->read(offset, block));
        view_as<format::JournalRevokeHeader>(Bytes(block)).count = static_cast<std::uint32_t>(count);
        ASSERT_TRUE(t.crashed->write(offset, block));
        const auto r = t.recover_it();
        if (count <= t.shape.block_size) {
            EXPECT_TRUE(r) << count << ": " << r.error().what;
            continue;
        }
        ASSERT_FALSE(r) << count;
        EXPECT_EQ(r.error().code, EUCLEAN);
    }
}

TEST(LogDamage, ADescriptorThatLiesInAnUnfinishedTransactionEndsTheLog) {
    Three t(Sums::v3);
    flip(*t.crashed, t.shape, find_record(*t.crashed, t.shape, j::descriptor, t.first + 2), 13);
    flip(*t.crashed, t.shape, find_record(*t.crashed, t.shape, j::commit, t.first + 2), 0);
    const auto r = t.recover_it();
    ASSERT_TRUE(r) << r.error().what;
    EXPECT_EQ(r->transactions, 2u);
    EXPECT_EQ(byte_of(*t.crashed, t.shape, 10), 2u);
}

TEST(LogDamage, ACommitRecordThatLiesEndsTheLog) {
    for (const Sums sums : {Sums::v2, Sums::v3}) {
        Three t(sums);
        flip(*t.crashed, t.shape, find_record(*t.crashed, t.shape, j::commit, t.first + 2), 60);
        const auto r = t.recover_it();
        ASSERT_TRUE(r) << r.error().what;
        EXPECT_EQ(byte_of(*t.crashed, t.shape, 10), 2u);
    }
}

// With the transactions behind it dropped in silence, what was durable would be lost, and their blocks lie in wait for
// a later log.
TEST(LogDamage, ACommitRecordThatLiesBeforeOthersIsAnError) {
    for (const Sums sums : {Sums::v2, Sums::v3}) {
        for (const std::uint32_t n : {0u, 1u}) {
            Three t(sums);
            flip(*t.crashed, t.shape, find_record(*t.crashed, t.shape, j::commit, t.first + n), 60);
            const auto r = t.recover_it();
            ASSERT_FALSE(r) << "transaction " << n;
            EXPECT_EQ(r.error().code, EUCLEAN);
            EXPECT_EQ(byte_of(*t.crashed, t.shape, 10), 0u);
        }
    }
}

// Whoever grows a mounted file system logs its larger superblock with the new groups; the cut leaves the smaller one.
TEST(LogDamage, AFileSystemThatGrewIsAsLargeAsItsLoggedSuperblockSays) {
    constexpr std::uint64_t before = 50, after = 1500;
    for (const std::uint64_t logged : {before, after, std::uint64_t{1} << 40}) {
        const LogShape shape;
        auto device = make_log(shape);
        {
            Mounted m(*device, shape);
            Handle handle = m.start();
            const auto super = m.cache.read(BlockNr(1), "superblock");
            ASSERT_TRUE(super);
            ASSERT_TRUE(handle.get_write_access(*super));
            auto& fields = view_as<format::SuperBlock>((*super)->data());
            fields.magic = format::super_magic;
            fields.blocks_count_lo = static_cast<std::uint32_t>(logged);
            fields.blocks_count_hi = static_cast<std::uint32_t>(logged >> 32);
            m.put(handle, 1499, 7);
            handle.stop();
            ASSERT_TRUE(m.journal->commit_all());
            device = device->clone();
        }
        const auto r = recover(*device, shape.block_size, before, log_runs(shape));
        ASSERT_EQ(r.has_value(), logged > before) << logged;
        EXPECT_EQ(byte_of(*device, shape, 1499), logged > before ? 7u : 0u);
    }
}

TEST(LogDamage, ARevokeOfABlockThatIsNotThereRevokesNothing) {
    Three t(Sums::v3);
    const auto r = recover(*t.crashed, t.shape.block_size, 30, log_runs(t.shape));  // block 40 is revoked
    ASSERT_TRUE(r) << r.error().what;
    EXPECT_EQ(byte_of(*t.crashed, t.shape, 10), 3u);
}

TEST(LogDamage, AnImageThatLiesIsAnErrorAndNotWritten) {
    for (const Sums sums : {Sums::v2, Sums::v3}) {
        Three t(sums);
        flip(*t.crashed, t.shape, find_record(*t.crashed, t.shape, j::descriptor, t.first + 2) + 1, 500);
        const auto r = t.recover_it();
        ASSERT_FALSE(r);
        EXPECT_EQ(r.error().code, EUCLEAN);
        // All is checked before the first write: the file system stays as the crash left it.
        EXPECT_EQ(byte_of(*t.crashed, t.shape, 10), 0u);
    }
}

TEST(LogDamage, TheOldChecksumEndsTheLogOnlyAtItsLastTransaction) {
    {
        Three t(Sums::v1);
        flip(*t.crashed, t.shape, find_record(*t.crashed, t.shape, j::descriptor, t.first + 2) + 1, 500);
        const auto r = t.recover_it();
        ASSERT_TRUE(r) << r.error().what;
        EXPECT_EQ(byte_of(*t.crashed, t.shape, 10), 2u);
    }
    {
        Three t(Sums::v1);
        flip(*t.crashed, t.shape, find_record(*t.crashed, t.shape, j::descriptor, t.first + 1) + 1, 500);
        const auto r = t.recover_it();
        ASSERT_FALSE(r);
        EXPECT_EQ(r.error().code, EUCLEAN);
    }
}

TEST(LogDamage, ATagOutsideOfTheFileSystemIsAnError) {
    Three t(Sums::none);
    const std::uint32_t at = find_record(*t.crashed, t.shape, j::descriptor, t.first);
    flip(*t.crashed, t.shape, at, 12);  // the highest byte of a block number
    const auto r = t.recover_it();
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, EUCLEAN);
    EXPECT_EQ(byte_of(*t.crashed, t.shape, 10), 0u);
}

TEST(LogDamage, ATagInsideOfTheLogIsAnError) {
    Three t(Sums::none);
    const std::uint64_t at =
        log_place(t.shape, find_record(*t.crashed, t.shape, j::descriptor, t.first + 1)).value * t.shape.block_size;
    const Be32 home(static_cast<std::uint32_t>(log_place(t.shape, 0).value));
    ASSERT_TRUE(t.crashed->write(at + 12, bytes_of(home)));
    const auto r = t.recover_it();
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().code, EUCLEAN);
    EXPECT_EQ(byte_of(*t.crashed, t.shape, 10), 0u);
}

// Finished fast commits stay where they are until what was made of them is durable: the log goes on expecting the
// transaction that takes their place.
TEST(LogDamage, FinishedFastCommitsAreReportedAndStay) {
    for (const bool finished : {false, true}) {
        Three t(Sums::v3);
        auto super = super_of(*t.crashed, t.shape);
        super.feature_incompat = super.feature_incompat | j::incompat_fast_commit;
        super.num_fc_blocks = 32u;
        super.checksum = format::journal_super_checksum(super);
        ASSERT_TRUE(t.crashed->write(log_place(t.shape, 0).value * t.shape.block_size, bytes_of(super)));
        FastCommitWriter writer(t.shape.block_size, t.first + 3);
        writer.name(format::fc_link, 2, 12, "name");
        if (finished) writer.commit();
        ASSERT_TRUE(
            t.crashed->write(log_place(t.shape, t.shape.log_blocks - 31).value * t.shape.block_size, writer.bytes()));
        for (int again = 0; again < 2; ++again) {
            const auto r = t.recover_it();
            ASSERT_TRUE(r) << r.error().what;
            EXPECT_EQ(r->fast_commits.any(), finished);
            EXPECT_EQ(byte_of(*t.crashed, t.shape, 10), 3u);
            const auto after = super_of(*t.crashed, t.shape);
            EXPECT_EQ(after.start != 0u, finished);
            EXPECT_EQ(after.sequence.get(), t.first + 3 + (finished ? 0 : 1));
        }
    }
}

TEST(LogDamage, NoSingleByteMakesRecoveryCrashOrHang) {
    for (const Sums sums : {Sums::none, Sums::v1, Sums::v3}) {
        Three t(sums);
        for (std::uint32_t index = 0; index < 12; ++index)
            for (std::size_t at = 0; at < 64; ++at) {
                auto copy = t.crashed->clone();
                flip(*copy, t.shape, index, at);
                (void)recover(*copy, t.shape.block_size, t.shape.blocks, log_runs(t.shape));
            }
    }
}

TEST(LogDamage, TheReaderTellsWhatTheLogHolds) {
    for (const Sums sums : {Sums::v2, Sums::v3}) {
        Three t(sums);
        flip(*t.crashed, t.shape, find_record(*t.crashed, t.shape, j::descriptor, t.first + 1) + 1, 500);
        const auto reader = LogReader::open(*t.crashed, t.shape.block_size, log_runs(t.shape));
        ASSERT_TRUE(reader);
        unsigned commits = 0, revokes = 0, lies = 0;
        ASSERT_TRUE(reader->walk([&](const LogRecord& r) -> Result<bool> {
            if (r.type == j::commit) {
                ++commits;
                EXPECT_GT(r.commit_seconds, 0u);
            }
            revokes += static_cast<unsigned>(r.revoked.size());
            for (const LogTag& tag : r.tags) {
                EXPECT_EQ(tag.block, BlockNr(10));
                const auto ok = reader->image_ok(r, tag);
                if (ok && !*ok) ++lies;
            }
            return true;
        }));
        EXPECT_EQ(commits, 3u);
        EXPECT_EQ(revokes, 1u);
        EXPECT_EQ(lies, 1u);
    }
}

TEST(LogDamage, RecoveryCutAtAnyPointCanBeDoneAgain) {
    Three t(Sums::v3);
    ASSERT_TRUE(recover(*t.crashed, t.shape.block_size, t.shape.blocks, log_runs(t.shape), false));
    EXPECT_EQ(recovered(*t.crashed, t.shape).transactions, 3u);
    EXPECT_EQ(byte_of(*t.crashed, t.shape, 10), 3u);
}

}  // namespace
}  // namespace uext4::test
