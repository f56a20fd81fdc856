// How many blocks a file is said to have, before it has them and afterwards.
#include "api/file_system.h"
#include "tests/doubles/memory_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

namespace uext4::blocks_test {
namespace {

class BlocksOf : public testing::TestWithParam<const char*> {};

TEST_P(BlocksOf, ArePromisedAsTheyWillBe) {
    const Credentials root = Credentials::root();
    const std::string path = fmt::format("/dev/shm/uext4-blocks-{}", ::getpid());
    ASSERT_EQ(std::system(fmt::format("mke2fs -q -F -t ext4 {} {} 64M", GetParam(), path).c_str()), 0);
    auto memory = MemoryDevice::load(path);
    ::unlink(path.c_str());
    ASSERT_TRUE(memory);
    auto fs = FileSystem::mount_device(std::shared_ptr<BlockDevice>(std::move(*memory)), {});
    ASSERT_TRUE(fs) << fs.error().what;
    auto file = (*fs)->open_path("/file", O_CREAT | O_RDWR, 0644, root);
    ASSERT_TRUE(file) << file.error().what;
    const auto blocks = [&] { return (*fs)->attributes((*file)->inode())->st_blocks; };
    // Into the middle of what may be a cluster, then on, then into another one.
    constexpr struct {
        std::uint64_t at;
        std::size_t length;
    } writes[] = {{40'000, 1}, {0, 100'000}, {1 << 20, 5}};
    for (const auto& write : writes) {
        ASSERT_TRUE((*file)->write(write.at, std::vector<std::byte>(write.length, std::byte{'w'})));
        const blkcnt_t promised = blocks();
        ASSERT_TRUE((*file)->sync(false));
        EXPECT_EQ(promised, blocks()) << write.length << " bytes at " << write.at;
    }
    file->reset();
    EXPECT_TRUE((*fs)->unmount());
}

// More than one of fallocate's transactions gets, and less than there is.
TEST(Blocks, OfAnAllocationThatFindsTooFewLieBehindTheEnd) {
    const std::string path = fmt::format("/dev/shm/uext4-blocks-{}", ::getpid());
    ASSERT_EQ(std::system(fmt::format("mke2fs -q -F -t ext4 -b 1024 {} 128M", path).c_str()), 0);
    auto fs = FileSystem::mount(path, "", [](const std::string&) {});
    ASSERT_TRUE(fs) << fs.error().what;
    {
        auto file = (*fs)->open_path("/file", O_CREAT | O_RDWR, 0644, Credentials::root());
        ASSERT_TRUE(file) << file.error().what;
        ASSERT_TRUE((*file)->write(0, std::vector<std::byte>(3, std::byte{'w'})));
        const Result<void> done = (*file)->fallocate(0, 0, std::uint64_t{1} << 30);
        ASSERT_FALSE(done);
        EXPECT_EQ(done.error().code, ENOSPC);
        auto found = (*fs)->attributes((*file)->inode());
        ASSERT_TRUE(found);
        EXPECT_EQ(found->st_size, 3);
        EXPECT_GT(found->st_blocks * 512, 100 << 20);
    }
    EXPECT_TRUE((*fs)->unmount());
    fs->reset();
    EXPECT_EQ(std::system(fmt::format("e2fsck -fn {} >/dev/null 2>&1", path).c_str()), 0);
    ::unlink(path.c_str());
}

// What shares a cluster with something else is counted once. The number is the kernel's, which goes by the superblock.
TEST(Clusters, ThatNoFileCanHaveAreCountedAsTheSuperblockDoes) {
    for (const auto& [mke2fs, size] :
         {std::pair("-C 65536", "300M"), {"-b 1024 -C 8192", "300M"}, {"-C 65536", "256M"}}) {
        SCOPED_TRACE(fmt::format("{} {}", mke2fs, size));
        const std::string path = fmt::format("/dev/shm/uext4-blocks-{}", ::getpid());
        ASSERT_EQ(std::system(fmt::format("mke2fs -q -F -t ext4 -O bigalloc {} {} {}", mke2fs, path, size).c_str()), 0);
        const auto told = [&](const char* what) {
            const std::string command = fmt::format("dumpe2fs -h {} 2>/dev/null | sed -n 's/^{}: *//p'", path, what);
            std::FILE* pipe = ::popen(command.c_str(), "r");
            char line[64] = "";
            EXPECT_NE(std::fgets(line, sizeof line, pipe), nullptr) << what;
            ::pclose(pipe);
            return std::strtoull(line, nullptr, 10);
        };
        const std::uint64_t ratio = told("Cluster size") / told("Block size");
        const std::uint64_t wanted = told("Block count") - told("Overhead clusters") * ratio;
        auto memory = MemoryDevice::load(path);
        ::unlink(path.c_str());
        ASSERT_TRUE(memory);
        auto fs = FileSystem::mount_device(std::shared_ptr<BlockDevice>(std::move(*memory)), {});
        ASSERT_TRUE(fs) << fs.error().what;
        EXPECT_EQ((*fs)->statistics()->f_blocks, wanted);
        EXPECT_TRUE((*fs)->unmount());
    }
}

INSTANTIATE_TEST_SUITE_P(Formats, BlocksOf,
                         testing::Values("", "-b 1024", "-O bigalloc -C 65536", "-b 1024 -O bigalloc -C 16384"));

}  // namespace
}  // namespace uext4::blocks_test
