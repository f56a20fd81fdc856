// What a file may grow to, while its contents are in the inode and behind that.
#include "api/file_system.h"
#include "device/file_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

namespace uext4::largest_size_test {
namespace {

const Credentials root = Credentials::root();

struct Case {
    const char* format;
    bool extents;
};

class LargestSize : public testing::TestWithParam<Case> {
protected:
    void SetUp() override {
        path_ = fmt::format("/dev/shm/uext4-largest-size-{}", ::getpid());
        const std::string make = fmt::format("mke2fs -q -F -t ext4 {} {} 32M >/dev/null", GetParam().format, path_);
        ASSERT_EQ(std::system(make.c_str()), 0) << make;
        auto device = FileDevice::open(path_, {});
        ASSERT_TRUE(device) << device.error().what;
        auto fs = FileSystem::mount_device(std::shared_ptr<BlockDevice>(std::move(*device)), {});
        ASSERT_TRUE(fs) << fs.error().what;
        fs_ = std::move(*fs);
    }
    void TearDown() override {
        if (fs_) EXPECT_TRUE(fs_->unmount());
        fs_.reset();
        EXPECT_EQ(std::system(fmt::format("e2fsck -fn {} >/dev/null 2>&1", path_).c_str()), 0);
        ::unlink(path_.c_str());
    }
    std::unique_ptr<OpenFile> make(const char* path) {
        auto file = fs_->open_path(path, O_CREAT | O_RDWR, 0644, root);
        EXPECT_TRUE(file) << file.error().what;
        EXPECT_TRUE((*file)->write(0, bytes));
        return std::move(*file);
    }

    static constexpr std::array<std::byte, 10> bytes{};
    std::string path_;
    std::unique_ptr<FileSystem> fs_;
};

TEST_P(LargestSize, IsThatOfTheMapThatTheFileWillHave) {
    const format::Geometry& g = fs_->volume().geometry();
    const std::uint64_t limit = GetParam().extents ? g.max_extent_file_size : g.max_indirect_file_size;
    const auto code = [](const auto& result) { return result ? 0 : result.error().code; };
    EXPECT_EQ(code(make("/written")->write(limit, bytes)), EFBIG);
    EXPECT_EQ(code(make("/longer")->truncate(limit + 1)), EFBIG);
    EXPECT_EQ(code(make("/allocated")->fallocate(FALLOC_FL_KEEP_SIZE, 0, 5000)), GetParam().extents ? 0 : EOPNOTSUPP);
    auto last = make("/last"), longest = make("/longest");
    const auto written = last->write(limit - 5, bytes);
    ASSERT_TRUE(written) << written.error().what;
    EXPECT_EQ(*written, 5u) << "what there is room for";
    EXPECT_TRUE(last->sync(false));
    const std::uint64_t largest = g.max_extent_file_size;
    EXPECT_EQ(code(fs_->copy_range(*last, limit, *longest, largest, 5)), EFBIG) << "of nothing, as by the kernel";
    EXPECT_EQ(code(fs_->copy_range(*last, limit, *longest, largest - 1, 5)), 0);
    EXPECT_TRUE(longest->truncate(limit));
    EXPECT_TRUE(longest->sync(false));
}

INSTANTIATE_TEST_SUITE_P(Formats, LargestSize,
                         testing::Values(Case{"-b 1024 -O ^inline_data", true},
                                         Case{"-b 1024 -O ^inline_data,^extents,^64bit", false},
                                         Case{"-b 1024 -I 256 -O inline_data", true},
                                         Case{"-b 1024 -I 256 -O inline_data,^extents,^64bit", false},
                                         Case{"-b 4096 -I 256 -O inline_data,^extents,^64bit", false}),
                         [](const auto& info) { return fmt::format("Format{}", info.index); });

}  // namespace
}  // namespace uext4::largest_size_test
