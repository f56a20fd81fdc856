// Which times a call moves, of files and of directories. (On a mount the kernel keeps the times of files itself.)
#include "api/file_system.h"
#include "tests/doubles/memory_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <thread>
#include <utility>

namespace uext4::times_test {
namespace {

const Credentials root = Credentials::root();

class Times : public testing::TestWithParam<const char*> {
protected:
    void SetUp() override {
        const std::string path = fmt::format("/dev/shm/uext4-times-{}", ::getpid());
        ASSERT_EQ(std::system(fmt::format("mke2fs -q -F -t ext4 {} {} 32M", GetParam(), path).c_str()), 0);
        auto memory = MemoryDevice::load(path);
        ::unlink(path.c_str());
        ASSERT_TRUE(memory);
        auto mounted = FileSystem::mount_device(std::shared_ptr<BlockDevice>(std::move(*memory)), {});
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
        top = *fs->root();
        below = *fs->create(*top, "d", S_IFDIR | 0755, 0, {}, root, false);
        f = open("/f"), g = open("/d/g");
        ASSERT_TRUE(f->write(0, std::vector<std::byte>(5000, std::byte{'f'})));
    }
    void TearDown() override {
        f.reset(), g.reset(), top.reset(), below.reset();
        EXPECT_TRUE(fs->unmount());
    }
    std::unique_ptr<OpenFile> open(const char* path) {
        auto opened = fs->open_path(path, O_CREAT | O_RDWR, 0644, root);
        EXPECT_TRUE(opened);
        return opened ? std::move(*opened) : nullptr;
    }
    struct stat now(Inode& inode) {
        auto attributes = fs->attributes(inode);
        EXPECT_TRUE(attributes);
        return attributes ? *attributes : (struct stat){};
    }
    // Times are those of the coarse clock, which stands still where the machine gets no tick.
    static void wait_for_the_clock() {
        const auto coarse = [] {
            timespec t{};
            ::clock_gettime(CLOCK_REALTIME_COARSE, &t);
            return std::pair(t.tv_sec, t.tv_nsec);
        };
        const auto from = coarse();
        while (coarse() == from) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    // Of the root, of /d, of f and of g: m, c, mc or nothing.
    template <class Call>
    std::string moved(Call call) {
        Inode* const all[] = {&*top, &*below, &f->inode(), &g->inode()};
        struct stat before[4];
        for (int i = 0; i < 4; ++i) before[i] = now(*all[i]);
        wait_for_the_clock();
        const auto done = call();
        EXPECT_TRUE(done) << done.error().what;
        const auto differ = [](const timespec& a, const timespec& b) {
            return a.tv_sec != b.tv_sec || a.tv_nsec != b.tv_nsec;
        };
        std::string out;
        for (int i = 0; i < 4; ++i) {
            const struct stat after = now(*all[i]);
            if (i > 0) out += ' ';
            if (differ(before[i].st_mtim, after.st_mtim)) out += 'm';
            if (differ(before[i].st_ctim, after.st_ctim)) out += 'c';
            if (out.empty() || out.back() == ' ') out += '-';
        }
        return out;
    }

    std::unique_ptr<FileSystem> fs;
    InodeRef top, below;
    std::unique_ptr<OpenFile> f, g;
};

TEST_P(Times, OfNames) {
    EXPECT_EQ(moved([&] { return fs->create(*top, "new", S_IFREG | 0644, 0, {}, root, true); }), "mc - - -");
    EXPECT_EQ(moved([&] { return fs->create(*below, "sub", S_IFDIR | 0755, 0, {}, root, true); }), "- mc - -");
    EXPECT_EQ(moved([&] { return fs->rmdir(*below, "sub", root, true); }), "- mc - -");
    EXPECT_EQ(moved([&] { return fs->link(f->inode(), *below, "same", root, true); }), "- mc c -");
    EXPECT_EQ(moved([&] { return fs->rename(*top, "f", *below, "same", 0, root, true); }), "- - - -");
    EXPECT_EQ(moved([&] { return fs->unlink(*below, "same", root, true); }), "- mc c -");
    EXPECT_EQ(moved([&] { return fs->rename(*top, "f", *top, "f2", 0, root, true); }), "mc - c -");
    EXPECT_EQ(moved([&] { return fs->rename(*top, "f2", *below, "f", 0, root, true); }), "mc mc c -");
    EXPECT_EQ(moved([&] { return fs->rename(*below, "f", *top, "f", 0, root, true); }), "mc mc c -");
    EXPECT_EQ(moved([&] { return fs->rename(*top, "f", *below, "g", 2 /* exchange */, root, true); }), "mc mc c c");
    EXPECT_EQ(moved([&] { return fs->rename(*top, "f", *top, "d", 2, root, true); }), "mc c - c");
    EXPECT_EQ(moved([&] { return fs->rename(*top, "d", *top, "f", 2, root, true); }), "mc c - c");
    EXPECT_EQ(moved([&] { return fs->rename(*top, "f", *below, "g", 0, root, true); }), "mc mc c c") << "replaces f";
    EXPECT_EQ(moved([&] { return fs->unlink(*below, "g", root, true); }), "- mc - c");
}

TEST_P(Times, OfAttributes) {
    const std::byte value[3]{};
    AttributeChange change;
    change.mode = 0600;
    EXPECT_EQ(moved([&] { return fs->set_attributes(f->inode(), change, root, true); }), "- - c -");
    EXPECT_EQ(moved([&] { return fs->set_xattr(g->inode(), "user.a", value, 0, root, true); }), "- - - c");
    EXPECT_EQ(moved([&] { return fs->set_xattr(*below, "user.a", value, 0, root, true); }), "- c - -");
    EXPECT_EQ(moved([&] { return fs->get_xattr(g->inode(), "user.a", root, true); }), "- - - -");
    EXPECT_EQ(moved([&] { return fs->remove_xattr(g->inode(), "user.a", root, true); }), "- - - c");
    EXPECT_EQ(moved([&] { return fs->set_flags(f->inode(), fs->get_flags(f->inode()) | 0x40, root, true); }),
              "- - c -");
}

TEST_P(Times, OfContents) {
    std::vector<std::byte> bytes(8192, std::byte{'b'});
    const auto write = [&](std::uint64_t at, std::size_t n) { return f->write(at, ConstBytes(bytes).first(n)); };
    EXPECT_EQ(moved([&] { return f->read(0, bytes); }), "- - - -");
    EXPECT_EQ(moved([&] { return write(0, 100); }), "- - mc -");
    EXPECT_EQ(moved([&] { return write(0, 8192); }), "- - mc -");
    EXPECT_EQ(moved([&] { return write(50000, 1); }), "- - mc -");
    EXPECT_EQ(moved([&] { return write(0, 0); }), "- - - -");
    EXPECT_EQ(moved([&] { return f->sync(false); }), "- - - -");
    EXPECT_EQ(moved([&] { return f->truncate(100); }), "- - mc -");
    EXPECT_EQ(moved([&] { return f->truncate(10000); }), "- - mc -");
    EXPECT_EQ(moved([&] { return g->fallocate(0, 0, 20000); }), "- - - mc");
    EXPECT_EQ(moved([&] { return g->fallocate(FALLOC_FL_KEEP_SIZE, 0, 40000); }), "- - - mc");
    EXPECT_EQ(moved([&] { return g->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8192); }), "- - - mc");
    EXPECT_EQ(moved([&] { return g->fallocate(FALLOC_FL_ZERO_RANGE, 0, 8192); }), "- - - mc");
    EXPECT_EQ(moved([&] { return g->fallocate(FALLOC_FL_COLLAPSE_RANGE, 0, 4096); }), "- - - mc");
    EXPECT_EQ(moved([&] { return g->fallocate(FALLOC_FL_INSERT_RANGE, 0, 4096); }), "- - - mc");
    EXPECT_EQ(moved([&] { return fs->copy_range(*f, 0, *g, 0, 5000); }), "- - - mc");
    auto direct = fs->open(f->inode_ref(), O_RDWR | O_DIRECT, root, true);
    ASSERT_TRUE(direct);
    EXPECT_EQ(moved([&] { return (*direct)->write(0, bytes); }), "- - mc -") << "over what is there";
    EXPECT_EQ(moved([&] { return (*direct)->write(16384, bytes); }), "- - mc -") << "longer";
    EXPECT_EQ(moved([&] { return (*direct)->write(0, bytes); }), "- - mc -");
    EXPECT_EQ(moved([&] { return (*direct)->read(0, bytes); }), "- - - -");
}

// A mount's kernel has taken the time of the call before it asks, and sends it if it is another one: what would be set
// here is later, and nobody would see it before the file is read anew.
TEST_P(Times, OfContentsAreTheKernelsOnAMount) {
    f->set_kernel_cached(true), g->set_kernel_cached(true);
    ASSERT_TRUE(g->write(0, std::vector<std::byte>(20000, std::byte{'g'})));
    EXPECT_EQ(moved([&] { return f->write(0, std::vector<std::byte>(100)); }), "- - - -");
    for (const int mode : {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
                           FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE})
        EXPECT_EQ(moved([&] { return g->fallocate(mode, 0, 30000); }), "- - - -") << mode;
    EXPECT_EQ(moved([&] { return fs->copy_range(*f, 0, *g, 0, 5000); }), "- - - -");
}

std::string name_of(const testing::TestParamInfo<const char*>& format) {
    const char* const names[] = {"plain", "with_inline_data", "small_blocks"};
    return names[format.index];
}

INSTANTIATE_TEST_SUITE_P(Formats, Times, testing::Values("", "-O inline_data", "-b 1024"), name_of);

}  // namespace
}  // namespace uext4::times_test
