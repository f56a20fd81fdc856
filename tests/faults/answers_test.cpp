// What the file system answers, keeps and says when its device fails in one place.
#include "format/journal.h"
#include "format/superblock.h"
#include "inode/inode.h"
#include "mmap/simulated_maps.h"
#include "tests/faults/faulty_mount.h"
#include "volume/journal_location.h"

#include <sys/mman.h>

#include <algorithm>
#include <semaphore>
#include <thread>

namespace uext4::faults {
namespace {

using Kind = DeviceRequest::Kind;
using Effect = DeviceFault::Effect;

std::vector<std::byte> contents(std::size_t size, int value) { return {size, static_cast<std::byte>(value)}; }

std::string read_all(FileSystem& fs, const std::string& path) {
    auto file = fs.open_path(path, O_RDONLY, 0, root);
    if (!file) return "error: " + file.error().what;
    std::vector<std::byte> bytes(1 << 17);
    auto n = (*file)->read(0, bytes);
    if (!n) return "error: " + n.error().what;
    return {reinterpret_cast<const char*>(bytes.data()), *n};
}
std::string read_all(const std::shared_ptr<MemoryDevice>& image, const std::string& path) {
    auto fs = FileSystem::mount_device(std::shared_ptr<BlockDevice>(image->clone()), {});
    if (!fs) return "error: " + fs.error().what;
    return read_all(**fs, path);
}

class Answers : public testing::Test {
protected:
    void SetUp() override { start("-b 4096", ""); }
    void start(const std::string& format, const std::string& options) {
        m = std::make_unique<FaultyMount>(fresh_image(format));
        auto mounted = m->mount(options);
        ASSERT_TRUE(mounted) << mounted.error().what;
        auto file = m->open("/f");
        ASSERT_TRUE(file->write(0, contents(16384, 'a')));
        ASSERT_TRUE(m->fs->sync());
        auto runs = locate_journal(m->fs->volume().inodes(), m->fs->volume().geometry());
        ASSERT_TRUE(runs);
        log_runs = *runs;
    }
    bool in_log(std::uint64_t offset) const {
        for (const BlockRun& run : log_runs)
            if (offset / 4096 >= run.first.value && offset / 4096 < run.first.value + run.count) return true;
        return false;
    }
    // Writes of file contents fail: nothing else goes outside the log between two checkpoints.
    DeviceFault data_fault(std::uint64_t times) {
        DeviceFault fault;
        fault.kinds = {Kind::Write};
        fault.predicate = [this](const DeviceRequest& r) { return !in_log(r.offset); };
        fault.times = times;
        return fault;
    }
    std::unique_ptr<FaultyMount> m;
    std::vector<BlockRun> log_runs;
};

TEST_F(Answers, AFailedWriteOfNewDataIsTriedInOtherBlocks) {
    auto file = m->open("/f");
    ASSERT_TRUE(file->write(16384, contents(8192, 'b')));
    const auto fault = m->faulty->add(data_fault(1));
    auto synced = file->sync(false);
    EXPECT_TRUE(synced) << synced.error().what;
    EXPECT_EQ(m->faulty->hits(fault), 1u);
    EXPECT_EQ(read_all(m->durable(), "/f"), std::string(16384, 'a') + std::string(8192, 'b'));
    file.reset();
    EXPECT_TRUE(m->fs->unmount());
    expect_sound(m->memory, "after the unmount");
}

// What a truncate that is refused would have cut off is there as before: what was synced, and what was not yet.
TEST_F(Answers, ATruncateThatFailsLeavesTheContents) {
    for (const char* format : {"-b 4096", "-b 1024", "-b 1024 -O bigalloc -C 4096"}) {
        for (const char* options : {"data=ordered", "data=journal"}) {
            SCOPED_TRACE(fmt::format("{}, {}", format, options));
            start(format, options);
            auto file = m->open("/f");
            ASSERT_TRUE(file->write(8192, contents(8192, 'b')));  // not synced
            const std::string whole = std::string(8192, 'a') + std::string(8192, 'b');
            for (const std::uint64_t size : {8192u + 2500u, 4096u + 700u, 1u}) {
                const auto fault = m->faulty->add(data_fault(DeviceFault::for_good));
                const bool done = file->truncate(size).has_value();
                const bool hit = m->faulty->hits(fault) > 0;
                m->faulty->clear();
                EXPECT_EQ(done, !hit);
                if (done) break;  // nothing was to be written
                EXPECT_EQ(read_all(*m->fs, "/f"), whole) << size;
            }
            const std::string seen = read_all(*m->fs, "/f");
            EXPECT_TRUE(file->sync(false));
            EXPECT_EQ(read_all(*m->fs, "/f"), seen);
            EXPECT_EQ(read_all(m->durable(), "/f"), seen);
            file.reset();
            EXPECT_TRUE(m->fs->unmount());
            expect_sound(m->memory, "after the unmount");
        }
    }
}

TEST_F(Answers, AFailedWriteOfATailIsTriedInAnotherBlock) {
    auto file = m->open("/f");
    const auto fault = m->faulty->add(data_fault(1));
    EXPECT_TRUE(file->truncate(5000));
    EXPECT_EQ(m->faulty->hits(fault), 1u);
    EXPECT_TRUE(file->sync(false));
    EXPECT_EQ(read_all(m->durable(), "/f"), std::string(5000, 'a'));
    file.reset();
    EXPECT_TRUE(m->fs->unmount());
    expect_sound(m->memory, "after the unmount");
}

// Reads of group 0's block bitmap.
DeviceFault bitmap_fault(const format::Geometry&, std::uint64_t block, std::uint64_t times) {
    DeviceFault fault;
    fault.kinds = {Kind::Read};
    fault.predicate = [at = block * 4096](const DeviceRequest& r) { return r.offset <= at && at < r.offset + 4096; };
    fault.times = times;
    return fault;
}

TEST(Bitmaps, WhatFoundNoBlocksStaysDirtyAndIsWrittenLater) {
    auto image = fresh_image("-b 4096");
    format::SuperBlock super;
    format::GroupDesc group;
    ASSERT_TRUE(image->read(1024, std::as_writable_bytes(std::span(&super, 1))));
    ASSERT_TRUE(image->read(4096, std::as_writable_bytes(std::span(&group, 1))));
    FaultyMount m(image);
    ASSERT_TRUE(m.mount());
    const auto fault = m.faulty->add(bitmap_fault(m.fs->volume().geometry(), group.block_bitmap_lo, 1));
    auto file = m.open("/f");
    ASSERT_TRUE(file->write(0, contents(8192, 'a')));
    EXPECT_EQ(code_of(file->sync(false)), EIO);
    EXPECT_EQ(m.faulty->hits(fault), 1u);
    ASSERT_TRUE(file->write(100, contents(8192, 'b'))) << "nothing is left under writeback";
    auto synced = file->sync(false);
    ASSERT_TRUE(synced) << synced.error().what;
    EXPECT_EQ(read_all(m.durable(), "/f"), std::string(100, 'a') + std::string(8192, 'b'));
    file.reset();
    EXPECT_TRUE(m.fs->unmount());
    EXPECT_EQ(m.fs->volume().fs().allocator.granted_clusters(), 0u);
    expect_sound(m.memory, "after the unmount");
}

// The only group has a damaged bitmap: nothing can be stored, and everybody is told.
TEST(Bitmaps, ADamagedOneIsToldOfAndKeepsNobodyWaiting) {
    for (const std::string policy : {"continue", "remount-ro"}) {
        auto image = fresh_image("-b 4096");
        format::GroupDesc group;
        ASSERT_TRUE(image->read(4096, std::as_writable_bytes(std::span(&group, 1))));
        const std::uint64_t at = group.block_bitmap_lo * std::uint64_t{4096} + 600;
        std::byte flipped{};
        ASSERT_TRUE(image->read(at, Bytes(&flipped, 1)));
        flipped ^= std::byte{4};
        ASSERT_TRUE(image->write(at, ConstBytes(&flipped, 1)));
        FaultyMount m(image);
        ASSERT_TRUE(m.mount("errors=" + policy));
        auto file = m.open("/f");
        ASSERT_TRUE(file->write(0, contents(8192, 'a')));
        EXPECT_EQ(code_of(file->sync(false)), EUCLEAN);
        EXPECT_EQ(m.said("group 0: block bitmap: bad checksum"), 1u) << m.log;
        const auto again = file->write(100, contents(8192, 'b'));
        if (policy == "continue") {
            EXPECT_FALSE(file->sync(false)) << "it is still not stored";
            EXPECT_EQ(m.fs->volume().counts().free_blocks, 0u) << "nothing of the group is promised any more";
            const auto more = m.open("/g")->write(0, contents(100000, 'c'));
            EXPECT_EQ(more ? 0 : more.error().code, ENOSPC);
        } else {
            EXPECT_EQ(again ? 0 : again.error().code, EROFS);
        }
        file.reset();
        EXPECT_FALSE(m.fs->unmount()) << "what could not be written is told";
        format::SuperBlock super;
        ASSERT_TRUE(image->read(1024, std::as_writable_bytes(std::span(&super, 1))));
        EXPECT_TRUE(super.state & format::super_state::errors);
    }
}

// Where bitmaps have no checksums, the counts in the descriptor tell: nothing is taken from a bitmap of zeros, which
// would be what others have.
TEST(Bitmaps, WithoutChecksumsAreHeldAgainstTheCounts) {
    for (const bool inodes : {false, true}) {
        for (const std::byte value : {std::byte{0}, std::byte{0xff}}) {
            auto image = fresh_image("-b 4096 -O ^metadata_csum,^uninit_bg");
            {
                FaultyMount first(image);
                ASSERT_TRUE(first.mount());
                ASSERT_TRUE(first.open("/old")->write(0, contents(8192, 'o')));
                ASSERT_TRUE(first.fs->unmount());
            }
            format::GroupDesc group;
            ASSERT_TRUE(image->read(4096, std::as_writable_bytes(std::span(&group, 1))));
            const std::uint64_t block = inodes ? group.inode_bitmap_lo : group.block_bitmap_lo;
            ASSERT_TRUE(image->write(block * 4096, std::vector<std::byte>(512, value)));
            FaultyMount m(image);
            ASSERT_TRUE(m.mount("errors=remount-ro"));
            auto made = m.fs->open_path("/new", O_CREAT | O_RDWR, 0644, root);
            if (made) {
                EXPECT_TRUE((*made)->write(0, contents(8192, 'n')));
                EXPECT_EQ(code_of((*made)->sync(false)), EUCLEAN);
                made->reset();
            }
            EXPECT_EQ(made.has_value(), !inodes);
            EXPECT_EQ(m.said(inodes ? "group 0: inode bitmap" : "group 0: block bitmap"), 1u) << m.log;
            EXPECT_TRUE(m.fs->volume().read_only());
            EXPECT_EQ(read_all(*m.fs, "/old"), std::string(8192, 'o'));
            (void)m.fs->unmount();
        }
    }
}

// A device on which the contents of one file, whose bytes begin with 'E', cannot be written anywhere.
class OneFileFails final : public BlockDevice {
public:
    explicit OneFileFails(std::shared_ptr<MemoryDevice> base) : base_(std::move(base)) {}
    std::uint64_t size() const override { return base_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override { return base_->read(offset, out); }
    Result<void> write(std::uint64_t offset, ConstBytes in) override {
        if (fails && in.size() >= 4096 && in[0] == std::byte{'E'}) {
            ++refused;
            return fail(EIO, "not this");
        }
        return base_->write(offset, in);
    }
    Result<void> flush() override { return base_->flush(); }
    bool read_only() const override { return false; }
    std::string name() const override { return base_->name(); }

    std::atomic<bool> fails{true};
    std::atomic<int> refused{0};

private:
    std::shared_ptr<MemoryDevice> base_;
};

// Others write on, in a cache that is full of what cannot be written, and their writes do not cost it new blocks.
TEST(OneFile, ThatCannotBeWrittenLeavesTheOthersTheirSpace) {
    const auto memory = fresh_image("-b 4096 -J size=4");
    const auto device = std::make_shared<OneFileFails>(memory);
    VolumeOptions options;
    options.cache_bytes = 1u << 20;
    auto fs = FileSystem::mount_device(device, options);
    ASSERT_TRUE(fs) << fs.error().what;
    auto ill = (*fs)->open_path("/e", O_CREAT | O_RDWR, 0644, root);
    auto sound = (*fs)->open_path("/g", O_CREAT | O_RDWR, 0644, root);
    ASSERT_TRUE(ill && sound);
    const std::vector<std::byte> bytes = contents(std::size_t{400} << 10, 'E'), others = contents(20000, 'g');
    std::size_t written = 0;
    while (written < bytes.size()) {
        const auto n = (*ill)->write(written, ConstBytes(bytes).subspan(written));
        if (!n) break;
        written += *n;
    }
    EXPECT_GT(written, 0u) << "what was taken is a count, and no error";
    const std::uint64_t before = (*fs)->statistics()->f_bfree;
    const int refused = device->refused;
    for (int i = 0; i < 200; ++i) EXPECT_TRUE((*sound)->write(static_cast<std::uint64_t>(i % 50) * 20000, others));
    EXPECT_LE(device->refused, refused + 2) << "the flusher tries it again when it is old enough";
    EXPECT_TRUE((*sound)->sync(false));
    EXPECT_FALSE((*ill)->sync(false));
    EXPECT_GE((*fs)->statistics()->f_bfree + 50 * 20000 / 4096 + 1, before);
    device->fails = false;
    EXPECT_TRUE((*ill)->sync(false));
    EXPECT_EQ(read_all(**fs, "/e"), std::string(std::min(written, std::size_t{1} << 17), 'E'));
    ill->reset(), sound->reset();
    EXPECT_TRUE((*fs)->unmount());
    expect_sound(memory, "after the unmount");
}

// A device with a stretch on which nothing can be written.
class BadStretch final : public BlockDevice {
public:
    explicit BadStretch(std::shared_ptr<MemoryDevice> base) : base_(std::move(base)) {}
    std::uint64_t size() const override { return base_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override { return base_->read(offset, out); }
    Result<void> write(std::uint64_t offset, ConstBytes in) override {
        if (offset < end && offset + in.size() > first) return fail(EIO, "a bad stretch");
        return base_->write(offset, in);
    }
    Result<void> flush() override { return base_->flush(); }
    bool read_only() const override { return false; }
    std::string name() const override { return base_->name(); }

    std::atomic<std::uint64_t> first{0}, end{0};

private:
    std::shared_ptr<MemoryDevice> base_;
};

// Where its first byte lies on the device.
std::uint64_t place_of(Inode& inode) {
    MutexLock guard(inode.map_lock);
    const auto placed = inode.places().lookup(0, 1);
    EXPECT_TRUE(placed && placed->block);
    return placed ? placed->block.value * inode.fs().block_size() : 0;
}

TEST(OneFile, LeavesABadStretchBehind) {
    const auto memory = fresh_image("-b 1024 -J size=4");
    const auto device = std::make_shared<BadStretch>(memory);
    auto fs = FileSystem::mount_device(device, {});
    ASSERT_TRUE(fs) << fs.error().what;
    const std::uint64_t free = (*fs)->statistics()->f_bfree;
    auto file = (*fs)->open_path("/f", O_CREAT | O_RDWR, 0644, root);
    ASSERT_TRUE(file);
    const std::vector<std::byte> bytes = contents(std::size_t{100} << 10, 'f');
    ASSERT_TRUE((*file)->write(0, bytes));
    ASSERT_TRUE((*file)->sync(false));
    const std::uint64_t at = place_of((*file)->inode());
    // Behind it: several times what is written at once.
    device->first = at + bytes.size(), device->end = at + bytes.size() + (1000u << 10);
    ASSERT_TRUE((*file)->write(bytes.size(), bytes));
    int attempts = 1;
    for (; attempts < 20 && !(*file)->sync(false); ++attempts) {
    }
    EXPECT_LT(attempts, 10);
    EXPECT_EQ(read_all(**fs, "/f"), std::string(std::size_t{1} << 17, 'f'));
    // They are given up where nothing else is left.
    auto other = (*fs)->open_path("/other", O_CREAT | O_RDWR, 0644, root);
    ASSERT_TRUE(other);
    EXPECT_GE((*fs)->statistics()->f_bfree + 220, free);
    device->end = 0;
    const auto rest = (*fs)->statistics();
    const Result<void> all = (*other)->fallocate(0, 0, (rest->f_bavail - 16) * 1024);
    EXPECT_TRUE(all) << all.error().what;
    file->reset(), other->reset();
    EXPECT_TRUE((*fs)->unmount());
    expect_sound(memory, "after the unmount");
}

// A direct overwrite is on its way to a block that the device refuses to another writer meanwhile.
class OneWriteWaits final : public BlockDevice {
public:
    explicit OneWriteWaits(std::shared_ptr<MemoryDevice> base) : base_(std::move(base)) {}
    std::uint64_t size() const override { return base_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override { return base_->read(offset, out); }
    Result<void> write(std::uint64_t offset, ConstBytes in) override {
        if (in[0] == std::byte{'D'} && !waits.exchange(true)) {
            place = offset;
            on_its_way.release();
            lands.acquire();
            const Result<void> done = base_->write(offset, in);
            landed.release();
            go_on.acquire();
            return done;
        } else if (refuses && waits && !refused && offset <= place && place < offset + in.size()) {
            refused = true;
            return fail(EIO, "not now");
        }
        return base_->write(offset, in);
    }
    Result<void> flush() override { return base_->flush(); }
    bool read_only() const override { return false; }
    std::string name() const override { return base_->name(); }

    std::atomic<bool> refuses{true}, waits{false}, refused{false};
    std::atomic<std::uint64_t> place{0};
    std::binary_semaphore on_its_way{0}, lands{0}, landed{0}, go_on{0};

private:
    std::shared_ptr<MemoryDevice> base_;
};

TEST(OneFile, WhatIsOnItsWayToABlockThatWasLeftReachesNobodyElse) {
    for (const bool forgotten : {false, true}) {
        SCOPED_TRACE(forgotten ? "its folio is gone" : "its folio is there");
        const auto memory = fresh_image("-b 4096 -J size=4");
        const auto device = std::make_shared<OneWriteWaits>(memory);
        VolumeOptions options;
        options.background = false;
        if (forgotten) options.cache_bytes = 1 << 20;
        auto fs = FileSystem::mount_device(device, options);
        ASSERT_TRUE(fs) << fs.error().what;
        auto direct = (*fs)->open_path("/e", O_CREAT | O_RDWR | O_DIRECT, 0644, root);
        auto file = (*fs)->open_path("/e", O_RDWR, 0644, root),
             other = (*fs)->open_path("/h", O_CREAT | O_RDWR, 0644, root);
        ASSERT_TRUE(direct && file && other);
        ASSERT_TRUE((*file)->write(0, contents(4096, 'e')));
        ASSERT_TRUE((*file)->sync(false));
        SimulatedMaps maps((*fs)->maps());
        MapRequest request;
        request.inode = (*file)->inode_ref();
        request.length = 4096;
        request.protection = PROT_READ | PROT_WRITE;
        request.may_store = true;
        auto map = maps.map(request);
        ASSERT_TRUE(map) << map.error().what;
        std::thread writer([&] {
            const auto put = (*direct)->write(0, contents(4096, 'D'));
            EXPECT_TRUE(put && *put == 4096);
        });
        device->on_its_way.acquire();
        EXPECT_TRUE(maps.store(**map, 7, contents(1, 'm'), SimulatedMaps::Source::program));
        EXPECT_TRUE((*file)->sync(false));
        EXPECT_TRUE(device->refused) << "and so it is somewhere else now";
        EXPECT_NE(place_of((*file)->inode()), device->place);
        // All that there is; none of it is where the write goes.
        std::uint64_t end = 0;
        while (const auto put = (*other)->write(end, contents(4096, 'h'))) end += *put;
        EXPECT_TRUE((*other)->sync(false));
        const auto& pages = (*file)->inode().pages();
        EXPECT_EQ(pages.next_cached(0).has_value(), !forgotten);
        device->lands.release();
        device->go_on.release();
        writer.join();
        EXPECT_TRUE(maps.unmap(*map));
        map->reset();
        EXPECT_TRUE((*fs)->sync());
        file->reset(), direct->reset(), other->reset();
        EXPECT_TRUE((*fs)->unmount());
        EXPECT_EQ(read_all(memory, "/h"), std::string(1 << 17, 'h'));
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
        expect_sound(memory, "after the unmount");
    }
}

// It is on the device, and its request has not ended: a folio that came before is written back over it, and is gone.
TEST(OneFile, AnOverwriteOutlivesAFolioThatCameMeanwhile) {
    const auto memory = fresh_image("-b 4096 -J size=4");
    const auto device = std::make_shared<OneWriteWaits>(memory);
    device->refuses = false;
    VolumeOptions options;
    options.background = false;
    options.cache_bytes = 1 << 20;
    auto fs = FileSystem::mount_device(device, options);
    ASSERT_TRUE(fs) << fs.error().what;
    auto direct = (*fs)->open_path("/e", O_CREAT | O_RDWR | O_DIRECT, 0644, root);
    auto file = (*fs)->open_path("/e", O_RDWR, 0644, root),
         other = (*fs)->open_path("/h", O_CREAT | O_RDWR, 0644, root);
    ASSERT_TRUE(direct && file && other);
    ASSERT_TRUE((*file)->write(0, contents(4096, 'e')));
    ASSERT_TRUE((*file)->sync(false));
    SimulatedMaps maps((*fs)->maps());
    MapRequest request;
    request.inode = (*file)->inode_ref();
    request.length = 4096;
    request.protection = PROT_READ | PROT_WRITE;
    request.may_store = true;
    auto map = maps.map(request);
    ASSERT_TRUE(map) << map.error().what;
    std::thread writer([&] {
        const auto put = (*direct)->write(0, contents(4096, 'D'));
        EXPECT_TRUE(put && *put == 4096);
    });
    device->on_its_way.acquire();
    EXPECT_TRUE(maps.store(**map, 7, contents(1, 'm'), SimulatedMaps::Source::program));
    device->lands.release();
    device->landed.acquire();
    EXPECT_TRUE((*file)->sync(false));
    EXPECT_EQ(place_of((*file)->inode()), device->place);
    for (std::uint64_t end = 0; end < (8u << 20);) {
        const auto put = (*other)->write(end, contents(1 << 20, 'h'));
        ASSERT_TRUE(put);
        end += *put;
    }
    EXPECT_FALSE((*file)->inode().pages().next_cached(0));
    device->go_on.release();
    writer.join();
    EXPECT_TRUE(maps.unmap(*map));
    map->reset();
    EXPECT_TRUE((*fs)->sync());
    file->reset(), direct->reset(), other->reset();
    EXPECT_TRUE((*fs)->unmount());
    std::string written = read_all(memory, "/e");
    ASSERT_EQ(written.size(), 4096u);
    if (written[7] == 'm') written[7] = 'D';
    EXPECT_TRUE(written == std::string(4096, 'D')) << written.substr(0, 16);
    expect_sound(memory, "after the unmount");
}

// Whatever way the data comes, and whatever its place was.
TEST(OneFile, LeavesABadPlaceBehind) {
    constexpr std::size_t length = 64u << 10;
    for (const char* format : {"-b 4096", "-b 1024", "-b 4096 -O ^extents,^64bit"}) {
        for (const bool fallocated : {false, true}) {
            for (const int direct : {0, O_DIRECT}) {
                if (fallocated && std::string(format).contains("^extents")) continue;
                SCOPED_TRACE(fmt::format("{}, {}, {}", format, fallocated, direct));
                const auto memory = fresh_image(format);
                const auto device = std::make_shared<BadStretch>(memory);
                auto fs = FileSystem::mount_device(device, {});
                ASSERT_TRUE(fs) << fs.error().what;
                auto file = (*fs)->open_path("/f", O_CREAT | O_RDWR | direct, 0644, root);
                ASSERT_TRUE(file);
                if (fallocated) ASSERT_TRUE((*file)->fallocate(0, 0, length));
                else ASSERT_TRUE((*file)->write(0, contents(length, 'a')));
                ASSERT_TRUE((*file)->sync(false));
                device->first = place_of((*file)->inode()), device->end = device->first + length;
                auto put = (*file)->write(0, contents(length, 'b'));
                EXPECT_TRUE(put && *put == length);
                auto synced = (*file)->sync(true);
                EXPECT_TRUE(synced) << synced.error().what;
                // And once more, where it is now.
                put = (*file)->write(0, contents(length, 'c'));
                EXPECT_TRUE(put && *put == length);
                EXPECT_TRUE((*file)->sync(true));
                EXPECT_EQ(read_all(memory, "/f"), std::string(length, 'c')) << "is on the device";
                file->reset();
                EXPECT_TRUE((*fs)->unmount());
                expect_sound(memory, "after the unmount");
            }
        }
    }
}

TEST_F(Answers, AFailedOverwriteIsTriedInOtherBlocks) {
    auto file = m->open("/f");
    ASSERT_TRUE(file->write(4096, contents(8192, 'b')));
    const auto fault = m->faulty->add(data_fault(1));
    auto synced = file->sync(true);
    EXPECT_TRUE(synced) << synced.error().what;
    EXPECT_EQ(m->faulty->hits(fault), 1u);
    EXPECT_EQ(read_all(m->durable(), "/f"), std::string(4096, 'a') + std::string(8192, 'b') + std::string(4096, 'a'));
    file.reset();
    EXPECT_TRUE(m->fs->unmount());
    expect_sound(m->memory, "after the unmount");
}

TEST_F(Answers, EveryFsyncReportsDataThatCannotBeWritten) {
    auto file = m->open("/f"), other = m->open("/f", O_RDWR), innocent = m->open("/g");
    ASSERT_TRUE(file->write(0, contents(4096, 'b')));
    ASSERT_TRUE(file->write(16384, contents(4096, 'c')));
    const auto fault = m->faulty->add(data_fault(DeviceFault::for_good));
    for (int i = 0; i < 3; ++i) {
        EXPECT_EQ(code_of(file->sync(false)), EIO);
        EXPECT_EQ(code_of(other->sync(true)), EIO);
    }
    // The data is still there for readers, and the file system goes on for others.
    EXPECT_EQ(read_all(*m->fs, "/f"), std::string(4096, 'b') + std::string(12288, 'a') + std::string(4096, 'c'));
    EXPECT_FALSE(m->fs->read_only());
    EXPECT_EQ(code_of(innocent->sync(false)), 0);
    EXPECT_EQ(read_all(m->durable(), "/f"), std::string(16384, 'a'));
    // The device is well again.
    m->faulty->remove(fault);
    while (code_of(file->sync(false)) != 0)
        if (HasFailure()) return;
    EXPECT_EQ(read_all(m->durable(), "/f"), std::string(4096, 'b') + std::string(12288, 'a') + std::string(4096, 'c'));
    file.reset(), other.reset(), innocent.reset();
    EXPECT_TRUE(m->fs->unmount());
    expect_sound(m->memory, "after the unmount");
}

TEST_F(Answers, TheUnmountEndsAndNamesTheFile) {
    std::vector<std::uint64_t> numbers;
    for (const char* path : {"/f", "/g", "/h"}) {
        auto file = m->open(path);
        numbers.push_back(file->inode().number().value);
        ASSERT_TRUE(file->write(0, contents(4096, 'b')));
    }
    m->faulty->add(data_fault(DeviceFault::for_good));
    ASSERT_FALSE(m->fs->unmount());
    for (const std::uint64_t number : numbers)
        EXPECT_GE(m->said(fmt::format("writeback: inode {}: ", number)), 1u) << m->log;
    m->fs.reset();
    m->faulty->clear();
    EXPECT_EQ(read_all(m->memory, "/f"), std::string(16384, 'a'));
}

TEST_F(Answers, ALogThatCannotBeWrittenMakesItReadOnlyAndIsRemembered) {
    DeviceFault fault;
    fault.kinds = {Kind::Write};
    fault.predicate = [this](const DeviceRequest& r) {
        return in_log(r.offset) && r.offset / 4096 != log_runs.front().first.value;
    };
    fault.times = 1;
    m->faulty->add(fault);
    {
        auto file = m->open("/f"), other = m->open("/g", O_CREAT | O_RDWR);
        ASSERT_TRUE(file->write(16384, contents(4096, 'b')));
        ASSERT_TRUE(other->write(0, contents(4096, 'b')));
        EXPECT_EQ(code_of(file->sync(false)), EIO);
        EXPECT_NE(code_of(file->sync(false)), 0);
        EXPECT_NE(code_of(other->sync(false)), 0);
        for (int i = 0; i < 2; ++i) EXPECT_FALSE(m->fs->sync());
        EXPECT_TRUE(m->fs->read_only());
        auto refused = file->write(0, contents(10, 'x'));
        ASSERT_FALSE(refused);
        EXPECT_EQ(refused.error().code, EROFS);
        EXPECT_EQ(m->said("aborted"), 1u) << m->log;
    }
    EXPECT_FALSE(m->fs->unmount());
    m->fs.reset();
    expect_sound(m->memory, "what the abort left");
    EXPECT_EQ(read_all(m->memory, "/f"), std::string(16384, 'a'));

    // The next mount takes over what the log says, once.
    ASSERT_TRUE(m->mount());
    EXPECT_EQ(m->said("aborted by an earlier mount"), 1u) << m->log;
    EXPECT_FALSE(m->fs->read_only());
    {
        ASSERT_TRUE(m->open("/h")->sync(false));
    }
    EXPECT_TRUE(m->fs->unmount());
    format::SuperBlock super;
    ASSERT_TRUE(m->memory->read(format::super_offset, std::as_writable_bytes(std::span(&super, 1))));
    EXPECT_TRUE(super.state & format::super_state::errors);
    m->fs.reset();
    m->log.clear();
    ASSERT_TRUE(m->mount());
    EXPECT_EQ(m->said("aborted"), 0u) << m->log;
    EXPECT_TRUE(m->fs->unmount());
}

// A device that refuses the word of the abort as well, and is well again before the unmount.
TEST_F(Answers, AnAbortIsRememberedByADeviceThatIsWellAgain) {
    DeviceFault fault;
    fault.kinds = {Kind::Write, Kind::Fua};
    fault.predicate = [this](const DeviceRequest& r) { return in_log(r.offset); };
    const auto armed = m->faulty->add(fault);
    {
        auto file = m->open("/f");
        ASSERT_TRUE(file->write(16384, contents(4096, 'b')));
        EXPECT_EQ(code_of(file->sync(false)), EIO);
    }
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (m->faulty->hits(armed) < 2 && std::chrono::steady_clock::now() < limit)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ASSERT_GE(m->faulty->hits(armed), 2u) << "the word of the abort is tried at once";
    m->faulty->clear();
    EXPECT_FALSE(m->fs->unmount());
    m->fs.reset();
    ASSERT_TRUE(m->mount());
    EXPECT_EQ(m->said("aborted by an earlier mount"), 1u) << m->log;
    EXPECT_TRUE(m->fs->unmount());
    format::SuperBlock super;
    ASSERT_TRUE(m->memory->read(format::super_offset, std::as_writable_bytes(std::span(&super, 1))));
    EXPECT_TRUE(super.state & format::super_state::errors);
}

// What a device forgot after a failed flush is not known; nothing may be acknowledged any more.
TEST_F(Answers, AfterAFailedFlushNothingIsAcknowledged) {
    for (const bool with_commit : {false, true}) {
        start("-b 4096", "");
        auto file = m->open("/f");
        ASSERT_TRUE(file->write(with_commit ? 16384 : 0, contents(4096, 'b')));
        m->faulty->fail_flushes(EIO, 1);
        EXPECT_EQ(code_of(file->sync(true)), EIO);
        EXPECT_NE(code_of(file->sync(true)), 0);
        EXPECT_NE(code_of(file->sync(false)), 0);
        EXPECT_TRUE(m->fs->read_only());
        file.reset();
        EXPECT_FALSE(m->fs->unmount());
    }
}

// Damage that is met while running: a checksum of an inode.
TEST_F(Answers, ErrorsContinueAndRemountReadOnly) {
    for (const bool remount : {false, true}) {
        start("-b 4096", remount ? "errors=remount-ro" : "errors=continue");
        std::uint64_t number = 0;
        {
            auto file = m->open("/damaged");
            number = file->inode().number().value;
        }
        ASSERT_TRUE(m->fs->unmount());
        m->fs.reset();
        const std::string path = fmt::format("/dev/shm/uext4-faults-{}", ::getpid());
        ASSERT_TRUE(m->memory->save(path));
        ASSERT_EQ(
            std::system(fmt::format("debugfs -w -R 'set_inode_field <{}> checksum 1' {} >/dev/null 2>&1", number, path)
                            .c_str()),
            0);
        auto damaged = MemoryDevice::load(path);
        ::unlink(path.c_str());
        ASSERT_TRUE(damaged);
        m = std::make_unique<FaultyMount>(std::shared_ptr<MemoryDevice>(std::move(*damaged)));
        ASSERT_TRUE(m->mount(remount ? "errors=remount-ro" : "errors=continue"));
        for (int i = 0; i < 2; ++i) EXPECT_FALSE(m->fs->open_path("/damaged", O_RDONLY, 0, root));
        EXPECT_EQ(m->said("damage: "), 1u) << m->log;
        EXPECT_EQ(m->fs->read_only(), remount);
        auto more = m->fs->open_path("/more", O_CREAT | O_RDWR, 0644, root);
        EXPECT_EQ(more.has_value(), !remount);
        if (more) more->reset();
        (void)m->fs->unmount();
    }
}

}  // namespace
}  // namespace uext4::faults
