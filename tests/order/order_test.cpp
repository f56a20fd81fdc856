// What is promised by order is shown by order: the requests that reach the device during an fsync, one after the other.
#include "api/file_system.h"
#include "format/journal.h"
#include "sync/thread.h"
#include "tests/doubles/faulty_device.h"
#include "tests/doubles/memory_device.h"
#include "tests/doubles/recording_device.h"
#include "tests/root.h"
#include "volume/journal_location.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>

namespace uext4 {
namespace {

using namespace std::chrono_literals;
using Entry = RecordedWrite::Kind;
constexpr std::uint32_t block_size = 4096;

// What an entry of the device's log is to the file system: `D` file contents, `L` a block of the journal's log, `C` a
// commit record, `F` a flush, `m` anything else. A letter a block.
class Order : public testing::TestWithParam<const char*> {
protected:
    void SetUp() override {
        const std::string path = fmt::format("/dev/shm/uext4-order-{}", ::getpid());
        ASSERT_EQ(std::system(fmt::format("mke2fs -q -F -t ext4 -b 4096 -E lazy_itable_init=0 {} 32M", path).c_str()),
                  0);
        auto image = MemoryDevice::load(path);
        ::unlink(path.c_str());
        ASSERT_TRUE(image);
        faulty = std::make_shared<FaultyDevice>(std::shared_ptr<BlockDevice>(std::move(*image)));
        recorder = std::make_shared<RecordingDevice>(faulty);
        auto options = parse_all_options(GetParam());
        ASSERT_TRUE(options);
        options->background = false;
        options->commit_interval = 0ms;
        auto mounted = FileSystem::mount_device(recorder, *options);
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
        auto runs = locate_journal(fs->volume().inodes(), fs->volume().geometry());
        ASSERT_TRUE(runs);
        log_runs = *runs;
    }
    void TearDown() override {
        if (!fs) return;
        auto closed = fs->unmount();
        EXPECT_TRUE(closed) << closed.error().what;
    }
    // The same image, with options more.
    void mount_again(const std::string& more) {
        auto closed = fs->unmount();
        ASSERT_TRUE(closed) << closed.error().what;
        fs.reset();
        auto options = parse_all_options(GetParam() + ("," + more));
        ASSERT_TRUE(options) << options.error().what;
        options->background = false;
        options->commit_interval = 0ms;
        auto mounted = FileSystem::mount_device(recorder, *options);
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
    }
    bool journaled() const { return std::string_view(GetParam()).find("journal") != std::string_view::npos; }

    static std::vector<std::byte> contents(std::size_t size) { return std::vector<std::byte>(size, std::byte{0xd7}); }

    std::unique_ptr<OpenFile> open(const std::string& path, int flags = O_CREAT | O_RDWR) {
        auto file = fs->open_path(path, flags, 0644, root);
        EXPECT_TRUE(file) << file.error().what;
        return file ? std::move(*file) : nullptr;
    }
    void write(OpenFile& file, std::uint64_t at, std::size_t size) {
        auto written = file.write(at, contents(size));
        ASSERT_TRUE(written) << written.error().what;
    }
    void settle() {
        ASSERT_TRUE(fs->sync());
        ASSERT_TRUE(fs->volume().fs().journal.checkpoint_all());
        recorder->take_log();
    }

