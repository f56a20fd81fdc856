// errors=panic: the process ends, and who comes next finds the mark of it. On a file, which outlives the process.
#include "device/file_device.h"
#include "format/superblock.h"
#include "tests/faults/faulty_mount.h"
#include "volume/journal_location.h"

#include <chrono>

namespace uext4::faults {
namespace {

using Kind = DeviceRequest::Kind;

format::SuperBlock super_of(const std::string& path) {
    format::SuperBlock super{};
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    EXPECT_EQ(::pread(fd, &super, sizeof super, format::super_offset), static_cast<ssize_t>(sizeof super));
    ::close(fd);
    return super;
}

bool is_marked(const std::string& path) { return (super_of(path).state & format::super_state::errors) != 0; }

void shell(const std::string& command) { ASSERT_EQ(std::system((command + " >/dev/null 2>&1").c_str()), 0) << command; }

class Panic : public testing::Test {
protected:
    void SetUp() override {
        path = fmt::format("/dev/shm/uext4-panic-{}", ::getpid());
        shell("mke2fs -q -F -t ext4 -b 4096 " + path + " 24M");
    }
    void TearDown() override {
        if (faulty) faulty->clear();
        if (fs) {
            EXPECT_TRUE(fs->unmount());
        }
        fs.reset();
        for (const char* suffix : {"", ".copy"}) ::unlink((path + suffix).c_str());
    }
    void mount(const std::string& options) {
        FileDeviceOptions view;
        view.writable = true;
        auto device = FileDevice::open(path, view);
        ASSERT_TRUE(device) << device.error().what;
        faulty = std::make_shared<FaultyDevice>(std::move(*device));
        VolumeOptions parsed = parse_all_options(options).value();
        parsed.background = false;
        parsed.commit_interval = std::chrono::milliseconds(0);  // this process is to live
        auto mounted = FileSystem::mount_device(faulty, parsed);
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
    }
    // What the process that ended leaves, after the next mount.
    bool is_marked_later() {
        shell(fmt::format("cp --sparse=always {0} {0}.copy", path));
        auto next = FileSystem::mount(path + ".copy", "errors=continue");
        EXPECT_TRUE(next) << next.error().what;
        EXPECT_TRUE((*next)->unmount());
        return is_marked(path + ".copy");
    }
    // Writes to the log fail from now on.
    void fail_log() {
        auto runs = locate_journal(fs->volume().inodes(), fs->volume().geometry());
        ASSERT_TRUE(runs);
        DeviceFault fault;
        fault.kinds = {Kind::Write, Kind::Fua};
        fault.predicate = [log = *runs](const DeviceRequest& r) {
            for (const BlockRun& run : log)
                if (r.offset / 4096 >= run.first.value && r.offset / 4096 < run.first.value + run.count) return true;
            return false;
        };
        faulty->add(fault);
    }
    std::string path;
    std::shared_ptr<FaultyDevice> faulty;
    std::unique_ptr<FileSystem> fs;
};

TEST_F(Panic, AnAbortOfTheLogIsMarkedBeforeTheEnd) {
    mount("errors=panic");
    // A superblock without the mark is in the log, and the next mount replays it.
    ASSERT_TRUE(fs->set_label("logged"));
    ASSERT_TRUE(fs->sync());
    fail_log();
    auto file = fs->open_path("/f", O_CREAT | O_RDWR, 0644, root);
    ASSERT_TRUE(file);
    EXPECT_FALSE(is_marked(path));
    EXPECT_DEATH((void)(*file)->sync(false), "");
    EXPECT_TRUE(is_marked(path));
    EXPECT_TRUE(is_marked_later());
}

TEST_F(Panic, DamageIsMarkedBeforeTheEnd) {
    shell("debugfs -w -R 'write /etc/hostname damaged' " + path);
    shell("debugfs -w -R 'set_inode_field /damaged checksum 1' " + path);
    mount("errors=panic");
    EXPECT_FALSE(is_marked(path));
    EXPECT_DEATH((void)fs->open_path("/damaged", O_RDONLY, 0, root), "");
    EXPECT_TRUE(is_marked(path));
    EXPECT_TRUE(is_marked_later());
}

TEST_F(Panic, ADeviceThatHangsIsNotWaitedFor) {
    mount("errors=panic");
    fail_log();
    DeviceFault fault;
    fault.effect = DeviceFault::Effect::Stick;
    fault.kinds = {Kind::Write, Kind::Fua};
    fault.offset = format::super_offset;
    fault.length = sizeof(format::SuperBlock);
    faulty->add(fault);
    auto file = fs->open_path("/f", O_CREAT | O_RDWR, 0644, root);
    ASSERT_TRUE(file);
    const auto start = std::chrono::steady_clock::now();
    EXPECT_DEATH((void)(*file)->sync(false), "");
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

}  // namespace
}  // namespace uext4::faults
