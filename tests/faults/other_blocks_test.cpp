// What writeback does where a block cannot be written, or none be found: other blocks, and nobody else suffers.
#include "format/superblock.h"
#include "inode/inode.h"
#include "tests/faults/faulty_mount.h"

#include <linux/falloc.h>

#include <algorithm>
#include <atomic>

namespace uext4::faults {
namespace {

using Kind = DeviceRequest::Kind;

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
    ASSERT_TRUE(file->write(0, filled(8192, 'a')));
    EXPECT_EQ(code_of(file->sync(false)), EIO);
    EXPECT_EQ(m.faulty->hits(fault), 1u);
    ASSERT_TRUE(file->write(100, filled(8192, 'b'))) << "nothing is left under writeback";
    auto synced = file->sync(false);
    ASSERT_TRUE(synced) << synced.error().what;
    EXPECT_EQ(read_all(m.durable(), "/f"), std::string(100, 'a') + std::string(8192, 'b'));
    file.reset();
    EXPECT_TRUE(m.fs->unmount());
    EXPECT_EQ(m.fs->volume().fs().allocator.allocated_clusters(), 0u);
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
        ASSERT_TRUE(file->write(0, filled(8192, 'a')));
        EXPECT_EQ(code_of(file->sync(false)), EUCLEAN);
        EXPECT_EQ(m.said("group 0: block bitmap: bad checksum"), 1u) << m.log;
        const auto again = file->write(100, filled(8192, 'b'));
        if (policy == "continue") {
            EXPECT_FALSE(file->sync(false)) << "it is still not stored";
            EXPECT_EQ(m.fs->volume().counts().free_blocks, 0u) << "nothing of the group is promised any more";
            const auto more = m.open("/g")->write(0, filled(100000, 'c'));
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
                ASSERT_TRUE(first.open("/old")->write(0, filled(8192, 'o')));
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
                EXPECT_TRUE((*made)->write(0, filled(8192, 'n')));
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
    const std::vector<std::byte> bytes = filled(std::size_t{400} << 10, 'E'), others = filled(20000, 'g');
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

// A file that is sound, but for the bitmap of its blocks: whatever would free some of them is refused before it changes
// anything.
TEST(Bitmaps, WhatCannotBeFreedIsNotCutOff) {
    const std::string contents = [] {
        std::string out;
        for (int i = 0; i < 64 * 1024; ++i) out += static_cast<char>('a' + i / 1024 % 26);
        return out;
    }();
    for (const char* format : {"-b 1024", "-b 1024 -O ^extents,^64bit"}) {
        SCOPED_TRACE(format);
        auto image = fresh_image(format);
        {
            FaultyMount m(image);
            ASSERT_TRUE(m.mount());
            auto file = m.open("/f");
            ASSERT_TRUE(file->write(0, std::as_bytes(std::span(contents))));
            file.reset();
            ASSERT_TRUE(m.fs->unmount());
        }
        format::GroupDesc group;
        ASSERT_TRUE(image->read(2048, std::as_writable_bytes(std::span(&group, 1))));
        const std::uint64_t at = group.block_bitmap_lo * std::uint64_t{1024} + 1000;
        const auto flip = [&] {
            std::byte bit{};
            EXPECT_TRUE(image->read(at, Bytes(&bit, 1)));
            bit ^= std::byte{4};
            EXPECT_TRUE(image->write(at, ConstBytes(&bit, 1)));
        };
        flip();
        FaultyMount m(image);
        ASSERT_TRUE(m.mount("errors=continue"));
        auto file = m.open("/f");
        const auto before = m.fs->attributes(file->inode());
        EXPECT_EQ(code_of(file->truncate(9000)), EUCLEAN);
        EXPECT_EQ(code_of(file->truncate(0)), EUCLEAN);
        EXPECT_EQ(code_of(file->fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3000, 20000)), EUCLEAN);
        if (file->inode().uses_extents()) {
            EXPECT_EQ(code_of(file->fallocate(FALLOC_FL_COLLAPSE_RANGE, 4096, 8192)), EUCLEAN);
        }
        const auto after = m.fs->attributes(file->inode());
        ASSERT_TRUE(before && after);
        EXPECT_EQ(after->st_size, before->st_size);
        EXPECT_EQ(after->st_blocks, before->st_blocks);
        EXPECT_EQ(read_all(*m.fs, "/f"), contents);
        file.reset();
        (void)m.fs->unmount();  // the error is told
        flip();
        expect_sound(image, "with the bit as it was");
        EXPECT_EQ(read_all(image, "/f"), contents);
    }
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
TEST(OneFile, LeavesABadStretchBehind) {
    const auto memory = fresh_image("-b 1024 -J size=4");
    const auto device = std::make_shared<BadStretch>(memory);
    auto fs = FileSystem::mount_device(device, {});
    ASSERT_TRUE(fs) << fs.error().what;
    const std::uint64_t free = (*fs)->statistics()->f_bfree;
    auto file = (*fs)->open_path("/f", O_CREAT | O_RDWR, 0644, root);
    ASSERT_TRUE(file);
    const std::vector<std::byte> bytes = filled(std::size_t{100} << 10, 'f');
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

// Takes no data that begins with 'X', wherever it is to go.
class RefusesSome final : public BlockDevice {
public:
    explicit RefusesSome(std::shared_ptr<MemoryDevice> base) : base_(std::move(base)) {}
    std::uint64_t size() const override { return base_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override { return base_->read(offset, out); }
    Result<void> write(std::uint64_t offset, ConstBytes in) override {
        return refuses && in[0] == std::byte{'X'} ? fail(EIO, "not this") : base_->write(offset, in);
    }
    Result<void> flush() override { return base_->flush(); }
    bool read_only() const override { return false; }
    std::string name() const override { return base_->name(); }

    std::atomic<bool> refuses{true};

private:
    std::shared_ptr<MemoryDevice> base_;
};

// What the device took of the same pass waits for what it did not: a cut leaves no block behind the end of the file.
TEST(OneFile, NothingIsNamedBehindWhatFailed) {
    const auto memory = fresh_image("-b 4096 -J size=4");
    const auto device = std::make_shared<RefusesSome>(memory);
    VolumeOptions options;
    options.background = false;
    auto fs = FileSystem::mount_device(device, options);
    ASSERT_TRUE(fs) << fs.error().what;
    auto file = (*fs)->open_path("/f", O_CREAT | O_RDWR, 0644, root);
    ASSERT_TRUE(file);
    ASSERT_TRUE((*file)->write(0, filled(4096, 'a')));
    ASSERT_TRUE((*file)->sync(false));
    ASSERT_TRUE((*file)->write(2 * 4096, filled(4096, 'X')));
    ASSERT_TRUE((*file)->write(8 * 4096, filled(4096, 'b')));
    EXPECT_EQ(code_of((*file)->sync(false)), EIO);
    ASSERT_TRUE((*fs)->volume().fs().journal.commit_all());
    {
        const std::shared_ptr<MemoryDevice> cut = memory->clone();
        auto after = FileSystem::mount_device(cut, options);
        ASSERT_TRUE(after) << after.error().what;
        auto seen = (*after)->open_path("/f", O_RDONLY, 0, root);
        ASSERT_TRUE(seen);
        EXPECT_LE((*seen)->inode().size_hint(), 2u * 4096);
        seen->reset();
        EXPECT_TRUE((*after)->unmount());
        expect_sound(cut, "after a cut");
    }
    device->refuses = false;
    EXPECT_TRUE((*file)->sync(false));
    file->reset();
    EXPECT_TRUE((*fs)->unmount());
    const std::string bytes = read_all(memory, "/f");
    ASSERT_EQ(bytes.size(), 9u * 4096);
    EXPECT_EQ(bytes.substr(2 * 4096, 4096), std::string(4096, 'X'));
    EXPECT_EQ(bytes.substr(8 * 4096), std::string(4096, 'b'));
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
                else ASSERT_TRUE((*file)->write(0, filled(length, 'a')));
                ASSERT_TRUE((*file)->sync(false));
                device->first = place_of((*file)->inode()), device->end = device->first + length;
                auto put = (*file)->write(0, filled(length, 'b'));
                EXPECT_TRUE(put && *put == length);
                auto synced = (*file)->sync(true);
                EXPECT_TRUE(synced) << synced.error().what;
                // And once more, where it is now.
                put = (*file)->write(0, filled(length, 'c'));
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

}  // namespace
}  // namespace uext4::faults
