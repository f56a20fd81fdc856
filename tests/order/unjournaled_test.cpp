// Without a journal nothing puts an image right again but e2fsck; what was synced is there once it has. A device that
// loses all that was not flushed tells whether it was.
#include "api/file_system.h"
#include "tests/doubles/memory_device.h"
#include "tests/doubles/recording_device.h"
#include "tests/root.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string_view>
#include <utility>

namespace uext4 {
namespace {

class Unjournaled : public testing::TestWithParam<const char*> {
protected:
    void SetUp() override {
        path = fmt::format("/dev/shm/uext4-unjournaled-{}", ::getpid());
        ASSERT_EQ(
            std::system(
                fmt::format("mke2fs -q -F -t ext4 -O ^has_journal {} {} 16M >/dev/null", GetParam(), path).c_str()),
            0);
        auto image = MemoryDevice::load(path);
        ASSERT_TRUE(image);
        on_medium = (*image)->clone();
        recorder = std::make_shared<RecordingDevice>(std::shared_ptr<BlockDevice>(std::move(*image)));
        VolumeOptions options;
        options.background = false;
        auto mounted = FileSystem::mount_device(recorder, options);
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
    }
    void TearDown() override {
        EXPECT_TRUE(fs && fs->unmount());
        std::error_code none;
        std::filesystem::remove(path, none);
    }

    std::unique_ptr<OpenFile> open(const std::string& name, int flags = O_CREAT | O_RDWR) {
        auto file = fs->open_path(name, flags, 0644, root);
        EXPECT_TRUE(file) << name << ": " << file.error().what;
        return file ? std::move(*file) : nullptr;
    }
    static std::string text(char letter, std::size_t size) {
        std::string out(size, letter);
        for (std::size_t i = 0; i < size; i += 97) out[i] = static_cast<char>('0' + i / 97 % 10);
        return out;
    }
    static void put(OpenFile& file, std::string& model, std::size_t at, const std::string& bytes) {
        const auto n = file.write(at, std::as_bytes(std::span(bytes)));
        ASSERT_TRUE(n && *n == bytes.size());
        if (model.size() < at + bytes.size()) model.resize(at + bytes.size());
        model.replace(at, bytes.size(), bytes);
    }

    // The power goes, with all that no flush was behind.
    void expect_durable(const std::string& what) {
        const auto log = recorder->take_log();
        std::size_t flushed = 0;
        for (std::size_t i = 0; i < log.size(); ++i)
            if (log[i].kind == RecordedWrite::Kind::Flush) flushed = i + 1;
        // Kept as it is for the steps to come, in which a later flush makes it durable.
        unflushed.insert(unflushed.end(), log.begin(), log.end());
        if (flushed > 0) {
            const std::size_t durable = unflushed.size() - log.size() + flushed;
            ASSERT_TRUE(RecordingDevice::replay(unflushed, durable, *on_medium));
            unflushed.erase(unflushed.begin(), unflushed.begin() + static_cast<std::ptrdiff_t>(durable));
        }
        ASSERT_TRUE(on_medium->save(path));
        const int status = std::system(fmt::format("e2fsck -fy {} >/dev/null 2>&1", path).c_str());
        ASSERT_LE(WEXITSTATUS(status), 1) << what;
        auto image = MemoryDevice::load(path);
        ASSERT_TRUE(image);
        auto repaired = FileSystem::mount_device(std::shared_ptr<BlockDevice>(std::move(*image)), {});
        ASSERT_TRUE(repaired) << what << ": " << repaired.error().what;
        for (const auto& [name, contents] : synced) {
            auto file = (*repaired)->open_path(name, O_RDONLY, 0, root);
            if (!file) {
                ADD_FAILURE() << what << ": " << name << ": " << file.error().what;
                continue;
            }
            std::string got(contents.size() + 1, '\0');
            const auto n = (*file)->read(0, std::as_writable_bytes(std::span(got)));
            ASSERT_TRUE(n) << what << ": " << name;
            got.resize(*n);
            EXPECT_TRUE(got == contents) << what << ": " << name << ", of " << *n << " bytes";
        }
        EXPECT_TRUE((*repaired)->unmount());
    }

