// The flag `e` of live files: another map, the same bytes; and after a crash one map or the other.
#include "api/file_system.h"
#include "file/file_io.h"
#include "tests/doubles/memory_device.h"
#include "tests/doubles/recording_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <cstdlib>

namespace uext4::extents_flag_test {
namespace {

const Credentials root = Credentials::root();
constexpr std::uint32_t e = format::inode_flag::extents;

class ExtentsFlag : public testing::TestWithParam<const char*> {
protected:
    void SetUp() override {
        path_ = fmt::format("/dev/shm/uext4-extents-flag-{}", ::getpid());
        const std::string make =
            fmt::format("mke2fs -q -F -t ext4 -E lazy_itable_init=0 {} {} 64M >/dev/null", GetParam(), path_);
        ASSERT_EQ(std::system(make.c_str()), 0) << make;
        auto loaded = MemoryDevice::load(path_);
        ASSERT_TRUE(loaded);
        memory = std::move(*loaded);
        mount();
    }
    void TearDown() override {
        fs.reset();
        ::unlink(path_.c_str());
    }
    void mount() {
        initial = memory->clone();
        recorder = std::make_shared<RecordingDevice>(memory);
        VolumeOptions options;
        options.background = false;
        auto mounted = FileSystem::mount_device(recorder, options);
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
    }
    std::uint64_t block() const { return fs->volume().geometry().block_size; }
    std::unique_ptr<OpenFile> open(FileSystem& in, const std::string& name) {
        auto file = in.open_path(name, O_CREAT | O_RDWR, 0644, root);
        EXPECT_TRUE(file) << file.error().what;
        return file ? std::move(*file) : nullptr;
    }
    std::unique_ptr<OpenFile> open(const std::string& name) { return open(*fs, name); }
    // `pieces` blocks with a hole behind each, from `first` on, every `step` blocks.
    void write_pieces(OpenFile& file, std::uint64_t first, std::uint64_t pieces, std::uint64_t step) {
        for (std::uint64_t i = 0; i < pieces; ++i) {
            const std::uint64_t at = (first + i * step) * block();
            const std::string bytes(block(), static_cast<char>('a' + i % 26));
            ASSERT_TRUE(file.write(at, std::as_bytes(std::span(bytes))));
        }
        ASSERT_TRUE(file.sync(false));
    }
    static std::string contents(OpenFile& file) {
        std::string out(file.inode().size_hint(), '?');
        auto n = file.read(0, std::as_writable_bytes(std::span(out)));
        EXPECT_TRUE(n && *n == out.size());
        return out;
    }
    int set(Inode& inode, bool on) {
        const std::uint32_t flags = fs->get_flags(inode);
        auto done = fs->set_flags(inode, on ? flags | e : flags & ~e, root, true);
        return done ? 0 : done.error().code;
    }
    void expect_sound(const MemoryDevice& image, const std::string& what) {
        ASSERT_TRUE(image.save(path_));
        const std::string check =
            fmt::format("e2fsck -fn {} > {}.log 2>&1 || {{ cat {}.log; exit 1; }}", path_, path_, path_);
        EXPECT_EQ(std::system(check.c_str()), 0) << what;
        ::unlink((path_ + ".log").c_str());
    }

