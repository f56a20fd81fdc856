// What an operation leaves behind it: images in the log, bytes behind the end, free blocks and inodes.
#include "inode/attributes.h"
#include "tests/faults/faulty_mount.h"

#include <linux/falloc.h>

#include <cstring>

namespace uext4::faults {
namespace {

struct Block {
    alignas(4096) std::byte bytes[4096];
    explicit Block(char fill) { std::memset(bytes, fill, sizeof bytes); }
};

std::string all_of(char fill, std::size_t size = 4096) { return std::string(size, fill); }

// An image in the log is older than what goes past it once the flag is gone, and must not come home after a crash.
TEST(LeftOver, ImagesOfAFileThatIsJournaledNoMore) {
    auto image = fresh_image("-b 4096");
    FaultyMount m(image);
    ASSERT_TRUE(m.mount());
    auto file = m.open("/f");
    const std::uint32_t plain = m.fs->get_flags(file->inode()), journaled = plain | format::inode_flag::journal_data;
    ASSERT_TRUE(m.fs->set_flags(file->inode(), journaled, root, false));
    ASSERT_TRUE(file->write(0, filled(4096, 'a')));
    ASSERT_TRUE(file->sync(false));
    ASSERT_TRUE(m.fs->set_flags(file->inode(), plain, root, false));
    ASSERT_TRUE(file->write(0, filled(4096, 'b')));
    ASSERT_TRUE(file->sync(false));
    EXPECT_EQ(read_all(m.durable(), "/f"), all_of('b'));
    file.reset();
    EXPECT_TRUE(m.fs->unmount());
}

// Who asks for everything to be durable is told that the device lost it; who asks for the file later is not told that
// it is there. Nothing but the device knows: the overwrite has no transaction.
TEST(LeftOver, AnOverwriteThatAFlushLost) {
    auto image = fresh_image("-b 4096");
    FaultyMount m(image);
    ASSERT_TRUE(m.mount());
    auto file = m.open("/f");
    file->set_kernel_cached(true);
    ASSERT_TRUE(file->write(0, filled(4096, 'a')));
    ASSERT_TRUE(m.fs->sync());
    ASSERT_TRUE(file->write(0, filled(4096, 'b')));
    m.faulty->fail_flushes(EIO, 1);
    EXPECT_FALSE(m.fs->sync());
    m.faulty->clear();
    const bool said = file->sync(false).has_value();
    EXPECT_TRUE(!said || read_all(m.durable(), "/f") == all_of('b'));
    file.reset();
    (void)m.fs->unmount();
}

// A kernel's map has stored behind the end, in the last block: a direct write further on makes that a part of the file.
TEST(LeftOver, BytesBehindTheEnd) {
    auto image = fresh_image("-b 4096");
    std::uint64_t place = 0;
    {
        FaultyMount m(image);
        ASSERT_TRUE(m.mount());
        auto file = m.open("/f");
        ASSERT_TRUE(file->write(0, filled(1000, 'a')));
        ASSERT_TRUE(file->sync(false));
        place = place_of(file->inode());
        file.reset();
        ASSERT_TRUE(m.fs->unmount());
    }
    ASSERT_TRUE(image->write(place + 1000, filled(3096, 'x')));
    FaultyMount m(image);
    ASSERT_TRUE(m.mount());
    auto direct = m.open("/f", O_RDWR | O_DIRECT);
    const Block block('d');
    ASSERT_TRUE(direct->write(8192, block.bytes));
    direct.reset();
    const std::string expected = all_of('a', 1000) + all_of('\0', 7192) + all_of('d');
    EXPECT_EQ(read_all(*m.fs, "/f"), expected);
    ASSERT_TRUE(m.fs->unmount());
    EXPECT_EQ(read_all(image, "/f"), expected);
}

// The last free blocks are found in whichever of many groups they lie, far from where the file goes on, and in a short
// last one, whose bitmap begins with the first of them.
TEST(LeftOver, BlocksOfTheLastGroups) {
    auto image = fresh_image("-b 1024 -g 280 -m 0");
    FaultyMount m(image);
    ASSERT_TRUE(m.mount());
    auto file = m.open("/f");
    std::uint64_t end = 0;
    for (std::uint64_t step = 64 << 10; step >= 1024; step /= 2)
        for (;; end += step) {
            const auto done = file->fallocate(0, end, step);
            if (done) continue;
            EXPECT_EQ(done.error().code, ENOSPC) << done.error().what;
            break;
        }
    const auto full = m.fs->statistics();
    ASSERT_TRUE(full);
    EXPECT_GT(full->f_blocks, 64u * 280);
    EXPECT_LT(full->f_bfree, 16u);  // what the tree might have needed
    // Then there are some far behind where the file ends.
    ASSERT_TRUE(file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1 << 20));
    ASSERT_TRUE(file->sync(false));
    const auto more = file->fallocate(0, end, 16 << 10);
    EXPECT_TRUE(more) << more.error().what;
    file.reset();
    ASSERT_TRUE(m.fs->unmount());
    expect_clean(*image, "full to the last group");
}

// As many free inodes as before, once what was made is deleted.
TEST(LeftOver, CountsOfInodes) {
    auto image = fresh_image("-b 4096");
    FaultyMount m(image);
    ASSERT_TRUE(m.mount("", true));
    const auto before = m.fs->statistics();
    ASSERT_TRUE(before);
    const auto top = m.fs->root();
    ASSERT_TRUE(top);
    for (int i = 0; i < 50; ++i) {
        m.open("/f").reset();
        ASSERT_TRUE(m.fs->unlink(**top, "f", root, false));
    }
    m.open("/kept").reset();
    ASSERT_TRUE(m.fs->freeze());  // which ends deletions
    ASSERT_TRUE(m.fs->thaw());
    const auto after = m.fs->statistics();
    ASSERT_TRUE(after);
    EXPECT_EQ(after->f_ffree + 1, before->f_ffree);
    EXPECT_TRUE(m.fs->unmount());
}

}  // namespace
}  // namespace uext4::faults
