// What a call that fails has promised, chosen or zeroed before: nothing of it may be seen, or stay behind.
#include "inode/inode.h"
#include "tests/faults/faulty_mount.h"

#include <linux/falloc.h>

namespace uext4::faults {
namespace {

using Kind = DeviceRequest::Kind;

std::uint64_t physical_of(OpenFile& file, std::uint64_t offset) {
    MutexLock guard(file.inode().map_lock);
    const auto m = file.inode().extent_status().lookup(offset, 1);
    EXPECT_TRUE(m && m->state == BlockState::mapped);
    return m ? m->block.value : 0;
}

// A tail is zeroed in place where there is no block to swap it for and no log. The device writes a part of that, and
// says no.
TEST(TakenBack, WhatATruncateZeroedThatFailed) {
    FaultyMount m(fresh_image("-b 1024 -O bigalloc,^has_journal -C 8192"));
    ASSERT_TRUE(m.mount());
    auto file = m.open("/f");
    ASSERT_TRUE(file->write(0, filled(29939, 'x')));
    ASSERT_TRUE(file->sync(false));
    DeviceFault torn;
    torn.effect = DeviceFault::Effect::Torn;
    torn.kinds = {Kind::Write};
    torn.offset = physical_of(*file, 12694) * 1024;
    torn.length = 1024;
    torn.times = 1;
    torn.bytes = 512;
    const auto fault = m.faulty->add(torn);
    EXPECT_EQ(code_of(file->truncate(12694)), EIO);
    EXPECT_EQ(m.faulty->hits(fault), 1u);
    EXPECT_EQ(read_all(*m.fs, "/f"), std::string(29939, 'x'));
    ASSERT_TRUE(file->sync(false));
    EXPECT_EQ(read_all(m.durable(), "/f"), std::string(29939, 'x'));
    file.reset();
    EXPECT_TRUE(m.fs->unmount());
    EXPECT_EQ(read_all(m.memory, "/f"), std::string(29939, 'x'));
    expect_sound(m.memory, "after the unmount");
}

// Blocks of a cluster that is in use already were chosen for data that the device does not take; then the cluster's
// named blocks are cut off.
TEST(TakenBack, BlocksOfAClusterWhoseOthersAreCutOff) {
    FaultyMount m(fresh_image("-b 1024 -O bigalloc -C 8192"));
    ASSERT_TRUE(m.mount());
    auto file = m.open("/f"), other = m.open("/g");
    ASSERT_TRUE(file->write(6 * 1024, filled(2048, 'x')));
    ASSERT_TRUE(file->sync(false));
    const std::uint64_t cluster = physical_of(*file, 6 * 1024) - 6;
    const auto fault = m.faulty->fail_range(Kind::Write, cluster * 1024, 5 * 1024);
    ASSERT_TRUE(file->write(0, filled(5 * 1024, 'y')));
    EXPECT_EQ(code_of(file->sync(false)), EIO);
    ASSERT_TRUE(file->truncate(5 * 1024));
    ASSERT_TRUE(other->write(0, filled(10, 'z')));
    ASSERT_TRUE(other->sync(false));
    expect_sound(m.durable(), "with what cannot be written");
    m.faulty->remove(fault);
    ASSERT_TRUE(file->sync(false));
    EXPECT_EQ(read_all(m.durable(), "/f"), std::string(5 * 1024, 'y'));
    file.reset(), other.reset();
    EXPECT_TRUE(m.fs->unmount());
    EXPECT_EQ(m.fs->volume().fs().allocator.allocated_clusters(), 0u);
    expect_sound(m.memory, "after the unmount");
}

// A journaled write that finds no blocks, as the bitmap cannot be read, leaves no promise: the file's size follows the
// writes after it.
TEST(TakenBack, ThePromiseOfAJournaledWrite) {
    for (const char* format : {"-b 1024", "-b 4096", "-b 1024 -O bigalloc -C 8192"}) {
        FaultyMount m(fresh_image(format));
        ASSERT_TRUE(m.mount("data=journal"));
        auto file = m.open("/f"), other = m.open("/g");
        ASSERT_TRUE(file->sync(false));
        const auto fault = m.faulty->fail_reads();
        EXPECT_FALSE(file->write(0, filled(8522, 'x')));
        EXPECT_GT(m.faulty->hits(fault), 0u);
        m.faulty->remove(fault);
        ASSERT_TRUE(file->write(35690, filled(6789, 'y')));
        ASSERT_TRUE(other->write(0, filled(10, 'z')));
        ASSERT_TRUE(other->sync(false));
        const auto cut = m.durable();
        EXPECT_EQ(read_all(cut, "/f"), std::string(35690, '\0') + std::string(6789, 'y')) << format;
        expect_sound(cut, format);
        file.reset(), other.reset();
        EXPECT_TRUE(m.fs->unmount());
        EXPECT_EQ(m.fs->volume().fs().allocator.reserved_clusters(), 0u);
        expect_sound(m.memory, format);
    }
}

// One folio of a journaled file with holes, blocks and unwritten blocks, each new block in a group of its own, whose
// bitmaps were not read yet. Whichever read fails: the write is done, or nothing of it is.
TEST(TakenBack, BlocksOfAJournaledWriteThatWereNamed) {
    auto image = fresh_image("-b 1024 -g 256 -m 0 -O ^resize_inode -N 256");
    constexpr std::uint64_t page = 4096, base = 5 * page;
    {
        FaultyMount m(image);
        ASSERT_TRUE(m.mount());
        auto file = m.open("/f"), big = m.open("/big");
        ASSERT_TRUE(file->write(base + 1024, filled(1024, 'b')));
        ASSERT_TRUE(file->fallocate(0, base + 3 * 1024, 1024));
        ASSERT_TRUE(file->sync(false));
        std::uint64_t end = 0;
        for (std::uint64_t piece : {1u << 20, 1u << 16, 1u << 10})
            while (big->fallocate(0, end, piece)) end += piece;
        for (std::uint64_t at = 0; at < end; at += 1 << 16)
            ASSERT_TRUE(big->write(at, filled(std::min<std::uint64_t>(1 << 16, end - at), 'S')));
        ASSERT_TRUE(big->sync(false));
        // Blocks are free again here and there, in some of the groups, and hold what nobody may see.
        for (std::uint64_t at = 1 << 20; at + 4096 < end; at += 1 << 20)
            ASSERT_TRUE(big->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, 1024));
        ASSERT_TRUE(big->sync(false));
        file.reset(), big.reset();
        ASSERT_TRUE(m.fs->unmount());
    }
    std::size_t refused = 0;
    for (std::uint64_t nth = 0;; ++nth) {
        const std::string what = fmt::format("read {} fails", nth);
        FaultyMount m(image->clone());
        ASSERT_TRUE(m.mount("data=journal"));
        auto file = m.open("/f", O_RDWR), other = m.open("/g");
        const std::string before = read_all(*m.fs, "/f");
        ASSERT_TRUE(other->sync(false));
        const auto fault = m.faulty->fail_reads(EIO, 1, nth);
        const auto written = file->write(base, filled(page, 'w'));
        const bool hit = m.faulty->hits(fault) != 0;
        m.faulty->clear();
        std::string after = before;
        if (written) {
            after.resize(std::max<std::size_t>(after.size(), base + page));
            after.replace(base, page, std::string(page, 'w'));
        } else {
            ++refused;
        }
        EXPECT_EQ(read_all(*m.fs, "/f"), after) << what;
        ASSERT_TRUE(other->write(0, filled(10, 'z')));
        const auto synced = other->sync(false);
        EXPECT_TRUE(synced) << what;
        EXPECT_EQ(read_all(m.durable(), "/f"), after) << what;
        expect_sound(m.durable(), what);
        const auto again = file->write(base, filled(page, 'w'));
        ASSERT_TRUE(again) << what << ": " << again.error().what;
        ASSERT_TRUE(file->sync(false)) << what;
        EXPECT_EQ(read_all(m.durable(), "/f").substr(base), std::string(page, 'w')) << what;
        file.reset(), other.reset();
        EXPECT_TRUE(m.fs->unmount()) << what;
        EXPECT_EQ(m.fs->volume().fs().allocator.reserved_clusters(), 0u) << what;
        expect_sound(m.memory, what);
        if (!hit) break;
    }
    EXPECT_GT(refused, 1u);
}

}  // namespace
}  // namespace uext4::faults
