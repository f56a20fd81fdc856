// A direct overwrite goes past the cache. What a client map does to the same blocks while its data is on the way to the
// device takes nothing of it away.
#include "api/file_system.h"
#include "device/forwarding_device.h"
#include "file/file_io.h"
#include "tests/doubles/memory_device.h"
#include "tests/doubles/simulated_maps.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

namespace uext4::overwrite_test {
namespace {

constexpr std::size_t block = 4096;

// Calls others, once, around the next write to one place.
class OvertakenDevice final : public ForwardingDevice {
public:
    explicit OvertakenDevice(std::shared_ptr<BlockDevice> base) : ForwardingDevice(std::move(base)) {}
    Result<void> write(std::uint64_t offset, ConstBytes in) override {
        if (offset != place || !before) return ForwardingDevice::write(offset, in);
        std::exchange(before, nullptr)();
        Result<void> written = ForwardingDevice::write(offset, in);
        std::exchange(behind, nullptr)();
        return written;
    }
    Result<void> writev(std::uint64_t offset, std::span<const ConstBytes> parts) override {
        return BlockDevice::writev(offset, parts);  // each by write(). NOLINT(bugprone-parent-virtual-call)
    }

    std::uint64_t place = 0;
    std::function<void()> before, behind;
};

std::shared_ptr<MemoryDevice> fresh_image() {
    const std::string path = fmt::format("/dev/shm/uext4-overwrite-{}", ::getpid());
    EXPECT_EQ(std::system(fmt::format("mke2fs -q -F -t ext4 -b 4096 {} 32M", path).c_str()), 0);
    auto image = MemoryDevice::load(path);
    ::unlink(path.c_str());
    EXPECT_TRUE(image);
    return std::move(*image);
}

std::uint64_t place_of(Inode& inode) {
    MutexLock guard(inode.map_lock);
    const auto placed = inode.extent_status().lookup(0, 1);
    EXPECT_TRUE(placed && placed->state == BlockState::mapped);
    return placed ? placed->block.value * inode.fs().block_size() : 0;
}

// As by another thread of the program, which has come as far when this returns.
void by_another(const std::function<void()>& action) { std::thread(action).join(); }

// A folio with what was there before is brought into the cache and stored to. It is written back to the same blocks
// over the data, and is gone before anybody looks for it.
TEST(Overwrite, IsMadeAgainWhereAFolioThatCameAndWentCoversIt) {
    const std::shared_ptr<MemoryDevice> memory = fresh_image();
    const auto device = std::make_shared<OvertakenDevice>(memory);
    VolumeOptions options;
    options.background = false;
    auto fs = FileSystem::mount_device(device, options);
    ASSERT_TRUE(fs) << fs.error().what;
    const auto first_block = [&] {
        std::string bytes(block, 0);
        EXPECT_TRUE(memory->read(device->place, std::as_writable_bytes(std::span(bytes))));
        return bytes;
    };
    std::string below;
    {
        const auto open = [&](int flags) {
            auto file = (*fs)->open_path("/f", O_CREAT | O_RDWR | flags, 0644, Credentials::root());
            EXPECT_TRUE(file) << file.error().what;
            return std::move(*file);
        };
        auto direct = open(O_DIRECT), cached = open(0);
        const std::string old(block, 'a'), fresh(block, 'd');
        ASSERT_TRUE(direct->write(0, std::as_bytes(std::span(old))));
        ASSERT_TRUE(direct->sync(false));
        SimulatedMaps maps((*fs)->maps());
        auto map = maps.map(
            {.inode = cached->inode_ref(), .length = block, .protection = PROT_READ | PROT_WRITE, .may_write = true});
        ASSERT_TRUE(map) << map.error().what;
        device->before = [&] {
            by_another([&] { EXPECT_TRUE(maps.store(**map, 10, std::as_bytes(std::span("s", 1)))); });
        };
        device->behind = [&] {
            by_another([&] {
                EXPECT_TRUE(write_back(cached->inode()));
                below = first_block();
                FileCache& pages = cached->inode().pages();
                auto folio = pages.lock_for_change(0, false);
                ASSERT_TRUE(folio && *folio);
                ASSERT_FALSE((*folio)->dirty);
                pages.remove(std::move(*folio));
            });
        };
        device->place = place_of(cached->inode());
        EXPECT_EQ(direct->write(0, std::as_bytes(std::span(fresh))).value_or(0), block);
        // The store may be seen or not. It was at the same time.
        EXPECT_EQ(std::ranges::count(below, 'a'), block - 1) << "the folio was not written over the data";
        std::string seen(block, 0);
        EXPECT_EQ(cached->read(0, std::as_writable_bytes(std::span(seen))).value_or(0), block);
        if (seen[10] == 's') seen[10] = 'd';
        EXPECT_EQ(seen, fresh);
        EXPECT_TRUE(maps.unmap(*map));
        EXPECT_TRUE(direct->sync(false));
        std::string there = first_block();
        if (there[10] == 's') there[10] = 'd';
        EXPECT_EQ(there, fresh) << "on the device";
    }
    EXPECT_TRUE((*fs)->unmount());
}

}  // namespace
}  // namespace uext4::overwrite_test
