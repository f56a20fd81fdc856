// What the checker found, each as small as it gets.
#include "tests/crash/found.h"
#include "volume/flusher.h"

#include <cstdlib>

namespace uext4::crash {
namespace {

// The mark that says "recover" went before the counters of free space were right.
TEST_F(Found, ARecoveryThatIsCutDoesNotLeaveTheCountersBehind) {
    mount();
    {
        auto file = open("/f");
        ASSERT_TRUE(file->write(0, bytes_of(std::string(9000, 'a'))));
        ASSERT_TRUE(file->sync(false));
    }
    std::shared_ptr<MemoryDevice> crashed = image->clone();
    ASSERT_TRUE(fs->unmount());
    image = crashed;
    mount();
    ASSERT_TRUE(fs->unmount());
    each_prefix([](FileSystem&, std::size_t) {});
}

// Blocks that a collapse has moved were overwritten while only memory knew of the move.
TEST_F(Found, BytesWrittenAfterACollapseAreNotSeenBeforeIt) {
    struct Writing {
        const char* how;
        int flags;
        std::uint64_t at;
        std::size_t size;
    };
    // The last one also to new places, behind the end.
    for (const Writing& how : {Writing{"cached", 0, 12288, 4096}, Writing{"direct", O_DIRECT, 12288, 4096},
                               Writing{"direct and behind", O_DIRECT, 20480, 8192}}) {
        SetUp();
        mount();
        ASSERT_TRUE(open("/f")->write(0, bytes_of(std::string(32768, 'a'))));
        ASSERT_TRUE(fs->unmount());
        mount();
        {
            auto file = open("/f", O_RDWR | how.flags);
            ASSERT_TRUE(file->fallocate(FALLOC_FL_COLLAPSE_RANGE, 8192, 8192));
            std::unique_ptr<char, void (*)(void*)> memory(static_cast<char*>(std::aligned_alloc(4096, how.size)),
                                                          [](void* p) { std::free(p); });
            std::fill_n(memory.get(), how.size, 'x');
            ASSERT_TRUE(file->write(how.at, std::as_bytes(std::span(memory.get(), how.size))));
        }
        ASSERT_TRUE(Flusher::flush_all(fs->volume().inodes()));
        ASSERT_TRUE(fs->unmount());
        each_prefix([&](FileSystem& recovered, std::size_t cut) {
            auto file = recovered.open_path("/f", O_RDONLY, 0, root);
            ASSERT_TRUE(file);
            std::string got(40000, 0);
            auto n = (*file)->read(0, std::as_writable_bytes(std::span(got)));
            ASSERT_TRUE(n);
            got.resize(*n);
            const std::size_t written = std::max<std::size_t>(24576, how.at + how.size);
            if (got.size() == 32768) EXPECT_TRUE(got == std::string(32768, 'a')) << how.how << ", " << cut;
            else EXPECT_TRUE(got.size() == 24576 || got.size() == written) << how.how << ", " << cut;
        });
    }
}

// A direct write was named while an earlier write still waited in the cache, which held the size on disk back.
TEST_F(Found, BlocksAreNotNamedPastTheSizeOnDisk) {
    for (const bool read : {false, true}) {
        SetUp();
        mount();
        {
            auto file = open("/f"), direct = open("/f", O_RDWR | O_DIRECT);
            std::unique_ptr<std::byte, void (*)(void*)> memory(static_cast<std::byte*>(std::aligned_alloc(4096, 4096)),
                                                               [](void* p) { std::free(p); });
            std::fill_n(memory.get(), 4096, std::byte{'x'});
            ASSERT_TRUE(file->write(9000, bytes_of("some")));
            if (read) {
                ASSERT_TRUE(file->write(16384, ConstBytes(memory.get(), 4096)));
                ASSERT_TRUE(direct->read(16384, Bytes(memory.get(), 4096)));
            } else {
                ASSERT_TRUE(direct->write(16384, ConstBytes(memory.get(), 4096)));
            }
            ASSERT_TRUE(fs->volume().fs().journal.commit_all());
        }
        ASSERT_TRUE(fs->unmount());
        each_prefix([](FileSystem&, std::size_t) {});
    }
}

// Does something when a read is over.
class AfterRead final : public BlockDevice {
public:
    explicit AfterRead(std::shared_ptr<BlockDevice> base) : base_(std::move(base)) {}
    std::uint64_t size() const override { return base_->size(); }
    Result<void> read(std::uint64_t offset, Bytes out) override {
        TRY(base_->read(offset, out));
        if (then) std::exchange(then, {})();
        return {};
    }
    Result<void> write(std::uint64_t offset, ConstBytes in) override { return base_->write(offset, in); }
    Result<void> flush() override { return base_->flush(); }
    bool read_only() const override { return false; }
    std::string name() const override { return base_->name(); }
    std::function<void()> then;

private:
    std::shared_ptr<BlockDevice> base_;
};

// In data=journal the device was read, then a checkpoint brought the committed contents home and forgot them, then the
// journal was asked: it had nothing newer, and the old bytes of the block stood in the file.
TEST_F(Found, AReadBesideACheckpointSeesWhatWasCommitted) {
    auto slow = std::make_shared<AfterRead>(image);
    auto mounted = FileSystem::mount_device(slow, mount_options("journal"));
    ASSERT_TRUE(mounted) << mounted.error().what;
    fs = std::move(*mounted);
    auto file = open("/f");
    ASSERT_TRUE(file->write(0, bytes_of(std::string(8192, 'a'))));
    ASSERT_TRUE(file->sync(false));
    {
        WriteLock invalidate(file->inode().pages().invalidate);
        file->inode().pages().remove(0, ~std::uint64_t{0});
    }
    Journal& journal = fs->volume().fs().journal;
    slow->then = [&] { EXPECT_TRUE(journal.checkpoint_all()); };
    std::string got(8192, 0);
    auto n = file->read(0, std::as_writable_bytes(std::span(got)));
    ASSERT_TRUE(n) << n.error().what;
    EXPECT_TRUE(got == std::string(8192, 'a'));
    slow->then = {};
    file.reset();
    EXPECT_TRUE(fs->unmount());
    fs.reset();
}

// An inode left memory before its transaction was committed; read again, it knew nothing of it.
TEST_F(Found, AnFsyncCommitsWhatWasDoneBeforeTheInodeLeftMemory) {
    mount();
    for (int i = 0; i < 40; ++i) open(fmt::format("/n{}", i));
    ASSERT_TRUE(fs->sync());
    auto& inodes = fs->volume().inodes();
    inodes.set_limit(4);
    const std::string contents(9000, 'a');
    {
        ASSERT_TRUE(open("/n7")->write(0, bytes_of(contents)));
    }
    ASSERT_TRUE(Flusher::flush_all(inodes));
    for (int i = 10; i < 40; ++i) open(fmt::format("/n{}", i), O_RDONLY);
    inodes.shrink_to_limit();
    ASSERT_TRUE(open("/n7", O_RDWR)->sync(false));
    std::shared_ptr<MemoryDevice> cut = before->clone();
    ASSERT_TRUE(RecordingDevice::replay(device->log(), device->log_size(), *cut));
    auto recovered = FileSystem::mount_device(cut, mount_options("ordered"));
    ASSERT_TRUE(recovered) << recovered.error().what;
    auto file = (*recovered)->open_path("/n7", O_RDONLY, 0, root);
    ASSERT_TRUE(file);
    std::string got(contents.size(), 0);
    auto n = (*file)->read(0, std::as_writable_bytes(std::span(got)));
    ASSERT_TRUE(n);
    EXPECT_EQ(*n, contents.size());
    EXPECT_TRUE(got == contents);
}

// An append into the last block, cut before its commit: its bytes are not in the block, behind the end, nor in a file
// that grows. With clusters, whose blocks do not move, they go through the log (docs/adr/0010).
void grow_by(OpenFile& file, FileSystem& fs, int how) {
    const std::vector<std::byte> block(4096, std::byte{'z'});
    switch (how) {
        case 0: ASSERT_TRUE(file.truncate(10'000)); break;
        case 1: ASSERT_TRUE(file.write(9'000, ConstBytes(block).first(1000))); break;
        case 2: ASSERT_TRUE(file.fallocate(0, 8192, 4096)); break;
        default: {
            auto direct = fs.open_path("/f", O_RDWR | O_DIRECT, 0, root);
            ASSERT_TRUE(direct);
            alignas(4096) static std::byte aligned[4096];
            ASSERT_TRUE((*direct)->write(8192, ConstBytes(aligned)));
        }
    }
}

// How many bytes `what` the device has in the file's first block from `from` on.
std::ptrdiff_t in_first_block(FileSystem& fs, Inode& inode, std::size_t from, std::byte what) {
    std::vector<std::byte> block(4096);
    EXPECT_TRUE(fs.extents(inode, 0, block.size(), [&](const Mapping& first) {
        EXPECT_EQ(first.state, BlockState::mapped);
        EXPECT_TRUE(inode.fs().device.read(first.block.value * block.size(), block));
        return false;
    }));
    return std::count(block.begin() + static_cast<std::ptrdiff_t>(from), block.end(), what);
}

TEST_F(Found, BytesOfACutAppendAreNotInAFileThatGrows) {
    for (const Format& format : {formats[0], with_clusters})
        for (int how = 0; how < 4; ++how)
            for (bool cached : {false, true}) {
                SCOPED_TRACE(fmt::format("{}, growth {}, cached {}", format.name, how, cached));
                make(format);
                mount();
                {
                    auto file = open("/f");
                    ASSERT_TRUE(file->write(0, bytes_of(std::string(100, 'a'))));
                    ASSERT_TRUE(file->sync(false));
                    ASSERT_TRUE(file->write(100, bytes_of(std::string(100, 'b'))));
                    ASSERT_TRUE(file->sync(false));
                }
                ASSERT_TRUE(fs->unmount());
                unsigned met = 0;
                each_prefix([&](FileSystem& recovered, std::size_t cut) {
                    auto file = recovered.open_path("/f", O_RDWR, 0, root);
                    if (!file) return;
                    std::vector<std::byte> got(20'000);
                    const std::size_t size = (*file)->inode().size_hint();
                    if (size != 100) return;
                    ++met;
                    EXPECT_EQ(in_first_block(recovered, (*file)->inode(), size, std::byte{'b'}), 0) << "cut " << cut;
                    if (cached) {
                        ASSERT_TRUE((*file)->read(0, got));
                    }
                    grow_by(**file, recovered, how);
                    ASSERT_TRUE((*file)->sync(false));
                    // What the device has.
                    auto direct = recovered.open_path("/f", O_RDONLY | O_DIRECT, 0, root);
                    ASSERT_TRUE(direct);
                    alignas(4096) static std::byte stored[20'480];
                    auto n = (*direct)->read(0, stored);
                    ASSERT_TRUE(n);
                    EXPECT_GT(*n, 8192U);
                    EXPECT_EQ(std::count(stored, stored + *n, std::byte{'b'}), 0) << "cut " << cut;
                });
                EXPECT_GT(met, 0U);
            }
}

// What an append had made of the last block was on the device with the cut's new end, and the size was not.
TEST_F(Found, AnUnsyncedAppendThatIsCutOffIsNotBehindTheEnd) {
    for (const Format& format : {formats[0], with_clusters}) {
        SCOPED_TRACE(format.name);
        make(format);
        mount();
        {
            auto file = open("/f");
            ASSERT_TRUE(file->write(0, bytes_of(std::string(100, 'a'))));
            ASSERT_TRUE(file->sync(false));
            ASSERT_TRUE(file->write(100, bytes_of(std::string(4900, 'b'))));
            ASSERT_TRUE(file->truncate(3000));
            ASSERT_TRUE(fs->volume().fs().journal.commit_all());
        }
        ASSERT_TRUE(fs->unmount());
        unsigned met = 0;
        each_prefix([&](FileSystem& recovered, std::size_t cut) {
            auto file = recovered.open_path("/f", O_RDWR, 0, root);
            if (!file) return;
            const std::size_t size = (*file)->inode().size_hint();
            if (size == 0) return;
            met += size == 100;
            EXPECT_TRUE(size == 100 || size == 3000) << cut;
            EXPECT_EQ(in_first_block(recovered, (*file)->inode(), size, std::byte{'b'}), 0) << "cut " << cut;
        });
        EXPECT_GT(met, 0U);
    }
}

}  // namespace
}  // namespace uext4::crash
