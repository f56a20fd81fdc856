// Two syncs at once, on a device that drops its cache when a flush fails and tells of it once: whoever is not told of
// that flush, because it was another thread's, is not told either that his bytes are there.
#include "device/forwarding_device.h"
#include "tests/faults/faulty_mount.h"

#include <atomic>
#include <functional>
#include <thread>

namespace uext4::faults {
namespace {

// Calls `after` behind each write that is done.
class AfterWrites final : public ForwardingDevice {
public:
    explicit AfterWrites(std::shared_ptr<BlockDevice> base) : ForwardingDevice(std::move(base)) {}
    std::function<void()> after;

    Result<void> write(std::uint64_t offset, ConstBytes in) override {
        TRY(ForwardingDevice::write(offset, in));
        if (const auto call = after) call();
        return {};
    }
    Result<void> writev(std::uint64_t offset, std::span<const ConstBytes> parts) override {
        return BlockDevice::writev(offset, parts);  // each by write(). NOLINT(bugprone-parent-virtual-call)
    }
};

// An image with two files, and another thread that syncs one of them when the first write of whoever syncs is done: its
// flush fails, and the other's, which follows, does not.
class TwoSyncs : public testing::Test {
protected:
    void SetUp() override {
        VolumeOptions options;
        options.background = false;
        options.commit_interval = std::chrono::milliseconds(0);
        hooked_ = std::make_shared<AfterWrites>(m_.faulty);
        auto fs = FileSystem::mount_device(hooked_, options);
        ASSERT_TRUE(fs) << fs.error().what;
        m_.fs = std::move(*fs);
        one_ = m_.open("/one"), other_ = m_.open("/other");
        ASSERT_TRUE(one_->write(0, filled(65536, 'a')));
        ASSERT_TRUE(other_->write(0, filled(4096, 'a')));
        ASSERT_TRUE(m_.fs->sync());
        ASSERT_TRUE(other_->write(0, filled(4096, 'b')));
    }
    void TearDown() override {
        one_.reset(), other_.reset();
        m_.faulty->clear();
        if (m_.fs) (void)m_.fs->unmount();
    }

    void arm() {
        hooked_->after = [this] {
            hooked_->after = {};
            const auto failing = m_.faulty->fail_flushes(EIO, 1);
            std::thread([this] { told_ = code_of(other_->sync(true)); }).join();
            EXPECT_EQ(m_.faulty->hits(failing), 1u);
            over_ = true;
        };
    }

    // What the other thread was told; the first may have been told before.
    int told() const {
        for (int i = 0; i < 10000 && !over_; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return told_;
    }

    FaultyMount m_{fresh_image("-b 4096")};
    std::shared_ptr<AfterWrites> hooked_;
    std::unique_ptr<OpenFile> one_, other_;
    std::atomic<bool> over_{false};
    int told_ = -1;
};

TEST_F(TwoSyncs, BothAreToldOfOverwrites) {
    ASSERT_TRUE(one_->write(0, filled(4096, 'b')));
    arm();
    EXPECT_EQ(code_of(one_->sync(true)), EIO) << read_all(m_.durable(), "/one").substr(0, 1);
    EXPECT_EQ(told(), EIO);
}

TEST_F(TwoSyncs, BothAreToldOfACommit) {
    auto fresh = m_.open("/fresh");
    arm();  // behind the blocks in the log, before their flush
    EXPECT_EQ(code_of(fresh->sync(false)), EIO) << read_all(m_.durable(), "/fresh");
    EXPECT_EQ(told(), EIO);
    fresh.reset();
    expect_sound(m_.durable(), "after a power cut");
}

TEST_F(TwoSyncs, TheLogIsKeptWhereACheckpointIsLost) {
    auto fresh = m_.open("/fresh");
    ASSERT_TRUE(fresh->sync(false));
    fresh.reset();
    arm();  // behind the first blocks that are home
    EXPECT_EQ(code_of(m_.fs->volume().fs().journal.checkpoint_all()), EIO);
    EXPECT_EQ(told(), EIO);
    const auto left = m_.durable();
    auto fs = FileSystem::mount_device(std::shared_ptr<BlockDevice>(left->clone()), {});
    ASSERT_TRUE(fs) << fs.error().what;
    EXPECT_TRUE((*fs)->resolve("/fresh", root));
    expect_sound(left, "after a power cut");
}

TEST_F(TwoSyncs, BothAreToldOfAllFiles) {
    // Or it would wait for the pass that it is called in.
    ASSERT_TRUE(other_->sync(true));
    ASSERT_TRUE(one_->write(0, filled(4096, 'b')));
    arm();
    EXPECT_EQ(code_of(m_.fs->sync()), EIO);
    EXPECT_EQ(told(), EIO);
}

}  // namespace
}  // namespace uext4::faults
