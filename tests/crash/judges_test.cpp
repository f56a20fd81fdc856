// The judges themselves: what they let pass is what it is said to be, and nothing else.
#include "tests/crash/judges.h"

#include "tests/crash/recorder.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

namespace uext4::crash {
namespace {

// An image that is cut while a file with inline data and a block of attributes is an orphan.
std::shared_ptr<MemoryDevice> with_an_orphan(const std::string& path) {
    const std::string make = fmt::format("mke2fs -q -F -t ext4 -O inline_data -I 256 -b 4096 {} 16M", path);
    EXPECT_EQ(std::system(make.c_str()), 0);
    auto loaded = MemoryDevice::load(path);
    ::unlink(path.c_str());
    if (!loaded) return nullptr;
    const std::shared_ptr<MemoryDevice> image = std::move(*loaded);
    std::shared_ptr<MemoryDevice> cut;
    {
        auto fs = FileSystem::mount_device(image, mount_options("ordered"));
        if (!fs) return nullptr;
        const Credentials root = Credentials::root();
        auto file = (*fs)->open_path("/f", O_CREAT | O_RDWR, 0644, root);
        if (!file) return nullptr;
        const std::string value(370, 'x');
        EXPECT_TRUE((*fs)->set_xattr((*file)->inode(), "user.x", std::as_bytes(std::span(value)), 0, root, false));
        EXPECT_TRUE((*fs)->sync());
        EXPECT_TRUE((*fs)->unlink(**(*fs)->root(), "f", root, false));
        EXPECT_TRUE((*fs)->sync());
        cut = image->clone();
    }
    return cut;
}

TEST(Judges, OnlyTheAttributeBlockOfAnOrphanMayBeForgotten) {
    const std::string path = fmt::format("/dev/shm/uext4-judges-{}", ::getpid());
    const std::shared_ptr<MemoryDevice> cut = with_an_orphan(path);
    ASSERT_TRUE(cut);
    ScratchFile scratch(path);
    CrashState state;
    state.image = cut;
    EXPECT_EQ(judge_by_e2fsck(state, "ordered", scratch, true), "");
    // A block more that nobody has: as the image is replayed, its bitmap is the log's, so that is changed at home
    // after.
    ASSERT_EQ(std::system(fmt::format("e2fsck -E journal_only -y {} > /dev/null 2>&1", scratch.path()).c_str()), 0);
    auto replayed = MemoryDevice::load(scratch.path());
    ASSERT_TRUE(replayed);
    state.image = std::shared_ptr<BlockDevice>(std::move(*replayed));
    ASSERT_TRUE(save_image(*state.image, scratch.path()));
    ASSERT_EQ(std::system(fmt::format("debugfs -w -R 'setb 3000' {} > /dev/null 2>&1", scratch.path()).c_str()), 0);
    auto damaged = MemoryDevice::load(scratch.path());
    ASSERT_TRUE(damaged);
    state.image = std::shared_ptr<BlockDevice>(std::move(*damaged));
    EXPECT_NE(judge_by_e2fsck(state, "ordered", scratch, false), "");
}

}  // namespace
}  // namespace uext4::crash
