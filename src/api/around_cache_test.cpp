// A file whose reader and writer has a cache of his own: large transfers go past ours, small ones through it, and all
// of them see one file.
#include "api/file_system.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <random>
#include <thread>

namespace uext4::around_cache_test {
namespace {

const Credentials root = Credentials::root();

class AroundCache : public ::testing::TestWithParam<const char*> {
protected:
    void SetUp() override {
        image_ = fmt::format("/dev/shm/uext4-around-{}", ::getpid());
        const std::string command = fmt::format("mke2fs -q -F -t ext4 {} {} 96M", GetParam(), image_);
        ASSERT_EQ(std::system(command.c_str()), 0);
        mount("cache=1M");
    }
    void TearDown() override {
        file_.reset();
        if (fs_) {
            EXPECT_TRUE(fs_->unmount());
        }
        fs_.reset();
        EXPECT_EQ(std::system(fmt::format("e2fsck -fn {} >/dev/null 2>&1", image_).c_str()), 0);
        ::unlink(image_.c_str());
    }
    void mount(const std::string& options) {
        Result<std::unique_ptr<FileSystem>> mounted = FileSystem::mount(image_, options);
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs_ = std::move(*mounted);
        Result<std::unique_ptr<OpenFile>> file = fs_->open_path("/file", O_RDWR | O_CREAT, 0644, root);
        ASSERT_TRUE(file) << file.error().what;
        file_ = std::move(*file);
        file_->set_kernel_cached(true);
    }
    void remount() {
        file_.reset();
        ASSERT_TRUE(fs_->unmount());
        fs_.reset();
        mount("");
    }

