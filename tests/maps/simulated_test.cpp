// The simulated maps against the real file layer: the same faults as of real maps, without the kernel.
#include "tests/doubles/simulated_maps.h"

#include "api/file_system.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

namespace uext4 {
namespace {

constexpr std::uint64_t page = 4096;
using Source = SimulatedMaps::Source;

struct Format {
    const char* name;
    const char* mke2fs;
    const char* options;
};

class Simulated : public testing::TestWithParam<Format> {
protected:
    void SetUp() override {
        path_ = fmt::format("/dev/shm/uext4-simulated-{}", ::getpid());
        ASSERT_EQ(std::system(fmt::format("mke2fs -q -F {} {} 24M >/dev/null", GetParam().mke2fs, path_).c_str()), 0);
        auto mounted = FileSystem::mount(path_, GetParam().options, [](const std::string&) {});
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
        start({});
        file = open("/f");
    }
    void unmap_all() {
        for (const auto& map : made_) ok(maps->unmap(map));
        made_.clear();
    }
    void TearDown() override {
        unmap_all();
        maps.reset();
        file.reset();
        ok(fs->unmount());
        fs.reset();
        EXPECT_EQ(std::system(fmt::format("e2fsck -fn {} >/dev/null 2>&1", path_).c_str()), 0);
        ::unlink(path_.c_str());
    }
    void start(SimulatedMaps::Options options) {
        maps.reset();
        server = std::make_unique<FileMaps>(fs->volume());
        maps = std::make_unique<SimulatedMaps>(*server, options);
    }
    std::unique_ptr<OpenFile> open(const char* name) {
        auto opened = fs->open_path(name, O_CREAT | O_RDWR, 0644, Credentials::root());
        EXPECT_TRUE(opened) << opened.error().what;
        return std::move(*opened);
    }
    template <class T>
    static void ok(const Result<T>& result) {
        EXPECT_TRUE(result) << result.error().what;
    }
    SimulatedMaps::Map& map(std::size_t length, bool shared = true) {
        auto map = maps->map({.inode = file->inode_ref(),
                              .length = length,
                              .protection = PROT_READ | PROT_WRITE,
                              .shared = shared,
                              .may_write = true});
        EXPECT_TRUE(map) << map.error().what;
        made_.push_back(*map);
        return **map;
    }
    static ConstBytes bytes(const std::string& text) { return std::as_bytes(std::span(text)); }
    void write(std::uint64_t at, const std::string& text) { ok(file->write(at, bytes(text))); }
    std::string read(std::uint64_t at, std::size_t n) {
        std::string out(n, '-');
        auto got = file->read(at, std::as_writable_bytes(std::span(out)));
        EXPECT_TRUE(got) << got.error().what;
        out.resize(got ? *got : 0);
        return out;
    }
    std::string load(SimulatedMaps::Map& m, std::uint64_t at, std::size_t n, Source source = Source::program) {
        std::string out(n, '-');
        auto loaded = maps->load(m, at, std::as_writable_bytes(std::span(out)), source);
        return loaded ? out : "refused";
    }
    Result<void> store(SimulatedMaps::Map& m, std::uint64_t at, const std::string& text,
                       Source source = Source::program) {
        return maps->store(m, at, bytes(text), source);
    }

