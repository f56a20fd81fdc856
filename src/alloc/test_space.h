// For tests: an allocator over a fresh mke2fs image in memory, and e2fsck as the judge.
#pragma once

#include "alloc/allocator.h"
#include "device/memory_device.h"

#include <gtest/gtest.h>

#include <unistd.h>
#include <cstdlib>
#include <functional>
#include <optional>
#include <span>

namespace uext4::test {

template <class T>
T must(Result<T> result) {
    if (!result) {
        fmt::print(stderr, "failed: {} ({})\n", result.error().what, result.error().code);
        std::abort();
    }
    if constexpr (!std::is_void_v<T>) return std::move(*result);
}

inline int shell(const std::string& command) { return std::system(("PATH=$PATH:/sbin:/usr/sbin; " + command).c_str()); }

// A device in memory that calls `on_discard` within each discard.
class WatchedDevice final : public BlockDevice {
public:
    explicit WatchedDevice(std::unique_ptr<MemoryDevice> base) : base_(std::move(base)) {}
    std::function<void(std::uint64_t, std::uint64_t)> on_discard;
    std::optional<std::uint64_t> unreadable;  // reads of what has this byte fail
    MemoryDevice& base() { return *base_; }

    std::uint64_t size() const override { return base_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override {
        if (unreadable && offset <= *unreadable && *unreadable < offset + out.size())
            return fail(EIO, "{}: {} bytes at {} cannot be read", name(), out.size(), offset);
        return base_->read(offset, out);
    }
    Result<void> write(std::uint64_t offset, ConstBytes in) override { return base_->write(offset, in); }
    Result<void> flush() override { return base_->flush(); }
    Result<void> discard(std::uint64_t offset, std::uint64_t length) override {
        if (on_discard) on_discard(offset, length);
        return base_->discard(offset, length);
    }
    bool read_only() const override { return base_->read_only(); }
    std::string name() const override { return base_->name(); }

private:
    std::unique_ptr<MemoryDevice> base_;
};

class TestSpace {
public:
    explicit TestSpace(const std::string& options, const std::string& size = "96M", bool with_log = false) {
        static int serial = 0;
        path_ = fmt::format("{}/uext4-alloc-{}-{}.img", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", getpid(),
                            ++serial);
        if (shell(fmt::format("mke2fs -q -F {} {} {} >/dev/null 2>&1", options, path_, size)) != 0) {
            fmt::print(stderr, "mke2fs {} failed\n", options);
            std::abort();
        }
        device = std::make_unique<WatchedDevice>(must(MemoryDevice::load(path_)));
        geometry = must(format::Geometry::parse(super(), device->size()));
        open(with_log);
    }
    ~TestSpace() {
        close();
        unlink(path_.c_str());
        unlink((path_ + ".log").c_str());
    }

    // Anew over the device as it is: what was cached is gone.
    void reopen(bool recount = false) {
        close();
        open(false, recount);
    }
    format::SuperBlock super() {
        format::SuperBlock out;
        must(device->read(format::super_offset, std::as_writable_bytes(std::span(&out, 1))));
        return out;
    }
    Handle start(unsigned credits = 16) { return must(journal->start(credits)); }
    void commit() { must(journal->commit_all()); }
    BlockNr block_bitmap(GroupNr g) {
        return descriptor(g, [](auto d) { return d.block_bitmap(); });
    }
    BlockNr inode_bitmap(GroupNr g) {
        return descriptor(g, [](auto d) { return d.inode_bitmap(); });
    }
    BlockNr inode_table(GroupNr g) {
        return descriptor(g, [](auto d) { return d.inode_table(); });
    }
    // Changes a byte on the device, behind everybody's back.
    void poke(BlockNr block, std::uint64_t offset, const std::function<std::byte(std::byte)>& change) {
        std::byte b;
        const std::uint64_t at = block.value * geometry.block_size + offset;
        must(device->read(at, Bytes(&b, 1)));
        b = change(b);
        must(device->write(at, ConstBytes(&b, 1)));
    }

    // Everything goes home, the superblock gets its counts as the volume would write them, and e2fsck must be content.
    void judge() {
        commit();
        must(journal->checkpoint_all());
        format::SuperBlock s = super();
        s.set_free_blocks(allocator->super_free_blocks());
        s.free_inodes_count = static_cast<std::uint32_t>(allocator->counts().free_inodes);
        format::set_super_checksum(s);
        must(device->write(format::super_offset, bytes_of(s)));
        must(device->base().save(path_));
        EXPECT_EQ(shell(fmt::format("e2fsck -fn {0} >{0}.log 2>&1 || {{ cat {0}.log; false; }}", path_)), 0);
    }

    std::unique_ptr<WatchedDevice> device;
    format::Geometry geometry;
    std::unique_ptr<BufferCache> buffers;
    std::unique_ptr<Journal> journal;
    std::unique_ptr<Allocator> allocator;

private:
    template <class Get>
    BlockNr descriptor(GroupNr g, Get get) {
        const auto place = geometry.descriptor_place(g);
        std::vector<std::byte> bytes(geometry.desc_size);
        must(device->read(place.block.value * geometry.block_size + place.offset, bytes));
        return get(format::GroupDescView(bytes, geometry.desc_size));
    }
    void open(bool with_log, bool recount = false) {
        JournalOptions options;
        options.commit_interval = std::chrono::milliseconds(0);
        buffers = std::make_unique<BufferCache>(*device, geometry.block_size, geometry.blocks_count, 8u << 20);
        journal = with_log ? must(Journal::open(*buffers, log_runs(), options))
                           : Journal::create_without_log(*buffers, options);
        const format::SuperBlock s = super();
        allocator = must(Allocator::open(geometry, *buffers, *journal, s.free_blocks(), s.free_inodes_count, recount));
    }
    void close() {
        must(journal->close());
        allocator.reset();
        journal.reset();
        buffers.reset();
    }
    // The extents in the journal's inode itself: mke2fs needs no more for a small log.
    std::vector<BlockRun> log_runs() {
        const std::uint64_t index = geometry.journal_inode - 1;
        std::vector<std::byte> inode(geometry.inode_size);
        must(device->read(inode_table(GroupNr(0)).value * geometry.block_size + index * geometry.inode_size, inode));
        const std::size_t root = 40;
        const std::uint16_t entries = view_as<Le16>(ConstBytes(inode), root + 2),
                            depth = view_as<Le16>(ConstBytes(inode), root + 6);
        if (depth != 0 || entries == 0 || entries > 4) std::abort();
        std::vector<BlockRun> runs;
        for (std::size_t at = root + 12; runs.size() < entries; at += 12)
            runs.push_back({BlockNr(view_as<Le32>(ConstBytes(inode), at + 8).get()),
                            view_as<Le16>(ConstBytes(inode), at + 4).get()});
        return runs;
    }

    std::string path_;
};

}  // namespace uext4::test
