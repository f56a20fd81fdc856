// Direct requests on one file from several threads.
#include "api/file_system.h"
#include "tests/doubles/memory_device.h"
#include "tests/doubles/recording_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>
#include <vector>

namespace uext4::direct_test {
namespace {

constexpr std::size_t block = 64 << 10;

// A device that takes its time over large writes, and counts how many are under way.
class SlowDevice final : public BlockDevice {
public:
    explicit SlowDevice(std::shared_ptr<MemoryDevice> base) : base_(std::move(base)) {}
    std::uint64_t size() const override { return base_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override { return base_->read(offset, out); }
    Result<void> write(std::uint64_t offset, ConstBytes in) override {
        if (in.size() != block) return base_->write(offset, in);
        const int now = ++under_way;
        for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        --under_way;
        return base_->write(offset, in);
    }
    Result<void> flush() override { return base_->flush(); }
    Result<void> discard(std::uint64_t offset, std::uint64_t length) override { return base_->discard(offset, length); }
    bool read_only() const override { return base_->read_only(); }
    std::string name() const override { return base_->name(); }
    std::atomic<int> under_way{0}, most{0};

private:
    std::shared_ptr<MemoryDevice> base_;
};

class Direct : public testing::Test {
protected:
    void SetUp() override { make(""); }
    void make(const std::string& features) {
        fs.reset();
        const std::string path = fmt::format("/dev/shm/uext4-direct-{}", ::getpid());
        ASSERT_EQ(std::system(fmt::format("mke2fs -q -F -t ext4 -b 4096 {} {} 32M", features, path).c_str()), 0);
        auto image = MemoryDevice::load(path);
        ::unlink(path.c_str());
        ASSERT_TRUE(image);
        memory = std::move(*image);
        device = std::make_shared<SlowDevice>(memory);
        auto mounted = FileSystem::mount_device(device, {});
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
    }
    void overwrite_side_by_side(bool was_read);
    std::unique_ptr<OpenFile> open(int flags) {
        auto file = fs->open_path("/f", O_CREAT | O_RDWR | flags, 0644, Credentials::root());
        EXPECT_TRUE(file);
        return std::move(*file);
    }