    std::unique_ptr<FileSystem> fs;
    std::unique_ptr<FileMaps> server;
    std::unique_ptr<SimulatedMaps> maps;
    std::unique_ptr<OpenFile> file;

private:
    std::vector<SimulatedMaps::MapRef> made_;
    std::string path_;
};

TEST_P(Simulated, WhatIsGoneHasNoMemory) {
    const PageCache& cache = fs->volume().fs().pages;
    ok(fs->sync());
    const std::uint64_t before = cache.used_bytes();
    constexpr std::size_t pages = 64;
    write(0, std::string(pages * page, 'a'));
    SimulatedMaps::Map& memory = map(pages * page);
    for (std::size_t i = 0; i < pages; ++i) ok(maps->store(memory, i * page, bytes("m"), Source::program));
    EXPECT_GE(cache.used_bytes(), before + pages * page);
    ok(fs->sync());
    unmap_all();
    const InodeRef top = *fs->root();
    ok(fs->unlink(*top, "f", Credentials::root(), true));
    file.reset();
    fs->volume().wait_for_deletions();
    EXPECT_EQ(cache.used_bytes(), before);
    file = open("/f");
}

TEST_P(Simulated, MapsAndFilesAreOne) {
    write(0, std::string(3 * page, 'a'));
    SimulatedMaps::Map &one = map(4 * page), &two = map(4 * page);
    EXPECT_EQ(load(one, page - 2, 4), "aaaa");
    ok(store(one, page - 2, "bcde"));
    EXPECT_EQ(read(page - 3, 6), "abcdea");
    EXPECT_EQ(load(two, page - 3, 6), "abcdea");
    write(page, "XY");
    EXPECT_EQ(load(two, page - 2, 4), "bcXY");
    ok(file->sync(false));
    const std::uint64_t faults = maps->faults();
    ok(store(one, 0, "1"));  // protected by the writeback or the commit
    EXPECT_EQ(maps->faults(), faults + 1);
    ok(store(one, 1, "2"));
    EXPECT_EQ(maps->faults(), faults + 1);
    EXPECT_EQ(read(0, 3), "12a");
}

TEST_P(Simulated, NothingIsPastTheEnd) {
    write(0, "start");
    SimulatedMaps::Map& m = map(4 * page);
    ok(store(m, 5, "junk"));  // of the last page: nobody's bytes
    EXPECT_EQ(load(m, page, 1), "refused");
    EXPECT_FALSE(store(m, 2 * page, "x"));
    ok(file->truncate(3 * page));
    EXPECT_EQ(load(m, 0, 10), std::string("start\0\0\0\0\0", 10));
    ok(store(m, 2 * page, "x"));
    EXPECT_EQ(read(2 * page, 2), std::string("x\0", 2));
    ok(file->truncate(page));
    EXPECT_EQ(load(m, 2 * page, 1), "refused");
    ok(file->truncate(3 * page));
    EXPECT_EQ(load(m, 2 * page, 1), std::string(1, 0));
}

TEST_P(Simulated, APunchTakesPagesAway) {
    write(0, std::string(4 * page, 'a'));
    SimulatedMaps::Map& m = map(4 * page);
    ok(store(m, page, "dirty"));
    ok(file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page, 2 * page));
    EXPECT_EQ(load(m, page, 5), std::string(5, 0));
    ok(store(m, 2 * page, "new"));
    EXPECT_EQ(read(2 * page, 4), std::string("new\0", 4));
    EXPECT_EQ(load(m, 3 * page, 1), "a");
}

TEST_P(Simulated, PrivateStoresStayPrivate) {
    write(0, std::string(2 * page, 'a'));
    SimulatedMaps::Map& m = map(2 * page, false);
    ok(store(m, 10, "own"));
    EXPECT_EQ(read(10, 3), "aaa");
    write(10, "xyz");
    EXPECT_EQ(load(m, 10, 3), "own");
    write(page, "b");
    EXPECT_EQ(load(m, page, 1), "b");
}

TEST_P(Simulated, OneDeliveryIsEnough) {
    SimulatedMaps::Map& m = map(8 * page);
    ok(file->truncate(60));
    ok(store(m, 3, "inline", Source::once));  // in the inode, where there is room in it
    EXPECT_EQ(read(3, 6), "inline");
    ok(file->truncate(8 * page));
    ok(store(m, 5 * page + 7, "hole", Source::once));
    EXPECT_EQ(load(m, 5 * page + 7, 4, Source::once), "hole");
    ok(file->fallocate(0, 6 * page, page));
    ok(store(m, 6 * page, "unwritten", Source::once));
    ok(file->sync(false));
    ok(store(m, 6 * page, "UN", Source::once));
    EXPECT_EQ(read(6 * page, 9), "UNwritten");
}

TEST_P(Simulated, AKernelThatOffersLessLosesNothing) {
    start({.continue_protected = false});
    write(0, std::string(2 * page, 'a'));
    ok(file->sync(false));
    SimulatedMaps::Map& m = map(2 * page);
    EXPECT_EQ(load(m, 0, 1), "a");
    const std::uint64_t faults = maps->faults();
    ok(store(m, 0, "b"));  // the load has counted as a store
    EXPECT_EQ(maps->faults(), faults);
    ok(file->sync(false));
    EXPECT_EQ(read(0, 2), "ba");
}

TEST_P(Simulated, AFrozenStoreWaits) {
    write(0, std::string(2 * page, 'a'));
    SimulatedMaps::Map& m = map(2 * page);
    ok(store(m, 0, "b"));
    ok(fs->freeze());
    EXPECT_EQ(load(m, 0, 2), "ba");
    std::atomic<bool> stored{false};
    std::thread storer([&] {
        ok(store(m, 1, "c"));
        stored = true;
    });
    while (maps->parked() == 0) std::this_thread::yield();
    EXPECT_FALSE(stored.load());
    EXPECT_EQ(load(m, page, 1), "a");  // loads go on
    ok(fs->thaw());
    maps->resume();
    storer.join();
    EXPECT_EQ(read(0, 3), "bca");
}

TEST_P(Simulated, WithoutSpaceOneAccessFails) {
    SimulatedMaps::Map& m = map(page);
    write(0, std::string(page, 'a'));
    auto sparse = open("/sparse");
    ok(sparse->truncate(64 << 20));
    auto wide = maps->map(
        {.inode = sparse->inode_ref(), .length = 64 << 20, .protection = PROT_READ | PROT_WRITE, .may_write = true});
    ASSERT_TRUE(wide);
    std::uint64_t at = 0;
    while (at < (64 << 20) && store(**wide, at, "x")) at += page;
    ASSERT_LT(at, 64u << 20);
    EXPECT_GT(at, 10 * page);
    ok(store(m, 1, "still"));
    EXPECT_EQ(load(**wide, 0, 1), "x");
    EXPECT_EQ(load(**wide, at, 1), std::string(1, 0));
    ok(sparse->sync(false));
    // Room again: the same access goes through.
    ok(sparse->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, at / 2 / page * page));
    ok(store(**wide, at, "x"));
    ok(maps->unmap(*wide));
}

INSTANTIATE_TEST_SUITE_P(Formats, Simulated,
                         testing::Values(Format{"plain", "-t ext4 -b 4096 -m 0", ""},
                                         Format{"inline_1k", "-t ext4 -b 1024 -m 0 -O inline_data", ""},
                                         Format{"journaled", "-t ext4 -b 4096 -m 0", "data=journal"},
                                         Format{"journaled_inline_1k", "-t ext4 -b 1024 -m 0 -O inline_data",
                                                "data=journal"}),
                         [](const auto& format) { return std::string(format.param.name); });

}  // namespace
}  // namespace uext4
