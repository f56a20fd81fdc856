// Direct I/O that the device has, and what a map's store and its writeback do to the same blocks meanwhile.
#include "inode/inode.h"
#include "tests/doubles/simulated_maps.h"
#include "tests/faults/faulty_mount.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <semaphore>
#include <thread>

namespace uext4::faults {
namespace {

// Holds up a direct request; a writer that comes to the same place meanwhile is refused once where that is wanted.
class HoldsUp final : public BlockDevice {
public:
    enum class What : bool { a_read, a_write };
    HoldsUp(std::shared_ptr<MemoryDevice> base, What what) : what_(what), base_(std::move(base)) {}
    std::uint64_t size() const override { return base_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override {
        if (what_ == What::a_read && offset == place && !waits.exchange(true)) {
            on_its_way.release();
            go_on.acquire();
        }
        return base_->read(offset, out);
    }
    Result<void> write(std::uint64_t offset, ConstBytes in) override {
        if (what_ == What::a_write && in[0] == std::byte{'D'} && !waits.exchange(true)) {
            place = offset;
            on_its_way.release();
            lands.acquire();
            if (never_lands) return fail(EIO, "not this");
            const Result<void> done = base_->write(offset, in);
            landed.release();
            go_on.acquire();
            return done;
        } else if (refuses_others && waits && !refused && offset <= place && place < offset + in.size()) {
            refused = true;
            return fail(EIO, "not now");
        } else if (never_lands && in[0] == std::byte{'D'}) {
            return fail(EIO, "not this, wherever it goes");
        }
        return base_->write(offset, in);
    }
    Result<void> flush() override { return base_->flush(); }
    bool read_only() const override { return false; }
    std::string name() const override { return base_->name(); }

    std::atomic<bool> refuses_others{false}, never_lands{false}, waits{false}, refused{false};
    std::atomic<std::uint64_t> place{~std::uint64_t{0}};
    std::binary_semaphore on_its_way{0}, lands{0}, landed{0}, go_on{0};

private:
    const What what_;
    std::shared_ptr<MemoryDevice> base_;
};

// A file with a map, open for direct I/O as well, and another one.
class MetOnTheWay : public testing::Test {
protected:
    void make(HoldsUp::What what, std::uint64_t cache = std::uint64_t{128} << 20, std::size_t length = 4096) {
        memory = fresh_image("-b 4096 -J size=4");
        device = std::make_shared<HoldsUp>(memory, what);
        VolumeOptions options;
        options.background = false;
        options.cache_bytes = cache;
        auto mounted = FileSystem::mount_device(device, options);
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
        direct = open("/e", O_DIRECT), file = open("/e"), other = open("/h");
        maps = std::make_unique<SimulatedMaps>(fs->maps());
        MapRequest request;
        request.inode = file->inode_ref();
        request.length = length;
        request.protection = PROT_READ | PROT_WRITE;
        request.may_write = true;
        auto made = maps->map(request);
        ASSERT_TRUE(made) << made.error().what;
        map = *made;
    }
    std::unique_ptr<OpenFile> open(const char* path, int flags = 0) {
        auto opened = fs->open_path(path, O_CREAT | O_RDWR | flags, 0644, root);
        EXPECT_TRUE(opened);
        return opened ? std::move(*opened) : nullptr;
    }
    // One block on the device.
    void fill() {
        ASSERT_TRUE(file->write(0, filled(4096, 'e')));
        ASSERT_TRUE(file->sync(false));
    }
    void store(std::uint64_t at) { EXPECT_TRUE(maps->store(*map, at, filled(1, 'm'), SimulatedMaps::Source::program)); }
    // All that there is for the other file: its size.
    std::uint64_t use_up() {
        std::uint64_t end = 0;
        while (const auto put = other->write(end, filled(4096, 'h'))) end += *put;
        EXPECT_TRUE(other->sync(false));
        return end;
    }
    void finish() {
        EXPECT_TRUE(maps->unmap(map));
        map.reset();
        EXPECT_TRUE(fs->sync());
        file.reset(), direct.reset(), other.reset();
        EXPECT_TRUE(fs->unmount());
        expect_sound(memory, "after the unmount");
    }

