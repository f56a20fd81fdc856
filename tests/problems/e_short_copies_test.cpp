// Problem E: between taking a folio and giving it back a copy is short, a read fails, there is no space, or the folio's
// block joins no transaction, as nothing tells where it lies; and reclaim waits for folios that are left alone. Nothing
// is half done.
#include "settled_image.h"

#include "tests/doubles/faulty_device.h"

#include <atomic>
#include <random>
#include <thread>

namespace uext4::problems {
namespace {

constexpr std::size_t size = 64 * page;

class ShortCopies : public SettledImage, public testing::WithParamInterface<std::tuple<const char*, const char*>> {
protected:
    void SetUp() override {
        make(std::get<0>(GetParam()));
        write(*open("/f"), was_ = pattern(size, 1));
        ok(fs->unmount());
        fs.reset();
        mount_faulty();
    }
    // Nothing of the file is in the cache.
    void mount_faulty() {
        faulty = std::make_shared<FaultyDevice>(memory);
        auto options = parse_all_options(std::get<1>(GetParam()));
        ASSERT_TRUE(options);
        options->cache_bytes = 1 << 20;
        options->cache_grows = false;
        auto mounted = FileSystem::mount_device(faulty, *options);
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
    }
    void again() {
        ok(fs->unmount());
        fs.reset();
        mount_faulty();
    }
    bool journaled() const { return std::string_view(std::get<1>(GetParam())).ends_with("journal"); }

