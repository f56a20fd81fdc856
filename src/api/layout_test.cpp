// Where blocks of files come to lie: files written side by side do not interleave.
#include "api/file_system.h"
#include "file/file_io.h"
#include "tests/doubles/memory_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <cstdlib>

namespace uext4::layout_test {
namespace {

const Credentials root = Credentials::root();

std::size_t pieces_of(Inode& inode) {
    std::size_t pieces = 0;
    BlockNr next;
    EXPECT_TRUE(for_each_extent(inode, 0, inode.size_hint(), [&](const Mapping& m) {
        if (m.block != next) ++pieces;
        next = m.block + m.length / inode.fs().block_size();
        return true;
    }));
    return pieces;
}

enum class Then : std::uint8_t { sync, write_back };

// Files that grow by turns, `step` bytes at a time; `behind`: into so many bytes that they have been given, once or,
// all so many steps, again.
void grow_by_turns(std::size_t count, std::size_t step, std::uint64_t steps, Then then, std::size_t most_pieces,
                   std::uint64_t behind = 0, std::uint64_t again = 0) {
    const std::string path = fmt::format("/dev/shm/uext4-layout-{}", ::getpid());
    ASSERT_EQ(std::system(fmt::format("mke2fs -q -F -t ext4 -b 4096 {} 128M >/dev/null", path).c_str()), 0);
    auto memory = MemoryDevice::load(path);
    ::unlink(path.c_str());
    ASSERT_TRUE(memory);
    auto fs = FileSystem::mount_device(std::shared_ptr<BlockDevice>(std::move(*memory)), {});
    ASSERT_TRUE(fs) << fs.error().what;
    {
        std::vector<std::unique_ptr<OpenFile>> files;
        for (std::size_t f = 0; f < count; ++f) {
            auto file = (*fs)->open_path(fmt::format("/f{}", f), O_CREAT | O_RDWR, 0644, root);
            ASSERT_TRUE(file) << file.error().what;
            ASSERT_TRUE(!behind || (*file)->fallocate(FALLOC_FL_KEEP_SIZE, 0, behind));
            files.push_back(std::move(*file));
        }
        const std::vector<std::byte> data(step, std::byte{1});
        for (std::uint64_t n = 0; n < steps; ++n) {
            for (auto& file : files) {
                ASSERT_TRUE(!again || n % again != 0 || file->fallocate(FALLOC_FL_KEEP_SIZE, n * data.size(), behind));
                ASSERT_TRUE(file->write(n * data.size(), data));
                ASSERT_TRUE(then == Then::sync ? file->sync(true) : write_back(file->inode()));
            }
        }
        for (auto& file : files) EXPECT_LE(pieces_of(file->inode()), most_pieces);
    }
    EXPECT_TRUE((*fs)->unmount());
}

TEST(Layout, FilesAppendedAndSyncedByTurnsStayWhole) { grow_by_turns(4, 4096, 256, Then::sync, 8); }

// The last block goes to another place each time, and behind the others when it is full.
TEST(Layout, FilesThatEndWithinABlockStayWhole) {
    for (const std::size_t step : {std::size_t{100}, std::size_t{1000}, std::size_t{4120}, std::size_t{10'000}}) {
        SCOPED_TRACE(step);
        grow_by_turns(4, step, 600, Then::sync, 10);
    }
}

// What the moves have left is not free before a commit.
TEST(Layout, AFileThatEndsWithinABlockStaysWholeWithinATransaction) {
    for (const std::size_t step : {std::size_t{100}, std::size_t{1000}, std::size_t{20'000}}) {
        SCOPED_TRACE(step);
        grow_by_turns(1, step, 200, Then::write_back, 8);
    }
}

// The last block leaves the place that it was given, and comes back when it is full.
TEST(Layout, FilesThatGrowIntoBlocksOfTheirOwnStayWhole) {
    for (const std::size_t step : {std::size_t{100}, std::size_t{1000}, std::size_t{4120}, std::size_t{10'000}}) {
        SCOPED_TRACE(step);
        grow_by_turns(4, step, 600, Then::sync, 10, 8 << 20);
    }
}

// A little more of them each time, as it comes to their end.
TEST(Layout, AFileThatIsGivenBlocksAgainAndAgainStaysWhole) {
    for (const std::uint64_t every : {20U, 100U}) {
        SCOPED_TRACE(every);
        grow_by_turns(1, 1500, 2000, Then::sync, 30, 30 * 4096, every);
    }
}

}  // namespace
}  // namespace uext4::layout_test
