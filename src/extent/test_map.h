// For tests: a block map over a fresh mke2fs image in memory, owned by a real inode of it, and a model to compare with.
#pragma once

#include "device/memory_device.h"
#include "extent/block_map.h"
#include "format/inode.h"

#include <gtest/gtest.h>

#include <unistd.h>
#include <cstdlib>
#include <map>
#include <random>

namespace uext4::test {

template <class T>
T must(Result<T> result) {
    if (!result) {
        fmt::print(stderr, "failed: {} ({})\n", result.error().what, result.error().code);
        std::abort();
    }
    if constexpr (!std::is_void_v<T>) return std::move(*result);
}

// A file that is removed with its object.
struct ScratchFile {
    std::string path = fmt::format("{}/uext4-extent-{}-{}.img", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp",
                                   getpid(), ++counter());
    ~ScratchFile() {
        unlink(path.c_str());
        unlink((path + ".log").c_str());
    }
    static int& counter() {
        static int n = 0;
        return n;
    }
};

inline int shell(const std::string& command) { return std::system(("PATH=$PATH:/sbin:/usr/sbin; " + command).c_str()); }

// Inode 12 of the image: created by debugfs, stored by this owner.
class TestOwner final : public ExtentOwner {
public:
    TestOwner(BufferCache& buffers, Allocator& allocator, bool extents) : buffers_(buffers), allocator_(allocator) {
        const auto place = must(allocator_.locate_inode(number()));
        const BufferRef table = must(buffers_.read(place.block, "inode table"));
        raw_.assign(table->data().begin() + place.offset,
                    table->data().begin() + place.offset + allocator_.geometry().inode_size);
        if (extents) disk().flags = disk().flags | format::inode_flag::extents;
        else disk().flags = disk().flags & ~format::inode_flag::extents;
        if (extents) initialise_extent_root(i_block());
        else std::fill_n(disk().block, 60, std::byte{});
        disk().size_hi = extents ? 15 : 4;  // ends beyond everything that is mapped
    }
    format::InodeDisk& disk() { return view_as<format::InodeDisk>(Bytes(raw_)); }
    InodeNr number() const override { return InodeNr(12); }
    std::uint32_t generation() const override { return view_as<format::InodeDisk>(ConstBytes(raw_)).generation; }
    bool uses_extents() const override {
        return view_as<format::InodeDisk>(ConstBytes(raw_)).flags & format::inode_flag::extents;
    }
    bool has_journaled_data() const override { return journals; }
    Result<void> revoke_data(Handle& handle, BlockNr first, std::uint64_t count) const override {
        for (std::uint64_t i = 0; journals && i < count; ++i) TRY(handle.revoke(first + i));
        return {};
    }
    void note_corruption(const Error&) const override { ++damages; }
    Bytes i_block() override { return Bytes(disk().block, 60); }
    Result<void> get_write_access(Handle& handle) override {
        const auto place = TRY(allocator_.locate_inode(number()));
        return handle.get_write_access(TRY(buffers_.read(place.block, "inode table")));
    }
    Result<void> store_i_block(Handle& handle) override {
        const auto place = TRY(allocator_.locate_inode(number()));
        const BufferRef table = TRY(buffers_.read(place.block, "inode table"));
        TRY(handle.get_write_access(table));
        format::set_inode_checksum(allocator_.geometry(), number(), raw_);
        std::copy(raw_.begin(), raw_.end(), table->data().begin() + place.offset);
        return {};
    }
    Result<void> add_blocks(Handle& handle, std::int64_t fs_blocks) override {
        blocks += fs_blocks;
        const std::uint64_t per = allocator_.geometry().block_size / 512;
        format::set_inode_sectors(allocator_.geometry(), disk(), static_cast<std::uint64_t>(blocks) * per);
        return store_i_block(handle);
    }
    std::int64_t blocks = 0;
    bool journals = false;
    mutable std::size_t damages = 0;  // that the map told of

private:
    BufferCache& buffers_;
    Allocator& allocator_;
    std::vector<std::byte> raw_;
};

struct TestFs {
    ScratchFile file;
    std::unique_ptr<MemoryDevice> device;
    format::Geometry geometry;
    std::unique_ptr<BufferCache> buffers;
    std::unique_ptr<Journal> journal;
    std::unique_ptr<Allocator> allocator;
    std::unique_ptr<TestOwner> owner;
    std::uint64_t free_at_start = 0;

    explicit TestFs(const std::string& mke2fs_options) {
        const std::string quiet = " >/dev/null 2>&1";
        if (shell("mke2fs -q -F " + mke2fs_options + " " + file.path + " 64M" + quiet) != 0 ||
            shell("debugfs -w -R 'write /dev/null file' " + file.path + quiet) != 0)
            std::abort();
        device = must(MemoryDevice::load(file.path));
        format::SuperBlock super;
        must(device->read(format::super_offset, std::as_writable_bytes(std::span(&super, 1))));
        geometry = must(format::Geometry::parse(super, device->size()));
        buffers = std::make_unique<BufferCache>(*device, geometry.block_size, geometry.blocks_count, 8u << 20);
        JournalOptions options;
        options.commit_interval = std::chrono::milliseconds(0);
        journal = Journal::create_without_log(*buffers, options);
        allocator =
            must(Allocator::open(geometry, *buffers, *journal, super.free_blocks(), super.free_inodes_count, false));
        owner = std::make_unique<TestOwner>(*buffers, *allocator, mke2fs_options.find("^extent") == std::string::npos);
        free_at_start = allocator->counts().free_blocks;
    }
    ~TestFs() {
        owner.reset();
        must(journal->close());
        allocator.reset();
        journal.reset();
    }
    MapEnvironment context() { return {*buffers, *allocator}; }

    // Everything goes home, the superblock's count is corrected, and e2fsck is asked.
    void judge() {
        must(journal->commit_all());
        must(journal->checkpoint_all());
        format::SuperBlock super;
        must(device->read(format::super_offset, std::as_writable_bytes(std::span(&super, 1))));
        super.set_free_blocks(allocator->counts().free_blocks);
        format::set_super_checksum(super);
        must(device->write(format::super_offset, bytes_of(super)));
        must(device->save(file.path));
        ASSERT_EQ(
            shell("e2fsck -fn " + file.path + " > " + file.path + ".log 2>&1 || { cat " + file.path + ".log; false; }"),
            0);
    }
};

}  // namespace uext4::test
