// Problem E: between taking a folio and giving it back a copy is short, a read fails, there is no space, or the folio's
// block does not join the transaction; and reclaim waits for folios that are left alone. Nothing is half done.
#include "settled_image.h"

#include "device/faulty_device.h"

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

// All of it at once, with reclaim at its heels: every byte is one that a call that succeeded has written, or the old
// one, and a write that was cut short has changed nothing behind what it says.
TEST_P(ShortCopies, BesideReclaim) {
    constexpr std::size_t slice = size / 8;
    std::atomic<bool> stop{false};
    write(*open("/large"), pattern(4 << 20, 9));
    ok(fs->sync());
    std::thread churn([&] {
        auto large = open("/large", O_RDONLY);
        std::string bytes(256 << 10, 0);
        for (std::uint64_t at = 0; !stop; at = (at + bytes.size()) % (4 << 20)) {
            (void)large->read(at, std::as_writable_bytes(std::span(bytes)));
            fs->volume().fs().pages.reclaim();
        }
    });
    std::vector<std::unique_ptr<OpenFile>> handles;
    for (unsigned t = 0; t < 8; ++t) handles.push_back(open("/f", O_RDWR));
    std::thread failing([&] {
        while (!stop) {
            const auto fault = faulty->fail_reads(EIO, 3, 5);
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
            faulty->remove(fault);
        }
    });
    std::vector<std::string> expected(8);
    std::vector<std::thread> writers;
    std::atomic<unsigned> refused_writes{0};
    for (unsigned t = 0; t < 8; ++t)
        writers.emplace_back([&, t] {
            std::mt19937 random(first_seed() * 100 + t);
            OpenFile* file = handles[t].get();
            std::string model = was_.substr(t * slice, slice);
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
                }
                if (i % 16 == 0) (void)file->sync(false);
            }
            expected[t] = model;
        });
    for (std::thread& thread : writers) thread.join();
    stop = true;
    churn.join(), failing.join();
    faulty->clear();
    handles.clear();
    RecordProperty("refused", static_cast<int>(refused_writes));
    std::string all;
    for (const std::string& part : expected) all += part;
    EXPECT_TRUE(read(*open("/f", O_RDONLY), size) == all) << "from the cache";
    if (fs->read_only()) return;  // the log's own read failed
    again();
    EXPECT_TRUE(read(*open("/f", O_RDONLY), size) == all) << "from the device";
    settle();
}

INSTANTIATE_TEST_SUITE_P(Formats, ShortCopies,
                         testing::Combine(testing::Values("-b 4096", "-b 1024"),
                                          testing::Values("data=ordered", "data=journal")));

}  // namespace
}  // namespace uext4::problems