    std::shared_ptr<MemoryDevice> memory;
    std::shared_ptr<HoldsUp> device;
    std::unique_ptr<FileSystem> fs;
    std::unique_ptr<OpenFile> direct, file, other;
    std::unique_ptr<SimulatedMaps> maps;
    SimulatedMaps::MapRef map;
};

class LeftBehind : public MetOnTheWay, public testing::WithParamInterface<bool> {};

TEST_P(LeftBehind, WhatIsOnItsWayReachesNobodyElse) {
    const bool forgotten = GetParam();
    make(HoldsUp::What::a_write, forgotten ? 1 << 20 : 128 << 20);
    fill();
    device->refuses_others = true;
    std::thread writer([&] {
        const auto put = direct->write(0, filled(4096, 'D'));
        EXPECT_TRUE(put && *put == 4096);
    });
    device->on_its_way.acquire();
    store(7);
    EXPECT_TRUE(file->sync(false));
    EXPECT_TRUE(device->refused) << "and so it is somewhere else now";
    EXPECT_NE(place_of(file->inode()), device->place);
    // None of it is where the write goes.
    const std::uint64_t end = use_up();
    EXPECT_EQ(file->inode().pages().next_cached(0).has_value(), !forgotten);
    device->lands.release();
    device->go_on.release();
    writer.join();
    finish();
    auto again = FileSystem::mount_device(std::shared_ptr<BlockDevice>(memory->clone()), {});
    ASSERT_TRUE(again);
    auto whole = (*again)->open_path("/h", O_RDONLY, 0, root);
    std::vector<std::byte> bytes(end);
    ASSERT_TRUE(whole && (*whole)->read(0, bytes));
    EXPECT_EQ(std::ranges::count(bytes, std::byte{'h'}), static_cast<std::ptrdiff_t>(end));
    std::string written = read_all(memory, "/e");
    ASSERT_EQ(written.size(), 4096u);
    if (written[7] == 'm') written[7] = 'D';
    EXPECT_EQ(written, std::string(4096, 'D'));
}

INSTANTIATE_TEST_SUITE_P(OneFile, LeftBehind, testing::Bool(),
                         [](const auto& p) { return p.param ? "FolioIsGone" : "FolioIsThere"; });

TEST_F(MetOnTheWay, WhatIsReadFromABlockThatWasLeftIsNobodyElses) {
    make(HoldsUp::What::a_read);
    fill();
    device->refuses_others = true;
    device->place = place_of(file->inode());
    alignas(4096) static std::byte bytes[4096];
    std::thread reader([&] {
        const auto got = direct->read(0, bytes);
        EXPECT_TRUE(got && *got == 4096);
    });
    device->on_its_way.acquire();
    store(7);
    EXPECT_TRUE(file->sync(false));
    EXPECT_TRUE(device->refused) << "and so it is somewhere else now";
    EXPECT_NE(place_of(file->inode()), device->place);
    (void)use_up();
    device->go_on.release();
    reader.join();
    EXPECT_EQ(std::ranges::count(bytes, std::byte{'h'}), 0) << "what another file has";
    EXPECT_GE(std::ranges::count(bytes, std::byte{'e'}), 4095);
    finish();
}

// It is on the device, and its request has not ended: a folio that came before is written back over it, and is gone.
TEST_F(MetOnTheWay, AnOverwriteOutlivesAFolioThatCameMeanwhile) {
    make(HoldsUp::What::a_write, 1 << 20);
    fill();
    std::thread writer([&] {
        const auto put = direct->write(0, filled(4096, 'D'));
        EXPECT_TRUE(put && *put == 4096);
    });
    device->on_its_way.acquire();
    store(7);
    device->lands.release();
    device->landed.acquire();
    EXPECT_TRUE(file->sync(false));
    EXPECT_EQ(place_of(file->inode()), device->place);
    for (std::uint64_t end = 0; end < (8u << 20);) {
        const auto put = other->write(end, filled(1 << 20, 'h'));
        ASSERT_TRUE(put);
        end += *put;
    }
    EXPECT_FALSE(file->inode().pages().next_cached(0));
    device->go_on.release();
    writer.join();
    finish();
    std::string written = read_all(memory, "/e");
    ASSERT_EQ(written.size(), 4096u);
    if (written[7] == 'm') written[7] = 'D';
    EXPECT_TRUE(written == std::string(4096, 'D')) << written.substr(0, 16);
}

// The device takes none of a write to a hole, in whose blocks a map has stored meanwhile: the cache has it instead, the
// later one on top, and keeps it until it can be written.
TEST_F(MetOnTheWay, WhatTheDeviceRefusesIsKept) {
    constexpr std::uint64_t length = 4 * 4096;
    make(HoldsUp::What::a_write, std::uint64_t{128} << 20, length);
    ASSERT_TRUE(file->truncate(length));
    ASSERT_TRUE(file->sync(false));
    device->never_lands = true;
    std::thread writer([&] {
        const auto put = direct->write(0, filled(length, 'D'));
        EXPECT_TRUE(!put && put.error().code == EIO);
    });
    device->on_its_way.acquire();
    store(2 * 4096 + 7);
    device->lands.release();
    writer.join();
    store(3 * 4096 + 9);
    EXPECT_EQ(code_of(file->sync(false)), EIO);
    device->never_lands = false;
    const auto synced = file->sync(false);
    EXPECT_TRUE(synced) << synced.error().what;
    std::string expected(length, 'D');
    expected[3 * 4096 + 9] = 'm';
    EXPECT_TRUE(read_all(memory, "/e") == expected) << "is on the device";
    finish();
    EXPECT_TRUE(read_all(memory, "/e") == expected);
}

}  // namespace
}  // namespace uext4::faults
