// The judges themselves: what they let pass is what it is said to be, and nothing else.
#include "tests/crash/judges.h"

#include "tests/crash/recorder.h"
#include "tests/root.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace uext4::crash {
namespace {

// An image that is cut while a file with contents and an attribute is an orphan.
std::shared_ptr<MemoryDevice> with_an_orphan(const std::string& path, const char* mke2fs, std::size_t contents,
                                             std::size_t value_size) {
    const std::string make = fmt::format("mke2fs -q -F -t ext4 -I 256 {} {} 16M", mke2fs, path);
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
        const std::string value(value_size, 'x'), bytes(contents, 'y');
        EXPECT_TRUE((*file)->write(0, std::as_bytes(std::span(bytes))));
        EXPECT_TRUE((*fs)->set_xattr((*file)->inode(), "user.x", std::as_bytes(std::span(value)), 0, root, false));
        EXPECT_TRUE((*fs)->sync());
        EXPECT_TRUE((*fs)->unlink(**(*fs)->root(), "f", root, false));
        EXPECT_TRUE((*fs)->sync());
        cut = image->clone();
    }
    return cut;
}

// What it says, or why it could not judge.
std::string e2fsck_says(const CrashState& state, const std::string& mode, ScratchFile& scratch, bool ours) {
    const Result<std::string> said = judge_by_e2fsck(state, mode, scratch, ours);
    return said ? *said : "not judged: " + said.error().what;
}

TEST(Judges, OnlyTheAttributeBlockOfAnOrphanMayBeForgotten) {
    const std::string path = fmt::format("/dev/shm/uext4-judges-{}", ::getpid());
    const std::shared_ptr<MemoryDevice> cut = with_an_orphan(path, "-O inline_data -b 4096", 0, 370);  // in a block
    ASSERT_TRUE(cut);
    ScratchFile scratch(path);
    CrashState state;
    state.image = cut;
    EXPECT_EQ(e2fsck_says(state, "ordered", scratch, true), "");
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
    EXPECT_NE(e2fsck_says(state, "ordered", scratch, false).find("Block bitmap differences"), std::string::npos);
}

// What our recovery makes of the image is judged then. Without an orphan that e2fsck has just cleared they are a fault.
TEST(Judges, OnlyTheValuesOfAnOrphanMayBeForgotten) {
    const std::string path = fmt::format("/dev/shm/uext4-judges-{}", ::getpid());
    const std::shared_ptr<MemoryDevice> cut = with_an_orphan(path, "-O ea_inode -b 1024", 12288, 9000);
    ASSERT_TRUE(cut);
    ScratchFile scratch(path);
    CrashState state;
    state.image = cut;
    EXPECT_EQ(e2fsck_says(state, "ordered", scratch, false), "");
    ASSERT_TRUE(save_image(*cut, scratch.path()));
    ASSERT_EQ(std::system(fmt::format("e2fsck -E journal_only -y {} > /dev/null 2>&1", scratch.path()).c_str()), 0);
    auto replayed = MemoryDevice::load(scratch.path());
    ASSERT_TRUE(replayed);
    state.image = std::shared_ptr<BlockDevice>(std::move(*replayed));
    EXPECT_NE(e2fsck_says(state, "ordered", scratch, false).find("Unattached inode"), std::string::npos);
}

TEST(Judges, BytesBehindTheEndOfAFileAreFound) {
    const std::string path = fmt::format("/dev/shm/uext4-judges-{}", ::getpid());
    ASSERT_EQ(std::system(fmt::format("mke2fs -q -F -t ext4 {} 16M", path).c_str()), 0);
    auto loaded = MemoryDevice::load(path);
    ::unlink(path.c_str());
    ASSERT_TRUE(loaded);
    const std::shared_ptr<MemoryDevice> image = std::move(*loaded);
    BlockNr block;
    std::uint64_t bs = 0;
    {
        auto fs = FileSystem::mount_device(image, mount_options("ordered"));
        ASSERT_TRUE(fs);
        bs = (*fs)->volume().fs().block_size();
        auto file = (*fs)->open_path("/f", O_CREAT | O_RDWR, 0644, root);
        ASSERT_TRUE(file);
        const std::string bytes(bs + 100, 'y');
        ASSERT_TRUE((*file)->write(0, std::as_bytes(std::span(bytes))));
        ASSERT_TRUE((*file)->sync(false));
        ASSERT_TRUE((*fs)->extents((*file)->inode(), bs, bs, [&](const Mapping& m) {
            block = m.block + (bs - m.offset) / bs;
            return false;
        }));
        file->reset();
        ASSERT_TRUE((*fs)->unmount());
    }
    for (const std::size_t at : {std::size_t{99}, std::size_t{100}, std::size_t{bs - 1}}) {
        const std::shared_ptr<MemoryDevice> changed = image->clone();
        const std::byte stray{'S'};
        ASSERT_TRUE(changed->write(block.value * bs + at, ConstBytes(&stray, 1)));
        const Result<Tree> tree = recover_and_capture(changed, "ordered");
        ASSERT_TRUE(tree) << tree.error().what;
        EXPECT_EQ(tree->at("/f").has_stray, at >= 100) << at;
    }
}

// A deletion is committed; the commit record of what comes next is torn. To e2fsck that is damage, and it would forget
// the deleted file.
TEST(Judges, ATornCommitRecordLeavesWhatWasCommittedBefore) {
    const std::string path = fmt::format("/dev/shm/uext4-judges-{}", ::getpid());
    auto image = make_image(formats[0], path);
    ASSERT_TRUE(image);
    // One after whose setup the log is not empty where the record goes, so that what is torn shows.
    const std::vector<Workload> all = ace_workloads(1, 1, 0);
    const auto w = std::ranges::find(all, "unlink /A/c; fsync /A", &Workload::name);
    ASSERT_NE(w, all.end());
    auto recording = Recorder(*image, formats[0].name, "journal").record(*w, Between::write_back);
    ASSERT_TRUE(recording) << recording.error().what;
    ScratchFile scratch(path);
    std::mt19937_64 random(1);
    SeenImages seen;
    int torn_records = 0;
    auto visit = [&](const CrashState& state) -> Result<bool> {
        // A commit record: one block, durable by itself.
        if (!state.torn || state.torn->kind != RecordedWrite::Kind::Fua || state.torn->data.size() != 4096) return true;
        ++torn_records;
        EXPECT_EQ(e2fsck_says(state, "journal", scratch, true), "") << state.what;
        return !::testing::Test::HasFailure();
    };
    ASSERT_TRUE(
        for_each_state(*recording, {.prefix_percent = 0, .subsets = 0, .torn = 2000, .lying = 0}, random, seen, visit));
    EXPECT_GE(torn_records, 50);
}

}  // namespace
}  // namespace uext4::crash
