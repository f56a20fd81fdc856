// Data that is still on its way to the device holds the size on disk back, whoever changes the size meanwhile.
#include "api/file_system.h"
#include "tests/doubles/memory_device.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <thread>

namespace uext4::late_data_test {
namespace {

const Credentials root = Credentials::root();

// A memory device that holds back the writes which contain a mark, until released.
class HoldingDevice final : public BlockDevice {
public:
    explicit HoldingDevice(std::unique_ptr<MemoryDevice> memory) : memory_(std::move(memory)) {}
    std::unique_ptr<MemoryDevice> snapshot() const { return memory_->clone(); }
    void hold() {
        std::lock_guard guard(lock_);
        holding_ = true;
    }
    void wait_until_one_is_held() {
        std::unique_lock guard(lock_);
        changed_.wait(guard, [&] { return held_ > 0; });
    }
    void release() {
        std::lock_guard guard(lock_);
        holding_ = false;
        changed_.notify_all();
    }

    std::uint64_t size() const override { return memory_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override { return memory_->read(offset, out); }
    Result<void> write(std::uint64_t offset, ConstBytes in) override {
        if (!in.empty() && in.front() == mark) {
            std::unique_lock guard(lock_);
            ++held_;
            changed_.notify_all();
            changed_.wait(guard, [&] { return !holding_; });
            --held_;
        }
        return memory_->write(offset, in);
    }
    Result<void> flush() override { return memory_->flush(); }
    bool read_only() const override { return false; }
    std::string name() const override { return "holding"; }

    static constexpr std::byte mark{0xA7};

private:
    std::unique_ptr<MemoryDevice> memory_;
    std::mutex lock_;
    std::condition_variable changed_;
    bool holding_ = false;
    int held_ = 0;
};

std::unique_ptr<MemoryDevice> fresh_image() {
    const std::string path = fmt::format("/dev/shm/uext4-late-{}", ::getpid());
    EXPECT_EQ(std::system(fmt::format("mke2fs -q -F -t ext4 -b 4096 {} 64M", path).c_str()), 0);
    auto memory = MemoryDevice::load(path);
    ::unlink(path.c_str());
    EXPECT_TRUE(memory);
    return std::move(*memory);
}

// /f of the image after its recovery, with which e2fsck has to be content.
std::string contents_after_recovery(std::unique_ptr<MemoryDevice> image) {
    const std::shared_ptr<MemoryDevice> device = std::move(image);
    std::string contents(1 << 20, 0);
    {
        auto fs = FileSystem::mount_device(device, {});
        EXPECT_TRUE(fs) << fs.error().what;
        auto file = (*fs)->open_path("/f", O_RDONLY, 0, root);
        EXPECT_TRUE(file) << file.error().what;
        auto n = (*file)->read(0, std::as_writable_bytes(std::span(contents)));
        EXPECT_TRUE(n) << n.error().what;
        contents.resize(n.value_or(0));
        file->reset();
        EXPECT_TRUE((*fs)->unmount());
    }
    const std::string path = fmt::format("/dev/shm/uext4-late-{}", ::getpid());
    EXPECT_TRUE(device->save(path));
    EXPECT_EQ(std::system(fmt::format("e2fsck -fn {} > {}.log 2>&1 || (cat {}.log; false)", path, path, path).c_str()),
              0);
    ::unlink(path.c_str());
    ::unlink((path + ".log").c_str());
    return contents;
}

// While a pass has blocks on their way, somebody writes into the hole below them.
void fill_below_a_pass(const std::function<void(OpenFile&)>& sync, std::uint64_t truncate_to) {
    auto device = std::make_shared<HoldingDevice>(fresh_image());
    auto fs = FileSystem::mount_device(device, {});
    ASSERT_TRUE(fs) << fs.error().what;
    {
        auto file = (*fs)->open_path("/f", O_CREAT | O_RDWR, 0644, root);
        ASSERT_TRUE(file);
        const std::vector<std::byte> data(4096, HoldingDevice::mark), other(4096, std::byte{'x'});
        ASSERT_TRUE((*file)->write(5 * 4096, data));
        const std::uint64_t size = std::max<std::uint64_t>(6 * 4096, truncate_to);
        if (truncate_to) {
            ASSERT_TRUE((*file)->truncate(truncate_to));
        }
        device->hold();
        std::thread syncing([&] { sync(**file); });
        device->wait_until_one_is_held();
        EXPECT_TRUE((*file)->write(1 * 4096, other));
        EXPECT_TRUE((*file)->write(8 * 4096, other));
        device->release();
        syncing.join();
        const std::string found = contents_after_recovery(device->snapshot());
        EXPECT_GE(found.size(), size) << "what was synced is behind the end of the file";
        EXPECT_EQ(std::count(found.begin(), found.end(), static_cast<char>(HoldingDevice::mark)), 4096);
    }
    EXPECT_TRUE((*fs)->unmount());
}

TEST(LateData, FilledHoleBelowAPassHidesNothingThatWasSynced) {
    fill_below_a_pass([](OpenFile& file) { EXPECT_TRUE(file.sync(false)); }, 0);
}

TEST(LateData, FilledHoleBelowAPassDoesNotHoldBackASizeThatWasSynced) {
    fill_below_a_pass([](OpenFile& file) { EXPECT_TRUE(file.sync(false)); }, 40 * 4096);
}

// A truncate takes the bytes that the size on disk was waiting for. There is nothing left to write, and a sync stores
// the size all the same.
TEST(LateData, ATruncateToAHoleLeavesASizeThatASyncStores) {
    for (const bool data_only : {false, true}) {
        SCOPED_TRACE(data_only ? "fdatasync" : "fsync");
        auto device = std::make_shared<HoldingDevice>(fresh_image());
        auto fs = FileSystem::mount_device(device, {});
        ASSERT_TRUE(fs) << fs.error().what;
        {
            auto file = (*fs)->open_path("/f", O_CREAT | O_RDWR, 0644, root);
            ASSERT_TRUE(file);
            ASSERT_TRUE((*file)->write(4 * 4096, std::vector<std::byte>(4096, std::byte{'x'})));
            ASSERT_TRUE((*file)->truncate(3 * 4096));
            EXPECT_TRUE((*file)->sync(data_only));
            EXPECT_EQ(contents_after_recovery(device->snapshot()), std::string(3 * 4096, '\0'));
        }
        EXPECT_TRUE((*fs)->unmount());
    }
}

TEST(LateData, TruncateUpDoesNotPublishASizeBeyondData) {
    auto device = std::make_shared<HoldingDevice>(fresh_image());
    auto fs = FileSystem::mount_device(device, {});
    ASSERT_TRUE(fs) << fs.error().what;
    std::unique_ptr<MemoryDevice> cut;
    {
        auto file = (*fs)->open_path("/f", O_CREAT | O_RDWR, 0644, root);
        auto other = (*fs)->open_path("/other", O_CREAT | O_RDWR, 0644, root);
        ASSERT_TRUE(file && other);
        ASSERT_TRUE((*file)->fallocate(FALLOC_FL_KEEP_SIZE, 0, 8192));
        ASSERT_TRUE((*file)->sync(false));
        const std::vector<std::byte> data(8192, HoldingDevice::mark);
        ASSERT_TRUE((*file)->write(0, data));
        device->hold();
        std::thread syncing([&] { EXPECT_TRUE((*file)->sync(false)); });
        device->wait_until_one_is_held();
        EXPECT_TRUE((*file)->truncate(20000));
        EXPECT_TRUE((*other)->sync(false));
        EXPECT_TRUE((*fs)->volume().fs().journal.commit_all());
        cut = device->snapshot();
        device->release();
        syncing.join();
        EXPECT_TRUE((*file)->sync(false));
    }
    const auto size_in = [](std::unique_ptr<MemoryDevice> image) -> std::int64_t {
        auto again = FileSystem::mount_device(std::move(image), {});
        EXPECT_TRUE(again) << again.error().what;
        std::int64_t size = -1;
        if (auto inode = (*again)->resolve("/f", root)) size = (*again)->attributes(**inode)->st_size;
        EXPECT_TRUE((*again)->unmount());
        return size;
    };
    EXPECT_EQ(size_in(std::move(cut)), 0) << "the size was on disk before the data";
    EXPECT_EQ(size_in(device->snapshot()), 20000) << "the sync after it did not store the size";
    EXPECT_TRUE((*fs)->unmount());
}

}  // namespace
}  // namespace uext4::late_data_test