    std::string image_;
    std::unique_ptr<FileSystem> fs_;
    std::unique_ptr<OpenFile> file_;
};

constexpr std::uint64_t most = 8 << 20;

TEST_P(AroundCache, LargeAndSmallTransfersSeeOneFile) {
    std::mt19937_64 random(7);
    std::vector<std::byte> model;
    const auto below = [&](std::uint64_t limit) { return random() % limit; };
    for (int step = 0; step < 1500; ++step) {
        const bool large = below(2) == 0;
        std::uint64_t offset = below(most), length = 1 + below(large ? 1 << 20 : 9000);
        if (below(4) != 0) offset -= offset % 4096, length = round_up(length, 4096);
        switch (below(8)) {
            case 0:
            case 1:
            case 2: {
                const std::vector<std::byte> data(length, static_cast<std::byte>(random()));
                const Result<std::size_t> put = file_->write(offset, data);
                ASSERT_TRUE(put) << put.error().what;
                ASSERT_EQ(*put, length);
                if (model.size() < offset + length) model.resize(offset + length);
                std::ranges::copy(data, model.begin() + static_cast<std::ptrdiff_t>(offset));
                break;
            }
            case 3: {
                if (below(3) != 0) break;
                ASSERT_TRUE(file_->truncate(offset));
                model.resize(offset);
                break;
            }
            case 4: {
                const std::uint64_t end = std::min<std::uint64_t>(offset + length, model.size());
                ASSERT_TRUE(file_->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length));
                for (std::uint64_t i = offset; i < end; ++i) model[i] = std::byte{0};
                break;
            }
            case 5: {
                if (below(10) == 0) {
                    ASSERT_TRUE(file_->sync(below(2) == 0));
                }
                if (below(100) == 0) {
                    ASSERT_NO_FATAL_FAILURE(remount());
                }
                break;
            }
            default: {
                std::vector<std::byte> out(length, std::byte{0xEE});
                const Result<std::size_t> got = file_->read(offset, out);
                ASSERT_TRUE(got) << got.error().what;
                const std::uint64_t expected =
                    offset >= model.size() ? 0 : std::min<std::uint64_t>(length, model.size() - offset);
                ASSERT_EQ(*got, expected) << "step " << step;
                ASSERT_TRUE(std::equal(
                    out.begin(), out.begin() + static_cast<std::ptrdiff_t>(expected),
                    model.begin() + static_cast<std::ptrdiff_t>(std::min<std::uint64_t>(offset, model.size()))))
                    << "step " << step << ": " << length << " bytes at " << offset;
            }
        }
    }
    ASSERT_NO_FATAL_FAILURE(remount());
    std::vector<std::byte> all(model.size() + 1);
    const Result<std::size_t> got = file_->read(0, all);
    ASSERT_TRUE(got) << got.error().what;
    ASSERT_EQ(*got, model.size());
    all.resize(model.size());
    EXPECT_EQ(all, model);
}

// What is in its place already is overwritten there: no folio is made for it, and a reader beside it who makes one sees
// the old bytes or the new ones, and afterwards only the new ones.
TEST_P(AroundCache, WhereSpaceEndsWhatWasTakenIsCounted) {
    const std::vector<std::byte> before(1 << 20, std::byte{'a'}), data(2 << 20, std::byte{'b'});
    ASSERT_TRUE(file_->write(0, before));
    ASSERT_TRUE(file_->sync(false));
    auto filler = fs_->open_path("/filler", O_RDWR | O_CREAT, 0644, root);
    ASSERT_TRUE(filler);
    for (std::uint64_t end = 0; (*filler)->write(end, data);) end = (*filler)->inode().size_hint();
    ASSERT_TRUE((*filler)->sync(false));
    const Result<std::size_t> put = file_->write(0, data);
    ASSERT_TRUE(put) << put.error().what;
    EXPECT_EQ(*put, before.size());
    std::vector<std::byte> all(data.size());
    const Result<std::size_t> got = file_->read(0, all);
    ASSERT_TRUE(got);
    EXPECT_EQ(*got, before.size());
    EXPECT_TRUE(
        std::equal(before.begin(), before.end(), all.begin(), [](auto, auto b) { return b == std::byte{'b'}; }));
}

TEST_P(AroundCache, OverwritesMakeNoFolios) {
    constexpr std::uint64_t size = 256 << 10, piece = 4096;
    const auto filled = [](unsigned n, std::uint64_t length) {
        return std::vector<std::byte>(length, static_cast<std::byte>(n));
    };
    ASSERT_TRUE(file_->write(0, filled(1, size)));
    ASSERT_TRUE(file_->sync(false));
    ASSERT_NO_FATAL_FAILURE(remount());
    const std::uint64_t cached = file_->inode().pages().cached_folios();
    for (std::uint64_t at = 0; at < size; at += 2 * piece) {
        const Result<std::size_t> n = file_->write(at, filled(2, piece));
        ASSERT_TRUE(n && *n == piece);
    }
    EXPECT_EQ(file_->inode().pages().cached_folios(), cached);
    EXPECT_EQ(file_->inode().pages().dirty_folios(), 0u);
    std::atomic<unsigned> written{2};
    std::thread reader([&] {
        std::vector<std::byte> seen(piece);
        for (unsigned i = 0; written.load() < 100; ++i) {
            const std::uint64_t at = i % 8 * 2 * piece;
            const unsigned least = written.load();
            ASSERT_TRUE(file_->read(at, seen));
            ASSERT_GE(static_cast<unsigned>(seen[0]), least);
        }
    });
    for (unsigned n = 3; n <= 100; ++n) {
        for (std::uint64_t at = 0; at < 8 * 2 * piece; at += 2 * piece) EXPECT_TRUE(file_->write(at, filled(n, piece)));
        written.store(n);
        // The reader's folios go, so that it makes new ones.
        if (n % 3 != 0) continue;
        ASSERT_TRUE(file_->sync(true));  // what met a folio of the reader's is only there
        const WriteLock guard(file_->inode().pages().invalidate);
        file_->inode().pages().remove(0, 8 * 2 * piece / file_->inode().pages().folio_size());
    }
    reader.join();
    std::vector<std::byte> all(size);
    ASSERT_TRUE(file_->sync(false));
    ASSERT_NO_FATAL_FAILURE(remount());
    ASSERT_TRUE(file_->read(0, all));
    for (std::uint64_t at = 0; at < size; at += piece)
        ASSERT_EQ(static_cast<unsigned>(all[at]), at / piece % 2 ? 1u : at < 8 * 2 * piece ? 100u : 2u) << at;
}

INSTANTIATE_TEST_SUITE_P(Formats, AroundCache,
                         ::testing::Values("-b 4096", "-b 1024", "-b 4096 -O ^extents,^64bit",
                                           "-b 4096 -O bigalloc -C 16384", "-b 4096 -O inline_data -I 256"));

}  // namespace
}  // namespace uext4::around_cache_test