    std::shared_ptr<MemoryDevice> memory;
    std::shared_ptr<SlowDevice> device;
    std::unique_ptr<FileSystem> fs;
};

struct Free {
    void operator()(std::byte* p) const { std::free(p); }
};
using Memory = std::unique_ptr<std::byte, Free>;
Memory filled(std::size_t size, int value) {
    Memory out(static_cast<std::byte*>(std::aligned_alloc(4096, round_up(size, 4096))));
    std::fill_n(out.get(), size, static_cast<std::byte>(value));
    return out;
}

void Direct::overwrite_side_by_side(bool was_read) {
    constexpr int threads = 4, rounds = 5;
    {
        auto file = open(O_DIRECT);
        const Memory zeros = filled(threads * block, 0);
        ASSERT_TRUE(file->write(0, ConstBytes(zeros.get(), threads * block)));
        ASSERT_TRUE(file->sync(false));
        if (was_read) {
            std::vector<std::byte> seen(threads * block);
            ASSERT_TRUE(open(0)->read(0, seen));
        }
        device->most = 0;
        struct stat before{};
        file->inode().fill_stat(before);
        std::vector<std::thread> writers;
        for (int t = 0; t < threads; ++t)
            writers.emplace_back([&, t] {
                auto mine = open(O_DIRECT);
                for (int round = 1; round <= rounds; ++round) {
                    const Memory bytes = filled(block, t * 16 + round);
                    const auto n = mine->write(static_cast<std::uint64_t>(t) * block, ConstBytes(bytes.get(), block));
                    EXPECT_TRUE(n && *n == block);
                }
            });
        for (std::thread& writer : writers) writer.join();
        EXPECT_GE(device->most.load(), 2) << "one write at once";
        struct stat after{};
        file->inode().fill_stat(after);
        EXPECT_TRUE(after.st_mtim.tv_sec > before.st_mtim.tv_sec || after.st_mtim.tv_nsec != before.st_mtim.tv_nsec);
        auto cached = open(0);
        std::vector<std::byte> seen(threads * block);
        ASSERT_TRUE(cached->read(0, seen));
        for (int t = 0; t < threads; ++t)
            for (std::size_t i = 0; i < block; i += 511)
                ASSERT_EQ(seen[static_cast<std::size_t>(t) * block + i], static_cast<std::byte>(t * 16 + rounds));
    }
    ASSERT_TRUE(fs->unmount());
}

TEST_F(Direct, OverwritesGoSideBySide) { overwrite_side_by_side(false); }

TEST_F(Direct, OverwritesOfWhatIsCachedGoSideBySide) { overwrite_side_by_side(true); }

// Whether the kernel's ext4 on a device with sectors of 512 bytes answers a read with EINVAL: only where it would have
// to read from the device what is not in sectors. Else the bytes up to the end of the file.
TEST_F(Direct, AReadIsInSectorsOnlyWhereTheDeviceIsRead) {
    constexpr int refused = -EINVAL;
    struct Case {
        std::uint64_t offset;
        std::size_t length;
        int answer;
    };
    // Data to 100,000, in blocks to 102,400; then a hole to the end at 300,001, but for unwritten blocks from 200,704.
    const Case cases[] = {
        {0, 512, 512},          {1, 512, refused},       {512, 100, refused},
        {512, 513, refused},    {98304, 4096, 4096},     {98304, 4097, 4097},
        {98304, 4095, refused}, {98305, 65536, refused}, {99840, 511, refused},
        {102400, 1, 1},         {102401, 513, 513},      {131072, 100, 100},
        {200705, 4097, 4097},   {208895, 512, 512},      {299520, 4096, 481},
        {300000, 513, 1},       {300001, 1, 0},          {300001, 65536, 0},
        {300032, 512, 0},       {1 << 20, 511, 0},       {1, 0, 0},
        {(1 << 20) + 1, 0, 0},
    };
    {
        auto cached = open(0), direct = open(O_DIRECT);
        std::vector<std::byte> bytes(100000, std::byte{'q'}), seen(70000);
        ASSERT_TRUE(cached->truncate(300001));
        ASSERT_TRUE(cached->fallocate(0, 200704, 8192));
        ASSERT_TRUE(cached->write(0, bytes));  // last: an allocation writes what there is
        for (const bool synced : {false, true}) {
            if (synced) {
                ASSERT_TRUE(cached->sync(false));
            }
            for (const Case& c : cases) {
                std::ranges::fill(seen, std::byte{'-'});
                const auto n = direct->read(c.offset, Bytes(seen).first(c.length));
                ASSERT_EQ(n ? static_cast<int>(*n) : -n.error().code, c.answer) << c.length << " at " << c.offset;
                for (int i = 0; i < c.answer; ++i)
                    ASSERT_EQ(static_cast<char>(seen[static_cast<std::size_t>(i)]),
                              c.offset + static_cast<unsigned>(i) < bytes.size() ? 'q' : 0)
                        << i << " of " << c.length << " at " << c.offset;
            }
        }
        // One part of a vector alone decides, and nothing is read before it.
        const Bytes mixed[] = {Bytes(seen).first(512), Bytes(seen).subspan(512, 100), Bytes(seen).subspan(1024, 412)};
        EXPECT_EQ(direct->read(0, mixed).error().code, EINVAL);
        EXPECT_EQ(direct->read(131072, mixed).value_or(0), 1024U);
    }
    ASSERT_TRUE(fs->unmount());
}

TEST_F(Direct, WhoeverReadsOnToTheEndMeetsIt) {
    {
        auto cached = open(0), direct = open(O_DIRECT);
        const std::vector<std::byte> bytes(100001, std::byte{'q'});
        ASSERT_TRUE(cached->write(0, bytes));
        const Memory memory = filled(block, 0);
        std::size_t at = 0, reads = 0;
        for (;; ++reads) {
            const auto n = direct->read(at, Bytes(memory.get(), block));
            ASSERT_TRUE(n) << n.error().what;
            if (*n == 0) break;
            at += *n;
        }
        EXPECT_EQ(at, bytes.size());
        EXPECT_EQ(reads, 2U);
    }
    ASSERT_TRUE(fs->unmount());
}

TEST_F(Direct, AWriteIsInSectors) {
    {
        auto direct = open(O_DIRECT);
        const Memory memory = filled(8192, 'w');
        for (const std::uint64_t offset : {0U, 1U, 100U, 512U, 4096U, 1048576U})
            for (const std::size_t length : {0U, 1U, 511U, 512U, 513U, 4096U, 4097U}) {
                const auto n = direct->write(offset, ConstBytes(memory.get(), length));
                if (length == 0 || (offset % 512 == 0 && length % 512 == 0)) {
                    EXPECT_TRUE(n && *n == length) << length << " at " << offset;
                } else {
                    EXPECT_EQ(n ? 0 : n.error().code, EINVAL) << length << " at " << offset;
                }
            }
        const ConstBytes halves[] = {ConstBytes(memory.get(), 256), ConstBytes(memory.get(), 256)};
        EXPECT_EQ(direct->write(0, halves).error().code, EINVAL);
        const ConstBytes with_nothing[] = {ConstBytes(memory.get(), 512), ConstBytes(), ConstBytes(memory.get(), 512)};
        EXPECT_EQ(direct->write(0, with_nothing).value_or(0), 1024U);
    }
    ASSERT_TRUE(fs->unmount());
}

TEST_F(Direct, TheMemoryLiesAnywhere) {
    {
        auto cached = open(0), direct = open(O_DIRECT);
        const Memory from = filled(2 * block, 0), to = filled(2 * block, 0);
        for (const std::size_t shift : {0U, 1U, 2U, 4U, 8U, 100U, 256U, 512U, 4095U})
            for (const std::size_t length : {std::size_t{512}, std::size_t{4096}, block}) {
                for (std::size_t i = 0; i < 2 * block; ++i) from.get()[i] = static_cast<std::byte>(i * 7 + shift);
                const ConstBytes wanted(from.get() + shift, length);
                // Into a hole, then over what is there.
                ASSERT_TRUE(cached->truncate(0));
                for (int round = 0; round < 2; ++round) {
                    ASSERT_EQ(direct->write(length, wanted).value_or(0), length) << shift;
                    std::fill_n(to.get(), 2 * block, std::byte{0});
                    ASSERT_EQ(direct->read(length, Bytes(to.get() + shift, length)).value_or(0), length) << shift;
                    EXPECT_TRUE(std::ranges::equal(ConstBytes(to.get() + shift, length), wanted)) << shift;
                    EXPECT_EQ(to.get()[shift + length], std::byte{0});
                }
            }
    }
    ASSERT_TRUE(fs->unmount());
}

// Contents in the inode are in no sector of their own: they go through the cache, as in the kernel.
TEST_F(Direct, ContentsInTheInodeHaveNoSectors) {
    ASSERT_TRUE(fs->unmount());
    ASSERT_NO_FATAL_FAILURE(make("-I 256 -O inline_data"));
    {
        auto direct = open(O_DIRECT);
        const Memory memory = filled(512, 'i');
        ASSERT_EQ(direct->write(3, ConstBytes(memory.get(), 31)).value_or(0), 31U);
        struct stat seen{};
        direct->inode().fill_stat(seen);
        EXPECT_EQ(seen.st_size, 34);
        EXPECT_EQ(direct->read(2, Bytes(memory.get() + 1, 100)).value_or(0), 32U);
        EXPECT_EQ(memory.get()[1], std::byte{0});
        EXPECT_EQ(memory.get()[2], std::byte{'i'});
        EXPECT_EQ(direct->read(34, Bytes(memory.get() + 1, 100)).value_or(1), 0U);
    }
    ASSERT_TRUE(fs->unmount());
}

// An overwrite changes no mapping: its times, and the flush that makes it durable, come in the background all the same.
TEST_F(Direct, AnOverwriteIsDurableByItself) {
    ASSERT_TRUE(fs->unmount());
    auto options = parse_all_options("commit=1");
    ASSERT_TRUE(options);
    auto mounted = FileSystem::mount_device(device, *options);
    ASSERT_TRUE(mounted) << mounted.error().what;
    fs = std::move(*mounted);
    {
        auto file = open(O_DIRECT);
        const Memory bytes = filled(4096, 1);
        ASSERT_TRUE(file->write(0, ConstBytes(bytes.get(), 4096)));
        ASSERT_TRUE(file->sync(false));
        struct stat first{}, wanted{}, seen{};
        file->inode().fill_stat(first);
        std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the clock of times has another tick
        ASSERT_TRUE(file->write(0, ConstBytes(bytes.get(), 4096)));
        file->inode().fill_stat(wanted);
        ASSERT_FALSE(first.st_mtim.tv_sec == wanted.st_mtim.tv_sec && first.st_mtim.tv_nsec == wanted.st_mtim.tv_nsec);
        const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        for (bool stored = false; !stored;) {
            ASSERT_LT(std::chrono::steady_clock::now(), limit) << "the times are not stored";
            std::this_thread::sleep_for(std::chrono::milliseconds(200));
            auto cut = FileSystem::mount_device(memory->clone(), {});
            ASSERT_TRUE(cut) << cut.error().what;
            (*(*cut)->resolve("/f", Credentials::root()))->fill_stat(seen);
            stored = seen.st_mtim.tv_sec == wanted.st_mtim.tv_sec && seen.st_mtim.tv_nsec == wanted.st_mtim.tv_nsec;
            ASSERT_TRUE((*cut)->unmount());
        }
    }
    ASSERT_TRUE(fs->unmount());
}

// It needs no commit, so nothing but the sync makes the device keep it: by a flush behind it.
TEST_F(Direct, AnOverwriteIsDurableWithItsSync) {
    struct Way {
        const char* name;
        int flags;  // 0: a sync is asked for
        bool data_only;
    };
    constexpr Way ways[] = {
        {"fsync", 0, false}, {"fdatasync", 0, true}, {"O_DSYNC", O_DSYNC, true}, {"O_SYNC", O_SYNC, false}};
    int value = 'a';
    {
        const Memory bytes = filled(4096, value);
        auto file = open(O_DIRECT);
        ASSERT_TRUE(file->write(0, ConstBytes(bytes.get(), 4096)));
    }
    ASSERT_TRUE(fs->unmount());
    const std::unique_ptr<MemoryDevice> initial = memory->clone();
    const auto recorder = std::make_shared<RecordingDevice>(memory);
    VolumeOptions options;
    options.background = false;  // nobody else flushes
    auto mounted = FileSystem::mount_device(recorder, options);
    ASSERT_TRUE(mounted) << mounted.error().what;
    fs = std::move(*mounted);
    // How many bytes `wanted` the file has after a cut that takes all behind the last flush.
    const auto kept = [&](int wanted) {
        const std::vector<RecordedWrite> log = recorder->log();
        std::size_t durable = log.size();
        while (durable > 0 && log[durable - 1].kind != RecordedWrite::Kind::Flush) --durable;
        const std::shared_ptr<MemoryDevice> cut = initial->clone();
        EXPECT_TRUE(RecordingDevice::replay(log, durable, *cut));
        auto recovered = FileSystem::mount_device(cut, {});
        EXPECT_TRUE(recovered) << recovered.error().what;
        auto file = (*recovered)->open_path("/f", O_RDONLY, 0, Credentials::root());
        EXPECT_TRUE(file) << file.error().what;
        std::vector<std::byte> seen(8192);
        EXPECT_TRUE((*file)->read(0, seen));
        file->reset();
        EXPECT_TRUE((*recovered)->unmount());
        return std::ranges::count(seen, static_cast<std::byte>(wanted));
    };
    for (int round = 0; round < 2; ++round)
        for (const Way& way : ways) {
            SCOPED_TRACE(way.name);
            auto file = open(O_DIRECT | way.flags);
            const Memory bytes = filled(4096, ++value);
            const std::size_t before = recorder->log_size();
            ASSERT_EQ(file->write(0, ConstBytes(bytes.get(), 4096)).value_or(0), 4096U);
            EXPECT_TRUE(std::ranges::equal(recorder->log().at(before).data, ConstBytes(bytes.get(), 4096)));
            if (way.flags == 0) {
                EXPECT_EQ(kept(value - 1), 4096) << "it is flushed without being asked for";
                ASSERT_TRUE(file->sync(way.data_only));
            }
            EXPECT_EQ(kept(value), 4096);
        }
    ASSERT_TRUE(fs->unmount());
}

// What is cached, or not there yet, is not overwritten past the cache: every view has the bytes of the last write.
TEST_F(Direct, OverwritesAndTheCacheAgree) {
    {
        auto direct = open(O_DIRECT);
        auto cached = open(0);
        std::vector<std::byte> seen(block);
        for (int round = 1; round < 60; ++round) {
            const Memory bytes = filled(block, round);
            const std::uint64_t at = static_cast<std::uint64_t>(round % 4) * block;
            if (round % 3 == 0) {
                ASSERT_TRUE(cached->write(at + 100, ConstBytes(bytes.get(), 5000)));
            }
            if (round % 5 == 0) {
                ASSERT_TRUE(cached->sync(false));
            }
            ASSERT_TRUE(direct->write(at, ConstBytes(bytes.get(), block)));
            ASSERT_TRUE(cached->read(at, seen));
            EXPECT_EQ(std::vector<std::byte>(bytes.get(), bytes.get() + block), seen) << round;
            const Memory again = filled(block, 0);
            ASSERT_TRUE(direct->read(at, Bytes(again.get(), block)));
            EXPECT_TRUE(std::equal(seen.begin(), seen.end(), again.get())) << round;
        }
    }
    ASSERT_TRUE(fs->unmount());
}

}  // namespace
}  // namespace uext4::direct_test