    char letter(std::uint64_t offset, ConstBytes block) const {
        const std::uint64_t number = offset / block_size;
        for (const BlockRun& run : log_runs) {
            if (number < run.first.value || number >= run.first.value + run.count) continue;
            if (number == log_runs.front().first.value) return 'm';  // the journal's superblock
            const auto& header = view_as<format::JournalHeader>(block);
            return header.magic == format::journal::magic && header.blocktype == format::journal::commit ? 'C' : 'L';
        }
        return block.size() == block_size && block.front() == std::byte{0xd7} && block.back() == std::byte{0xd7} ? 'D'
                                                                                                                 : 'm';
    }
    std::string happened() const {
        std::string text;
        for (const RecordedWrite& entry : recorder->log()) {
            if (entry.kind == Entry::Flush) text += 'F';
            if (entry.kind != Entry::Write && entry.kind != Entry::Fua) continue;
            for (std::size_t at = 0; at < entry.data.size(); at += block_size) {
                const auto block =
                    ConstBytes(entry.data).subspan(at, std::min<std::size_t>(block_size, entry.data.size() - at));
                text += letter(entry.offset + at, block);
                // A commit record must not be left in the device's cache.
                if (text.back() == 'C' && entry.kind != Entry::Fua) text += '!';
            }
        }
        return text;
    }
    // What a change has done when it returns.
    template <typename Change>
    void durable(const char* what, Change&& change) {
        settle();
        const auto done = change();
        ASSERT_TRUE(done) << what << ": " << done.error().what;
        EXPECT_THAT(happened(), testing::MatchesRegex("[DmLFC]*L+FCF*")) << what;
    }
    template <typename Change>
    void not_durable(const char* what, Change&& change) {
        settle();
        const auto done = change();
        ASSERT_TRUE(done) << what << ": " << done.error().what;
        EXPECT_EQ(happened().find('C'), std::string::npos) << what;
    }
    void attributes(Inode& inode) {
        AttributeChange mode, owner, times;
        mode.mode = 0700;
        owner.uid = 7, owner.is_chown = true;
        times.atime = times.mtime = format::Timestamp{1, 2};
        const std::byte value[3] = {};
        durable("chmod", [&] { return fs->set_attributes(inode, mode, root, true); });
        durable("chown", [&] { return fs->set_attributes(inode, owner, root, true); });
        durable("utimens", [&] { return fs->set_attributes(inode, times, root, true); });
        durable("setxattr", [&] { return fs->set_xattr(inode, "user.a", value, 0, root, true); });
        durable("removexattr", [&] { return fs->remove_xattr(inode, "user.a", root, true); });
    }
    void sizes(OpenFile& file) {
        durable("fallocate", [&] { return file.fallocate(0, 0, 8 * block_size); });
        durable("a shorter file", [&] { return file.truncate(5000); });
        durable("a longer file", [&] { return file.truncate(50000); });
    }
    std::uint64_t commits() const { return fs->volume().fs().journal.counters().commits; }