    std::shared_ptr<MemoryDevice> memory, initial;
    std::shared_ptr<RecordingDevice> recorder;
    std::unique_ptr<FileSystem> fs;
    std::string path_;
};

TEST_P(ExtentsFlag, GoesAndComesBackWithTheSameBytes) {
    auto small = open("/small"), many = open("/many"), deep = open("/deep"), empty = open("/empty");
    write_pieces(*small, 0, 3, 1);
    write_pieces(*many, 0, 700, 2);          // single, indirect and double indirect blocks; a tree of extents
    write_pieces(*deep, 40, 30, 9000 / 30);  // far apart
    std::vector<OpenFile*> files{small.get(), many.get(), deep.get(), empty.get()};
    std::vector<std::string> before;
    for (OpenFile* file : files) before.push_back(contents(*file));
    const std::uint64_t free = fs->volume().counts().free_blocks;
    std::vector<std::uint64_t> first_sectors;
    for (OpenFile* file : files) first_sectors.push_back(fs->attributes(file->inode())->st_blocks);
    for (const bool on : {false, true, false}) {
        for (OpenFile* file : files) {
            ASSERT_EQ(set(file->inode(), on), 0);
            EXPECT_EQ((fs->get_flags(file->inode()) & e) != 0, on);
        }
        fs->volume().fs().buffers.invalidate_all_clean();
        for (std::size_t i = 0; i < files.size(); ++i) {
            EXPECT_EQ(contents(*files[i]), before[i]) << i;
            if (on) {
                EXPECT_EQ(static_cast<std::uint64_t>(fs->attributes(files[i]->inode())->st_blocks), first_sectors[i]);
            }
        }
        if (on) {
            EXPECT_EQ(fs->volume().counts().free_blocks, free);
        }
    }
    // It goes on as a file of its kind.
    write_pieces(*many, 1, 100, 2);
    ASSERT_TRUE(deep->truncate(100 * block()));
    before[1] = contents(*many), before[2] = contents(*deep);
    small.reset(), many.reset(), deep.reset(), empty.reset();
    ASSERT_TRUE(fs->unmount());
    expect_sound(*memory, "after the unmount");
    mount();
    for (std::size_t i = 0; i < 4; ++i) {
        const char* names[] = {"/small", "/many", "/deep", "/empty"};
        auto file = open(names[i]);
        EXPECT_EQ(contents(*file), before[i]) << names[i];
        EXPECT_EQ(fs->get_flags(file->inode()) & e, 0u);
    }
    ASSERT_TRUE(fs->unmount());
}

TEST_P(ExtentsFlag, ADirectoryKeepsItsNames) {
    auto dir = fs->create(**fs->root(), "dir", S_IFDIR | 0755, 0, "", root, false);
    ASSERT_TRUE(dir);
    auto name = [](int i) { return fmt::format("{} {}", std::string(100, 'n'), i); };
    for (int i = 0; i < 300; ++i) ASSERT_TRUE(fs->create(**dir, name(i), S_IFREG | 0644, 0, "", root, false));
    for (const bool on : {false, true}) {
        ASSERT_EQ(set(**dir, on), 0);
        for (int i = 0; i < 300; ++i) EXPECT_TRUE(fs->lookup(**dir, name(i), root, false)) << i;
    }
    ASSERT_EQ(set(**dir, false), 0);
    for (int i = 300; i < 600; ++i) ASSERT_TRUE(fs->create(**dir, name(i), S_IFREG | 0644, 0, "", root, false));
    *dir = {};
    ASSERT_TRUE(fs->unmount());
    expect_sound(*memory, "after the unmount");
}

TEST_P(ExtentsFlag, WhatPointersCannotSayStays) {
    auto file = open("/f");
    write_pieces(*file, 0, 3, 2);
    ASSERT_TRUE(file->fallocate(0, 10 * block(), 5 * block()));
    const std::string before = contents(*file);
    EXPECT_EQ(set(file->inode(), false), EOPNOTSUPP);
    EXPECT_NE(fs->get_flags(file->inode()) & e, 0u);
    EXPECT_EQ(contents(*file), before);
    ASSERT_TRUE(file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10 * block(), 5 * block()));
    EXPECT_EQ(set(file->inode(), false), 0);
    EXPECT_EQ(contents(*file), before);
    // Without rights nothing is converted.
    EXPECT_EQ(fs->set_flags(file->inode(), e, Credentials::of(1000, 1000), true).error().code, EPERM);
    EXPECT_EQ(fs->get_flags(file->inode()) & e, 0u);
    file.reset();
    ASSERT_TRUE(fs->unmount());
    expect_sound(*memory, "after the unmount");
}

// Where `e` can neither go nor come.
class FixedExtentsFlag : public ExtentsFlag {};

TEST_P(FixedExtentsFlag, TheOthersAreChangedAllTheSame) {
    namespace flag = format::inode_flag;
    auto file = open("/f");
    Inode& inode = file->inode();
    const std::uint32_t map = fs->get_flags(inode) & e;
    ASSERT_TRUE(fs->set_flags(inode, map | flag::immutable | flag::nodump, root, true));
    EXPECT_EQ(fs->set_flags(inode, map ^ e, root, true).error().code, EOPNOTSUPP);
    EXPECT_EQ(fs->get_flags(inode) & (e | flag::immutable | flag::nodump), map);
    file.reset();
    ASSERT_TRUE(fs->unmount());
    expect_sound(*memory, "after the unmount");
}

// Without a journal e2fsck mends what a crash leaves.
class JournaledExtentsFlag : public ExtentsFlag {};

TEST_P(JournaledExtentsFlag, ACrashLeavesOneMapOrTheOther) {
    {
        auto file = open("/f");
        write_pieces(*file, 0, 400, 3);
    }
    ASSERT_TRUE(fs->unmount());
    mount();
    std::string before;
    {
        auto file = open("/f");
        before = contents(*file);
        ASSERT_EQ(set(file->inode(), false), 0);
        ASSERT_TRUE(file->sync(false));
        ASSERT_EQ(set(file->inode(), true), 0);
        ASSERT_TRUE(file->sync(false));
    }
    ASSERT_TRUE(fs->volume().fs().journal.checkpoint_all());
    const auto log = recorder->log();
    std::shared_ptr<MemoryDevice> image = initial->clone();
    unsigned with = 0, without = 0;
    for (std::size_t n = 0; n < log.size(); ++n) {
        ASSERT_TRUE(RecordingDevice::apply(log[n], *image));
        std::shared_ptr<MemoryDevice> cut = image->clone();
        auto recovered = FileSystem::mount_device(std::shared_ptr<BlockDevice>(cut), {});
        ASSERT_TRUE(recovered) << n << ": " << recovered.error().what;
        {
            auto file = open(**recovered, "/f");
            ASSERT_TRUE(file);
            ASSERT_EQ(contents(*file), before) << "after " << n << " requests";
            ++((*recovered)->get_flags(file->inode()) & e ? with : without);
        }
        ASSERT_TRUE((*recovered)->unmount());
        recovered->reset();
        expect_sound(*cut, fmt::format("after {} requests", n));
    }
    EXPECT_GT(with, 0u);
    EXPECT_GT(without, 0u);
    ASSERT_TRUE(fs->unmount());
}

// The log has room for a transaction of 250 blocks at most.
class SmallLogExtentsFlag : public ExtentsFlag {};

TEST_P(SmallLogExtentsFlag, OfAMapTooLargeForTheLogNoMoreIsReadThanShowsIt) {
    for (const bool extents : {true, false}) {
        auto file = open(extents ? "/extents" : "/pointers");
        Inode& inode = file->inode();
        ASSERT_EQ(set(inode, extents), 0);
        // Blocks apart from each other: 24 MiB, some 290 leaves of a tree, some 380 blocks of pointers.
        write_pieces(*file, 0, 24 << 10, 4);
        ASSERT_TRUE(fs->volume().fs().journal.checkpoint_all());
        std::uint64_t blocks_of_map = 0;
        {
            MutexLock map(inode.map_lock);
            ASSERT_TRUE(inode.map().for_each_tree_block([&](BlockNr) { return ++blocks_of_map, true; }));
        }
        fs->volume().fs().buffers.invalidate_all_clean();
        const std::uint64_t before = fs->volume().fs().buffers.cached_bytes();
        EXPECT_EQ(set(inode, !extents), EOPNOTSUPP);
        EXPECT_LT((fs->volume().fs().buffers.cached_bytes() - before) / block(), blocks_of_map * 4 / 5) << extents;
        EXPECT_EQ((fs->get_flags(inode) & e) != 0, extents);
    }
    ASSERT_TRUE(fs->unmount());
    expect_sound(*memory, "after the unmount");
}

INSTANTIATE_TEST_SUITE_P(Formats, ExtentsFlag,
                         testing::Values("-b 4096 -J size=4", "-b 1024 -J size=8", "-b 1024 -O ^metadata_csum,^64bit",
                                         "-b 1024 -O ^has_journal"));
INSTANTIATE_TEST_SUITE_P(Formats, FixedExtentsFlag, testing::Values("-O bigalloc -C 16384", "-O ^extents,^64bit"));
INSTANTIATE_TEST_SUITE_P(Formats, JournaledExtentsFlag,
                         testing::Values("-b 4096 -J size=4", "-b 1024 -J size=8", "-b 1024 -O ^metadata_csum,^64bit"));

INSTANTIATE_TEST_SUITE_P(Formats, SmallLogExtentsFlag, testing::Values("-b 1024 -J size=1"));

}  // namespace
}  // namespace uext4::extents_flag_test
