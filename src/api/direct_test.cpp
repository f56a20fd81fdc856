// Direct requests on one file from several threads.
#include "api/file_system.h"
#include "device/memory_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>
#include <vector>

namespace uext4 {
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
    void SetUp() override {
        const std::string path = fmt::format("/dev/shm/uext4-direct-{}", ::getpid());
        ASSERT_EQ(std::system(fmt::format("mke2fs -q -F -t ext4 -b 4096 {} 32M", path).c_str()), 0);
        auto image = MemoryDevice::load(path);
        ::unlink(path.c_str());
        ASSERT_TRUE(image);
        memory = std::move(*image);
        device = std::make_shared<SlowDevice>(memory);
        auto mounted = FileSystem::mount_device(device, {});
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
    }
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
    Memory out(static_cast<std::byte*>(std::aligned_alloc(4096, size)));
    std::fill_n(out.get(), size, static_cast<std::byte>(value));
    return out;
}

TEST_F(Direct, OverwritesGoSideBySide) {
    constexpr int threads = 4, rounds = 5;
    {
        auto file = open(O_DIRECT);
        const Memory zeros = filled(threads * block, 0);
        ASSERT_TRUE(file->write(0, ConstBytes(zeros.get(), threads * block)));
        ASSERT_TRUE(file->sync(false));
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
        ASSERT_TRUE(file->write(0, ConstBytes(bytes.get(), 4096)));
        struct stat wanted{}, seen{};
        file->inode().fill_stat(wanted);
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
}  // namespace uext4