    std::string path;
    std::shared_ptr<MemoryDevice> on_medium;
    std::shared_ptr<RecordingDevice> recorder;
    std::vector<RecordedWrite> unflushed;
    std::unique_ptr<FileSystem> fs;
    std::map<std::string, std::string> synced;
};

TEST_P(Unjournaled, WhatWasSyncedIsThereOnceTheImageIsRepaired) {
    auto a = open("/a");
    std::string contents;
    put(*a, contents, 0, text('a', 20000));
    ASSERT_TRUE(a->sync(false));
    synced["/a"] = contents;
    expect_durable("fsync of a new file");

    put(*a, contents, 5000, text('b', 7000));
    ASSERT_TRUE(a->sync(true));
    synced["/a"] = contents;
    expect_durable("fdatasync in place");

    put(*a, contents, 20000, text('c', 300000));
    ASSERT_TRUE(a->sync(true));
    synced["/a"] = contents;
    expect_durable("fdatasync of a longer file");

    ASSERT_TRUE(a->truncate(1234));
    contents.resize(1234);
    ASSERT_TRUE(a->sync(false));
    synced["/a"] = contents;
    expect_durable("fsync of a shorter file");

    auto s = open("/s", O_CREAT | O_RDWR | O_SYNC);
    std::string at_once;
    put(*s, at_once, 0, text('s', 9000));
    synced["/s"] = at_once;
    expect_durable("O_SYNC");
    put(*s, at_once, 100, text('t', 50));
    synced["/s"] = at_once;
    expect_durable("O_SYNC in place");

    alignas(4096) static char memory[4096];
    auto direct = open("/a", O_RDWR | O_DIRECT | O_DSYNC);
    for (const auto& [letter, what] : {std::pair('d', "O_DIRECT and O_DSYNC"), std::pair('e', "the same in place")}) {
        const std::string block = text(letter, sizeof memory);
        std::ranges::copy(block, memory);
        const auto n = direct->write(0, std::as_bytes(std::span(memory)));
        ASSERT_TRUE(n && *n == sizeof memory);
        synced["/a"] = block;
        expect_durable(what);
    }

    auto unsynced = open("/a", O_RDWR | O_DIRECT);
    for (const auto& [letter, data_only] : {std::pair('f', true), std::pair('g', false)}) {
        const std::string block = text(letter, sizeof memory);
        std::ranges::copy(block, memory);
        const auto n = unsynced->write(0, std::as_bytes(std::span(memory)));
        ASSERT_TRUE(n && *n == sizeof memory);
        expect_durable("O_DIRECT in place, and no sync");
        ASSERT_TRUE(unsynced->sync(data_only));
        synced["/a"] = block;
        expect_durable(data_only ? "O_DIRECT in place and fdatasync" : "O_DIRECT in place and fsync");
    }

    std::string next;
    auto replacing = open("/next");
    put(*replacing, next, 0, text('n', 6000));
    ASSERT_TRUE(replacing->sync(false));
    InodeRef top = *fs->root();
    ASSERT_TRUE(fs->rename(*top, "next", *top, "a", 0, root, true));
    auto directory = open("/", O_RDONLY | O_DIRECTORY);
    ASSERT_TRUE(directory->sync(false));
    synced["/a"] = next;
    expect_durable("fsync of a directory behind a rename");

    InodeRef below = *fs->create(*top, "below", S_IFDIR | 0755, 0, {}, root, false);
    auto deep = open("/below/deep");
    std::string lower;
    put(*deep, lower, 0, text('l', 5000));
    ASSERT_TRUE(deep->sync(false));
    synced["/below/deep"] = lower;
    expect_durable("fsync of a new file in a new directory");

    put(*deep, lower, 5000, text('m', 100000));
    put(*s, at_once, 9000, text('u', 100));
    ASSERT_TRUE(fs->sync());
    synced["/below/deep"] = lower;
    synced["/s"] = at_once;
    expect_durable("sync");
}

// In the inode, where the format has that, until it has no room there any more.
TEST_P(Unjournaled, ASmallFileIsThereOnceTheImageIsRepaired) {
    const bool has_inline = std::string_view(GetParam()).contains("inline_data");
    auto file = open("/small");
    std::string contents;
    const auto expect_synced = [&](const char* what, bool is_inline) {
        synced["/small"] = contents;
        EXPECT_EQ(file->inode().is_inline(), is_inline) << what;
        expect_durable(what);
    };
    put(*file, contents, 0, text('a', 40));
    ASSERT_TRUE(file->sync(false));
    expect_synced("fsync of a new file", has_inline);

    put(*file, contents, 5, text('b', 20));
    ASSERT_TRUE(file->sync(true));
    expect_synced("fdatasync in place", has_inline);

    put(*file, contents, 40, text('c', 20));
    ASSERT_TRUE(file->sync(true));
    expect_synced("fdatasync of a longer file", has_inline);

    ASSERT_TRUE(file->truncate(12));
    contents.resize(12);
    ASSERT_TRUE(file->sync(false));
    expect_synced("fsync of a shorter file", has_inline);

    put(*open("/small", O_RDWR | O_SYNC), contents, 8, text('s', 30));
    expect_synced("O_SYNC", has_inline);

    put(*file, contents, 20, text('d', 5000));
    ASSERT_TRUE(file->sync(true));
    expect_synced("fdatasync of a file that has left the inode", false);
}

std::string name_of(const testing::TestParamInfo<const char*>& format) {
    const char* const names[] = {"plain", "small_blocks", "indirect", "inline_data"};
    return names[format.index];
}

INSTANTIATE_TEST_SUITE_P(Formats, Unjournaled,
                         testing::Values("-b 4096", "-b 1024", "-b 1024 -O ^extent,^64bit", "-b 4096 -O inline_data"),
                         name_of);

}  // namespace
}  // namespace uext4