    std::shared_ptr<FaultyDevice> faulty;
    std::shared_ptr<RecordingDevice> recorder;
    std::unique_ptr<FileSystem> fs;
    std::vector<BlockRun> log_runs;
};

TEST_P(Order, AppendAndFsync) {
    auto file = open("/a");
    write(*file, 0, 8192);
    settle();
    write(*file, 8192, 8192);
    ASSERT_TRUE(file->sync(false));
    const std::string order = happened();
    // Everything that the commit record makes true is written and flushed before it; it is durable when fsync returns.
    EXPECT_THAT(order, testing::MatchesRegex(journaled() ? "m*L+FC" : "D+m*L+FC"));
    EXPECT_EQ(std::ranges::count(order, 'C'), 1);
    EXPECT_EQ(std::ranges::count(order, 'D'), journaled() ? 0 : 2) << order;
}

// What a descriptor writes past the cache is flushed as well, be it named already or not.
TEST_P(Order, DirectWritesThatSyncAreFlushed) {
    alignas(block_size) static std::byte memory[block_size];
    std::ranges::fill(memory, std::byte{0xd7});
    for (const int flags : {O_SYNC, O_DSYNC}) {
        auto file = open("/a", O_CREAT | O_RDWR | O_TRUNC | O_DIRECT | flags);
        for (const bool in_place : {false, true}) {
            settle();
            auto written = file->write(0, ConstBytes(memory));
            ASSERT_TRUE(written) << written.error().what;
            // In place it is the times that are in a commit; O_DSYNC needs none.
            EXPECT_THAT(happened(), testing::MatchesRegex(journaled()                    ? "m*L+FC"
                                                          : in_place && flags == O_DSYNC ? "DF"
                                                                                         : "Dm*L+FC"))
                << (flags == O_DSYNC ? "O_DSYNC" : "O_SYNC") << (in_place ? " in place" : "");
        }
    }
}

// The blocks are known at their new place before one is overwritten, by the commit that has the times as well.
TEST_P(Order, AnFsyncBehindAShiftIsOneCommit) {
    for (const std::size_t blocks : {1, 20}) {
        auto file = open("/a");
        write(*file, 0, 40 * block_size);
        settle();
        ASSERT_TRUE(file->fallocate(FALLOC_FL_COLLAPSE_RANGE, 0, block_size));
        write(*file, 2 * block_size, blocks * block_size);
        ASSERT_TRUE(file->sync(false));
        EXPECT_THAT(happened(), testing::MatchesRegex(journaled() ? "m*L+FC" : "m*L+FCD+F"));
        file.reset();
        const std::uint64_t before = commits();
        ASSERT_TRUE(open("/a")->sync(false));
        EXPECT_EQ(commits(), before);
    }
}

// What has no name yet is on the device before that commit, what is overwritten behind it.
TEST_P(Order, AnFsyncBehindAShiftAndAnAppendIsOneCommit) {
    auto file = open("/a");
    write(*file, 0, 40 * block_size);
    settle();
    ASSERT_TRUE(file->fallocate(FALLOC_FL_COLLAPSE_RANGE, 0, block_size));
    write(*file, 2 * block_size, 20 * block_size);
    write(*file, 39 * block_size, 2 * block_size);
    ASSERT_TRUE(file->sync(false));
    EXPECT_THAT(happened(), testing::MatchesRegex(journaled() ? "m*L+FC" : "D+m*L+FCD+F"));
}

TEST_P(Order, NothingIsWrittenForWhatIsCommitted) {
    auto file = open("/a");
    write(*file, 0, 8192);
    ASSERT_TRUE(file->sync(false));
    recorder->take_log();
    const std::uint64_t before = commits();
    ASSERT_TRUE(file->sync(false));
    ASSERT_TRUE(file->sync(true));
    EXPECT_EQ(commits(), before);
    EXPECT_THAT(happened(), testing::MatchesRegex("F*"));
    // Neither when somebody else's transaction runs.
    auto other = open("/b");
    write(*other, 0, 4096);
    ASSERT_TRUE(file->sync(false));
    EXPECT_EQ(commits(), before);
    EXPECT_THAT(happened(), testing::MatchesRegex("F*"));
}

TEST_P(Order, ManyFsyncsShareCommits) {
    constexpr int many = 100;
    std::vector<std::unique_ptr<OpenFile>> files;
    for (int i = 0; i < many; ++i) files.push_back(open(fmt::format("/f{}", i)));
    settle();
    const std::uint64_t before = commits();
    // The first commit record takes as long as a disk would need, so that the others come together.
    DeviceFault slow;
    slow.effect = DeviceFault::Effect::Slow;
    slow.kinds = {DeviceRequest::Kind::Fua, DeviceRequest::Kind::Flush};
    slow.delay = 10ms;
    faulty->add(slow);
    std::vector<std::unique_ptr<Thread>> threads;
    std::atomic<int> failed{0};
    for (int i = 0; i < many; ++i)
        threads.push_back(std::make_unique<Thread>("fsync", [&, i] {
            if (!files[i]->write(0, contents(4096)) || !files[i]->sync(false)) ++failed;
        }));
    for (auto& thread : threads) thread->join();
    faulty->clear();
    EXPECT_EQ(failed.load(), 0);
    const std::uint64_t made = commits() - before;
    EXPECT_GE(made, 1u);
    EXPECT_LE(made, many / 4u);
    RecordProperty("commits", static_cast<int>(made));
}

TEST_P(Order, ReplacedFilesHaveTheirDataFirst) {
    // By rename: the new contents, never synced, are there before the name is.
    {
        auto old = open("/old");
        write(*old, 0, 8192);
    }
    settle();
    {
        auto fresh = open("/fresh");
        write(*fresh, 0, 12288);
    }
    auto top = fs->root();
    ASSERT_TRUE(fs->rename(**top, "fresh", **top, "old", 0, root, true));
    ASSERT_TRUE(fs->volume().fs().journal.commit_all());
    EXPECT_THAT(happened(), testing::MatchesRegex(journaled() ? "[mLFC]*L+FC" : "D+[mLFC]*L+FC"));
    // By truncation to nothing and close.
    settle();
    {
        auto again = open("/old", O_RDWR | O_TRUNC);
        write(*again, 0, 8192);
    }
    ASSERT_TRUE(fs->volume().fs().journal.commit_all());
    const std::string order = happened();
    if (!journaled()) {
        ASSERT_EQ(std::ranges::count(order, 'D'), 2) << order;
        EXPECT_LT(order.find('D'), order.rfind('C')) << order;
    }
}

// A commit that has sent its flush already does not cover what is written now.
TEST_P(Order, DataWrittenDuringACommitIsFlushedAfterIt) {
    if (journaled()) return;  // there the data would join the next transaction
    auto file = open("/a");
    write(*file, 0, 8192);
    settle();
    write(*file, 8192, 4096);
    DeviceFault stick;
    stick.effect = DeviceFault::Effect::Stick;
    stick.kinds = {DeviceRequest::Kind::Fua};
    stick.times = 1;
    stick.predicate = [this](const DeviceRequest& request) {
        return request.offset / block_size != log_runs.front().first.value;  // the commit record, not the superblock
    };
    faulty->add(stick);
    Thread first("first", [&] { EXPECT_TRUE(file->sync(true)); });
    while (faulty->stuck() == 0) this_thread::sleep(1ms);
    recorder->take_log();
    write(*file, 0, 4096);  // in place: changes no metadata that fdatasync must wait for
    Thread second("second", [&] { EXPECT_TRUE(file->sync(true)); });
    while (happened().find('D') == std::string::npos) this_thread::sleep(1ms);
    this_thread::sleep(20ms);
    faulty->release_stuck();
    first.join();
    second.join();
    const std::string order = happened();
    EXPECT_NE(order.find('F', order.find('D')), std::string::npos) << order << ": not flushed";
}

// Files and directories with the flag S, directories with D, and descriptors that sync: what was changed is durable
// when the call returns.
TEST_P(Order, WhatSyncsEachChangeHasItDurable) {
    namespace f = format::inode_flag;
    auto flag = [&](Inode& inode, std::uint32_t bit) {
        durable("the flag", [&] { return fs->set_flags(inode, fs->get_flags(inode) | bit, root, true); });
    };
    for (const int flags : {O_SYNC, O_DSYNC}) {
        auto file = open("/descriptor", O_CREAT | O_RDWR | flags);
        sizes(*file);
    }
    auto file = open("/file");
    flag(file->inode(), f::sync);
    sizes(*file);
    durable("truncate", [&] { return fs->truncate(file->inode(), 100, root, true); });
    durable("O_TRUNC", [&] { return fs->open_path("/file", O_RDWR | O_TRUNC, 0, root); });
    attributes(file->inode());
    for (const std::uint32_t bit : {f::sync, f::dirsync}) {
        auto dir = fs->create(**fs->root(), fmt::format("dir{}", bit), S_IFDIR | 0755, 0, "", root, true);
        ASSERT_TRUE(dir);
        flag(**dir, bit);
        attributes(**dir);
    }
}

// The options of the same names: as if all files, or all directories, had the flag.
TEST_P(Order, WhatTheOptionsSyncIsDurable) {
    mount_again("sync");
    auto file = open("/file");
    durable("write", [&] { return file->write(0, contents(block_size)); });
    sizes(*file);
    durable("O_TRUNC", [&] { return fs->open_path("/file", O_RDWR | O_TRUNC, 0, root); });
    attributes(file->inode());
    file.reset();
    for (const char* option : {"sync", "dirsync", "sync,dirsync,async"}) {
        mount_again(option);
        const std::string name = option;
        auto top = *fs->root();
        durable("mkdir", [&] { return fs->create(*top, name, S_IFDIR | 0755, 0, "", root, true); });
        auto dir = fs->resolve("/" + name, root);
        ASSERT_TRUE(dir);
        attributes(**dir);
        durable("create", [&] { return fs->create(**dir, "a", S_IFREG | 0644, 0, "", root, true); });
        auto a = fs->resolve("/" + name + "/a", root);
        ASSERT_TRUE(a);
        durable("link", [&] { return fs->link(**a, *top, name + "b", root, true); });
        durable("rename", [&] { return fs->rename(**dir, "a", *top, name + "c", 0, root, true); });
        durable("unlink", [&] { return fs->unlink(*top, name + "b", root, true); });
        durable("rmdir", [&] { return fs->rmdir(*top, name, root, true); });
        const auto chmod = [&] {
            AttributeChange mode;
            mode.mode = 0600;
            return fs->set_attributes(**a, mode, root, true);
        };
        if (name == "sync") durable("chmod", chmod);
        else not_durable("chmod", chmod);
    }
    mount_again("sync,async");
    not_durable("mkdir", [&] { return fs->create(**fs->root(), "last", S_IFDIR | 0755, 0, "", root, true); });
}

INSTANTIATE_TEST_SUITE_P(Modes, Order, testing::Values("data=ordered", "data=journal"),
                         [](const auto& mode) { return std::string(mode.param).substr(5); });

}  // namespace
}  // namespace uext4