    std::shared_ptr<FaultyDevice> faulty;
    std::string was_;
};

// A block that is written in part has to be read first, which fails: what came before it is written, and no more.
TEST_P(ShortCopies, AReadThatFailsEndsAWrite) {
    {
        auto file = open("/f", O_RDWR);
        (void)read(*file, 10);  // the inode and its map are in memory
        std::string bytes = pattern(3 * page, 2);
        const auto fault = faulty->fail_reads(EIO);
        auto alone = file->write(40 * page + 100, bytes_of("alone"));
        EXPECT_FALSE(alone);
        auto first = file->write(20 * page, bytes_of(bytes.substr(0, 2 * page + 100)));
        EXPECT_EQ(first.value_or(0), 2 * page);
        faulty->remove(fault);
        was_.replace(20 * page, 2 * page, bytes.substr(0, 2 * page));
        EXPECT_EQ(read(*file, size), was_);
        ok(file->sync(false));
    }
    again();
    EXPECT_EQ(read(*open("/f", O_RDONLY), size), was_);
    settle();
}

// The caller's memory ends in the middle: as many bytes as were there are written.
TEST_P(ShortCopies, MemoryThatEndsMakesAShortWrite) {
    {
        auto file = open("/f", O_RDWR), source = open("/source");
        const std::string bytes = pattern(3 * page + 200, 5);
        write(*source, bytes);
        char* memory_of_source = map(*source, 8 * page);
        NEED_MAP(memory_of_source);
        // Behind the last page of the source there is nothing; the write begins in the middle of a block.
        auto n = file->write(10 * page + 50, ConstBytes(reinterpret_cast<std::byte*>(memory_of_source), 6 * page));
        EXPECT_EQ(n.value_or(0), 4 * page) << (n ? "" : n.error().what);
        std::string there = bytes;
        there.resize(4 * page);
        was_.replace(10 * page + 50, 4 * page, there);
        EXPECT_EQ(read(*file, size), was_);
        unmap(memory_of_source, 8 * page);
    }
    again();
    EXPECT_EQ(read(*open("/f", O_RDONLY), size), was_);
    settle();
}

// There is space for a part of what is written: that is there, and the file ends behind it.
TEST_P(ShortCopies, SpaceThatEndsMakesAShortWrite) {
    constexpr std::size_t left = 16 * page, at = size + 8 * page + 100, wanted = 40 * page;
    {
        auto fill = open("/fill");
        std::uint64_t end = 0;
        for (const std::size_t piece : {64 * page, page})
            for (;; end += piece) {
                const auto n = fill->write(end, bytes_of(pattern(piece, 3)));
                if (!n || *n < piece) break;
            }
        ok(fill->truncate(end - left));
        ok(fs->sync());
        auto file = open("/f", O_RDWR);
        const std::string bytes = pattern(wanted, 4);
        const auto n = file->write(at, bytes_of(bytes));
        ASSERT_TRUE(n) << n.error().what;
        EXPECT_GT(*n, 0u);
        EXPECT_LT(*n, wanted);
        const auto none = file->write(at + *n, bytes_of(bytes.substr(0, page)));
        ASSERT_FALSE(none);
        EXPECT_EQ(none.error().code, ENOSPC) << none.error().what;
        was_.resize(at);
        was_ += bytes.substr(0, *n);
        EXPECT_TRUE(read(*file, at + wanted) == was_);
        ok(file->sync(false));
    }
    again();
    EXPECT_TRUE(read(*open("/f", O_RDONLY), at + wanted) == was_);
    settle();
}

// A block is written as a whole, which reads nothing of it, but of the tree that has its place.
TEST_P(ShortCopies, ABlockWhosePlaceIsNotKnownIsNotWritten) {
    std::string expected;
    {
        // More extents than the inode holds, none next to another.
        auto file = open("/scattered");
        for (std::uint64_t i = 0; i < 10; ++i) {
            const std::string bytes = pattern(page, static_cast<unsigned>(i));
            write(*file, bytes, 2 * i * page);
            expected.resize(2 * i * page);
            expected += bytes;
        }
        ok(file->sync(false));
    }
    again();
    {
        auto file = open("/scattered", O_RDWR);
        const std::string bytes = pattern(page, 20);
        const auto fault = faulty->fail_reads(EIO);
        const auto refused = file->write(8 * page, bytes_of(bytes));
        EXPECT_GT(faulty->hits(fault), 0u);
        faulty->remove(fault);
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, EIO) << refused.error().what;
        EXPECT_TRUE(read(*file, expected.size() + 1) == expected);
        ok(file->sync(false));
        EXPECT_TRUE(read(*file, expected.size() + 1) == expected);
        write(*file, bytes, 8 * page);
        expected.replace(8 * page, page, bytes);
        EXPECT_TRUE(read(*file, expected.size() + 1) == expected);
    }
    again();
    EXPECT_TRUE(read(*open("/scattered", O_RDONLY), expected.size() + 1) == expected);
    settle();
}

// Reads that fail, with reclaim at their heels: every byte is one that a call that succeeded has written, or the old
// one, and a write that was cut short has changed nothing behind what it says.
TEST_P(ShortCopies, BesideReclaim) {
    // Twice what the cache holds: what a write wants of it has mostly been given up.
    constexpr std::size_t slice = 64 * page, all_slices = 8 * slice;
    std::atomic<bool> stop{false};
    const std::string before = pattern(all_slices, 7);
    write(*open("/shared"), before);
    write(*open("/large"), pattern(4 << 20, 9));
    ok(fs->sync());
    // Of the reads of the file's first extent, and not of what the log reads, several in turn fail: a write that was
    // cut short tries to go on.
    std::atomic<unsigned> reads{0};
    DeviceFault unreadable{.kinds = {DeviceRequest::Kind::Read}, .length = 0, .predicate = [&](const DeviceRequest&) {
                               return reads++ / 4 % 4 == 0;
                           }};
    ok(fs->extents(open("/shared", O_RDONLY)->inode(), 0, all_slices, [&](const Mapping& run) {
        EXPECT_EQ(run.state, BlockState::mapped);
        unreadable.offset = run.block.value * fs->volume().fs().block_size();
        unreadable.length = run.length;
        return false;
    }));
    EXPECT_GT(unreadable.length, 2 * slice);
    std::thread churn([&] {
        auto large = open("/large", O_RDONLY);
        std::string bytes(32 << 10, 0);  // by less than what would go past the cache
        for (std::uint64_t at = 0; !stop; at = (at + bytes.size()) % (4 << 20)) {
            (void)large->read(at, std::as_writable_bytes(std::span(bytes)));
            fs->volume().fs().pages.reclaim();
        }
    });
    std::vector<std::unique_ptr<OpenFile>> handles;
    for (unsigned t = 0; t < 8; ++t) handles.push_back(open("/shared", O_RDWR));
    const auto fault = faulty->add(unreadable);
    std::vector<std::string> expected(8);
    std::vector<std::thread> writers;
    std::atomic<unsigned> refused_writes{0}, short_writes{0};
    for (unsigned t = 0; t < 8; ++t)
        writers.emplace_back([&, t] {
            std::mt19937 random(first_seed() * 100 + t);
            OpenFile* file = handles[t].get();
            std::string model = before.substr(t * slice, slice);
            for (int i = 0; i < (long_run() ? 5000 : 600); ++i) {
                const std::size_t at = random() % (slice - 1),
                                  n = std::min<std::size_t>(random() % 9000 + 1, slice - at);
                const std::string bytes = pattern(n, random());
                auto done = file->write(t * slice + at, bytes_of(bytes));
                if (!done) {
                    EXPECT_EQ(done.error().code, EIO) << done.error().what;
                    ++refused_writes;
                } else {
                    model.replace(at, *done, bytes.substr(0, *done));
                    short_writes += *done < n;
                }
                if (i % 16 == 0) (void)file->sync(false);
            }
            expected[t] = model;
        });
    for (std::thread& thread : writers) thread.join();
    stop = true;
    churn.join();
    faulty->remove(fault);
    handles.clear();
    EXPECT_GT(refused_writes.load(), 0u);
    EXPECT_GT(short_writes.load(), 0u);
    std::string all;
    for (const std::string& part : expected) all += part;
    EXPECT_TRUE(read(*open("/shared", O_RDONLY), all_slices) == all) << "from the cache";
    EXPECT_FALSE(fs->read_only());
    again();
    EXPECT_TRUE(read(*open("/shared", O_RDONLY), all_slices) == all) << "from the device";
    settle();
}

INSTANTIATE_TEST_SUITE_P(Formats, ShortCopies,
                         testing::Combine(testing::Values("-b 4096", "-b 1024"),
                                          testing::Values("data=ordered", "data=journal")));

}  // namespace
}  // namespace uext4::problems
