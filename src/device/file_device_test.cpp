#include "device/file_device.h"
#include "device/host_use.h"
#include "device/open_device.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace {

// What of the host's calls makes durable, counted on its way.
unsigned data_syncs = 0, durable_writes = 0;
int host_fails = 0;  // with this error

int failed() {
    errno = host_fails;
    return -1;
}

}  // namespace

extern "C" int fdatasync(int fd) {
    ++data_syncs;
    if (host_fails) return failed();
    return static_cast<int>(syscall(SYS_fdatasync, fd));
}

extern "C" ssize_t pwritev2(int fd, const iovec* parts, int count, off_t offset, int flags) {
    if (flags & RWF_DSYNC) ++durable_writes;
    if ((flags & RWF_DSYNC) && host_fails) return failed();
    return syscall(SYS_pwritev2, fd, parts, count, offset, 0L, flags);
}

namespace uext4 {
namespace {

class FileDeviceTest : public testing::Test {
protected:
    static constexpr std::uint64_t file_size = 1 << 20;
    std::string path = testing::TempDir() + "file_device_" + std::to_string(getpid()) + ".img";

    void SetUp() override {
        const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        ASSERT_GE(fd, 0);
        ASSERT_EQ(ftruncate(fd, file_size), 0);
        close(fd);
    }
    void TearDown() override { unlink(path.c_str()); }

    static std::vector<std::byte> numbered(std::size_t size, unsigned start) {
        std::vector<std::byte> data(size);
        for (std::size_t i = 0; i < size; ++i) data[i] = static_cast<std::byte>(start + i * 7);
        return data;
    }
    std::unique_ptr<FileDevice> open_file(FileDeviceOptions options = {}) {
        auto device = FileDevice::open(path, options);
        EXPECT_TRUE(device) << device.error().what;
        return device ? std::move(*device) : nullptr;
    }
    int open_error(FileDeviceOptions options = {}) {
        auto device = FileDevice::open(path, options);
        return device ? 0 : device.error().code;
    }
    static FileDeviceOptions reading() {
        FileDeviceOptions options;
        options.writable = false;
        return options;
    }
};

// A host that loses its power has what was flushed, and what was written through.
TEST_F(FileDeviceTest, MakesDurable) {
    auto device = open_file();
    ASSERT_TRUE(device);
    data_syncs = durable_writes = 0;
    ASSERT_TRUE(device->write(0, numbered(4096, 1)));
    EXPECT_EQ(data_syncs + durable_writes, 0u);
    ASSERT_TRUE(device->flush());
    EXPECT_EQ(data_syncs, 1u);
    data_syncs = 0;
    ASSERT_TRUE(device->write_fua(8192, numbered(4096, 2)));
    EXPECT_GE(data_syncs + durable_writes, 1u);
    std::vector<std::byte> back(4096);
    ASSERT_TRUE(device->read(8192, back));
    EXPECT_EQ(back, numbered(4096, 2));
    device.reset();
    data_syncs = 0;
    ASSERT_TRUE(open_file(reading())->flush());
    EXPECT_EQ(data_syncs, 0u);
}

TEST_F(FileDeviceTest, TellsOfWhatTheHostCouldNotMakeDurable) {
    auto device = open_file();
    ASSERT_TRUE(device);
    ASSERT_TRUE(device->write(0, numbered(4096, 1)));
    for (const int code : {EIO, ENOSPC, EDQUOT}) {
        host_fails = code;
        const Result<void> flushed = device->flush(), written = device->write_fua(0, numbered(4096, 2));
        host_fails = 0;
        ASSERT_FALSE(flushed);
        EXPECT_EQ(flushed.error().code, code);
        ASSERT_FALSE(written);
        EXPECT_EQ(written.error().code, code);
    }
    EXPECT_TRUE(device->flush());
}

TEST_F(FileDeviceTest, ReadsAndWrites) {
    auto device = open_file();
    ASSERT_TRUE(device);
    EXPECT_EQ(device->size(), file_size);
    const auto data = numbered(70001, 3);
    ASSERT_TRUE(device->write(12345, data));
    ASSERT_TRUE(device->flush());
    ASSERT_TRUE(device->write_fua(0, data));
    std::vector<std::byte> out(data.size());
    ASSERT_TRUE(device->read(12345 - 12345, out));
    EXPECT_EQ(out, data);
    ASSERT_TRUE(device->read_from_medium(12345, std::span(out).first(1000)));
    EXPECT_TRUE(std::equal(out.begin(), out.begin() + 1000, data.begin() + 12345));
    ASSERT_TRUE(device->read_from_medium(file_size - 5, std::span(out).first(5)));
    EXPECT_TRUE(all_zero(std::span(out).first(5)));
    EXPECT_EQ(device->write(file_size - 1, std::span(data).first(2)).error().code, EINVAL);
    EXPECT_EQ(device->read(~0ull, std::span(out).first(2)).error().code, EINVAL);
}

TEST_F(FileDeviceTest, ScattersAndGathersMoreThanOneBatch) {
    auto device = open_file();
    ASSERT_TRUE(device);
    const auto data = numbered(300000, 1);
    std::vector<ConstBytes> in;
    std::size_t at = 0;
    for (std::size_t i = 0; at < data.size(); ++i) {
        const std::size_t step = std::min<std::size_t>(i % 500, data.size() - at);
        in.push_back(std::span(data).subspan(at, step));
        at += step;
    }
    ASSERT_GT(in.size(), 1024u);
    ASSERT_TRUE(device->writev(100, in));
    std::vector<std::byte> result(data.size());
    std::vector<Bytes> out;
    for (at = 0; at < result.size(); at += 1000) out.push_back(std::span(result).subspan(at, 1000));
    ASSERT_TRUE(device->readv(100, out));
    EXPECT_EQ(result, data);
    EXPECT_TRUE(device->writev(file_size, {}));
}

TEST_F(FileDeviceTest, ViewsAreShiftedAndBounded) {
    FileDeviceOptions options;
    options.offset = 5000;
    options.length = 10000;
    {
        auto device = open_file(options);
        ASSERT_TRUE(device);
        EXPECT_EQ(device->size(), 10000u);
        ASSERT_TRUE(device->write(9000, numbered(1000, 1)));
        EXPECT_FALSE(device->write(9001, numbered(1000, 1)));
        ASSERT_TRUE(device->read_from_medium(9990, *std::make_unique<std::array<std::byte, 10>>()));
    }
    auto whole = open_file(reading());
    std::vector<std::byte> out(1000);
    ASSERT_TRUE(whole->read(14000, out));
    EXPECT_EQ(out, numbered(1000, 1));
    options.offset = file_size;
    EXPECT_EQ(open_error(options), EINVAL);
}

TEST_F(FileDeviceTest, ReadOnly) {
    auto device = open_file(reading());
    ASSERT_TRUE(device);
    EXPECT_TRUE(device->read_only());
    EXPECT_EQ(device->write(0, numbered(1, 1)).error().code, EROFS);
    EXPECT_EQ(device->discard(0, 1).error().code, EROFS);
    EXPECT_TRUE(device->flush());
}

TEST_F(FileDeviceTest, DiscardPunchesAndKeepsTheSize) {
    auto device = open_file();
    ASSERT_TRUE(device->write(0, numbered(65536, 1)));
    const auto result = device->discard(4096, 8192);
    if (!result && result.error().code == EOPNOTSUPP) GTEST_SKIP() << "this file system cannot punch holes";
    ASSERT_TRUE(result) << result.error().what;
    std::vector<std::byte> out(8192);
    ASSERT_TRUE(device->read(4096, out));
    EXPECT_TRUE(all_zero(out));
    struct stat info{};
    ASSERT_EQ(stat(path.c_str(), &info), 0);
    EXPECT_EQ(static_cast<std::uint64_t>(info.st_size), file_size);
}

TEST_F(FileDeviceTest, AShrunkFileIsAnErrorThatNamesThePlace) {
    auto device = open_file();
    ASSERT_EQ(truncate(path.c_str(), 1000), 0);
    std::vector<std::byte> out(2000);
    const auto result = device->read(0, out);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, EIO);
    EXPECT_NE(result.error().what.find("1000"), std::string::npos);
}

TEST_F(FileDeviceTest, LimitsPassThroughAsTheirErrno) {
    auto device = open_file();
    rlimit before{};
    getrlimit(RLIMIT_FSIZE, &before);
    rlimit small = before;
    small.rlim_cur = 4096;
    auto handler = std::signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    const auto result = device->write(2048, numbered(8192, 1));
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, EFBIG);
}

// Else what cannot be written is found out when it is written back.
TEST_F(FileDeviceTest, AnImageLargerThanTheProcessMayWriteIsOnlyRead) {
    rlimit before{};
    getrlimit(RLIMIT_FSIZE, &before);
    rlimit small = before;
    small.rlim_cur = 4096;
    setrlimit(RLIMIT_FSIZE, &small);
    const int writing = open_error(), looking = open_error(reading());
    setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_EQ(writing, EFBIG);
    EXPECT_EQ(looking, 0);
    EXPECT_EQ(open_error(), 0);
}

TEST_F(FileDeviceTest, LocksExcludeWritersInOneProcess) {
    auto writer = open_file();
    EXPECT_EQ(open_error(), EBUSY);
    EXPECT_EQ(open_error(reading()), EBUSY);
    FileDeviceOptions unlocked = reading();
    unlocked.lock = false;
    EXPECT_EQ(open_error(unlocked), 0);
    writer.reset();
    auto reader = open_file(reading());
    EXPECT_EQ(open_error(reading()), 0);
    EXPECT_EQ(open_error(), EBUSY);
}

TEST_F(FileDeviceTest, ViewsThatDoNotOverlapDoNotExclude) {
    FileDeviceOptions low, high, both;
    low.length = 1000;
    high.offset = 1000;
    auto a = open_file(low);
    auto b = open_file(high);
    EXPECT_TRUE(a && b);
    EXPECT_EQ(open_error(both), EBUSY);
}

TEST_F(FileDeviceTest, LocksExcludeOtherProcesses) {
    auto writer = open_file();
    auto error_in_child = [&] {
        const pid_t child = fork();
        if (child == 0) {
            auto device = FileDevice::open(path);
            _exit(device ? 0 : device.error().code);
        }
        int status = 0;
        waitpid(child, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    };
    EXPECT_EQ(error_in_child(), EBUSY);
    auto refused = FileDevice::open(path);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().what, path + ": this process has it open already");
    writer.reset();
    EXPECT_EQ(error_in_child(), 0);
}

TEST_F(FileDeviceTest, TheEndOfAProcessFreesItsLock) {
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
        [[maybe_unused]] auto device = FileDevice::open(path);  // holds the lock until the end
        [[maybe_unused]] const ssize_t told = ::write(ready[1], "x", 1);
        for (;;) pause();
    }
    char byte;
    ASSERT_EQ(::read(ready[0], &byte, 1), 1);
    EXPECT_EQ(open_error(), EBUSY);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    EXPECT_EQ(open_error(), 0);
    close(ready[0]);
    close(ready[1]);
}

TEST_F(FileDeviceTest, DescriptorsThatWerePassedIn) {
    const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
    const std::string passed = "/dev/fd/" + std::to_string(fd);
    {
        auto device = FileDevice::open(passed);
        ASSERT_TRUE(device) << device.error().what;
        EXPECT_TRUE((*device)->write(0, numbered(10, 1)));
        EXPECT_NE((*device)->descriptor(), fd);
    }
    EXPECT_GE(fcntl(fd, F_GETFD), 0) << "the caller's descriptor stays open";
    close(fd);
    const int only_reading = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    auto refused = FileDevice::open("/dev/fd/" + std::to_string(only_reading));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, EROFS);
    auto adopted = FileDevice::adopt(only_reading, "adopted");
    ASSERT_TRUE(adopted) << adopted.error().what;
    EXPECT_TRUE((*adopted)->read_only());
    EXPECT_EQ(FileDevice::open("/dev/fd/9999").error().code, EBADF);
}

TEST_F(FileDeviceTest, WhatIsNoImage) {
    EXPECT_EQ(FileDevice::open("/nonexistent/image").error().code, ENOENT);
    EXPECT_EQ(FileDevice::open(testing::TempDir()).error().code, EINVAL);
    EXPECT_EQ(FileDevice::open("/dev/null").error().code, EINVAL);
    const std::string fifo = path + ".fifo";
    ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
    EXPECT_EQ(FileDevice::open(fifo, reading()).error().code, EINVAL);
    unlink(fifo.c_str());
}

// A loop device over the image, detached again when it goes.
class Loop {
public:
    explicit Loop(const std::string& image, bool read_only = false) {
        const int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
        if (control < 0) {
            reason = std::string("no /dev/loop-control: ") + std::strerror(errno);
            return;
        }
        const int backing = open(image.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
        for (int attempt = 0; attempt < 20 && fd < 0; ++attempt) {
            const int number = ioctl(control, LOOP_CTL_GET_FREE);
            if (number < 0) break;
            node = "/dev/loop" + std::to_string(number);
            const int candidate = open(node.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
            if (candidate < 0) break;
            if (ioctl(candidate, LOOP_SET_FD, backing) == 0) fd = candidate;  // else somebody was faster
            else close(candidate);
        }
        if (fd < 0) reason = std::string("no free loop device: ") + std::strerror(errno);
        close(backing);
        close(control);
    }
    ~Loop() {
        if (fd < 0) return;
        ioctl(fd, LOOP_CLR_FD);
        close(fd);
    }
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    int fd = -1;
    std::string node, reason;
};

TEST_F(FileDeviceTest, BlockDevices) {
    Loop loop(path);
    if (loop.fd < 0) GTEST_SKIP() << loop.reason;
    auto device = FileDevice::open(loop.node);
    ASSERT_TRUE(device) << device.error().what;
    EXPECT_TRUE((*device)->is_block_device());
    EXPECT_EQ((*device)->size(), file_size);
    const auto data = numbered(10000, 1);
    ASSERT_TRUE((*device)->write(777, data));
    ASSERT_TRUE((*device)->write_fua(40000, data));
    ASSERT_TRUE((*device)->flush());
    std::vector<std::byte> out(data.size());
    ASSERT_TRUE((*device)->read_from_medium(777, out));
    EXPECT_EQ(out, data);
    const auto discarded = (*device)->discard(0, 8192);
    EXPECT_TRUE(discarded || discarded.error().code == EOPNOTSUPP) << discarded.error().what;
    auto second = FileDevice::open(loop.node);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, EBUSY);
}

TEST_F(FileDeviceTest, WhatIsOpenIsRefusedThroughALoopDevice) {
    Loop loop(path);
    if (loop.fd < 0) GTEST_SKIP() << loop.reason;
    {
        auto file = FileDevice::open(path);
        ASSERT_TRUE(file) << file.error().what;
        auto device = FileDevice::open(loop.node);
        ASSERT_FALSE(device);
        EXPECT_EQ(device.error().code, EBUSY) << device.error().what;
        EXPECT_EQ(FileDevice::open(loop.node, reading()).error().code, EBUSY);
    }
    {
        auto file = FileDevice::open(path, reading());
        ASSERT_TRUE(file) << file.error().what;
        EXPECT_TRUE(FileDevice::open(loop.node, reading())) << "readers share";
        EXPECT_EQ(FileDevice::open(loop.node).error().code, EBUSY);
    }
    // Two views of one image that do not meet exclude each other no more than those of the file do.
    loop_info64 status{};
    status.lo_offset = file_size / 2;
    ASSERT_EQ(ioctl(loop.fd, LOOP_SET_STATUS64, &status), 0) << std::strerror(errno);
    FileDeviceOptions front;
    front.length = file_size / 2;
    auto file = FileDevice::open(path, front);
    ASSERT_TRUE(file) << file.error().what;
    auto back = FileDevice::open(loop.node);
    EXPECT_TRUE(back) << back.error().what;
}

TEST_F(FileDeviceTest, ReadOnlyBlockDevices) {
    Loop loop(path, true);
    if (loop.fd < 0) GTEST_SKIP() << loop.reason;
    auto device = FileDevice::open(loop.node);
    ASSERT_FALSE(device);
    EXPECT_TRUE(device.error().code == EROFS || device.error().code == EACCES) << device.error().what;
    auto readable = FileDevice::open(loop.node, reading());
    ASSERT_TRUE(readable) << readable.error().what;
    EXPECT_TRUE((*readable)->read_only());
}

TEST_F(FileDeviceTest, WhatTheKernelHasMountedIsRefused) {
    if (geteuid() != 0) GTEST_SKIP() << "only root mounts";
    ASSERT_EQ(truncate(path.c_str(), 16 << 20), 0);
    const std::string command = "mkfs.ext4 -q -F " + path + " 2>/dev/null";
    if (std::system(command.c_str()) != 0) GTEST_SKIP() << "no mkfs.ext4";
    Loop loop(path);
    if (loop.fd < 0) GTEST_SKIP() << loop.reason;
    EXPECT_EQ(open_error(), 0) << "attached but not mounted";
    const std::string folder = path + ".mnt";
    ASSERT_EQ(mkdir(folder.c_str(), 0700), 0);
    if (mount(loop.node.c_str(), folder.c_str(), "ext4", 0, nullptr) != 0) {
        const int code = errno;
        rmdir(folder.c_str());
        GTEST_SKIP() << "the kernel does not mount here: " << std::strerror(code);
    }
    auto through_file = FileDevice::open(path);
    auto through_node = FileDevice::open(loop.node);
    const int reader = open_error(reading());
    umount(folder.c_str());
    rmdir(folder.c_str());
    ASSERT_FALSE(through_file);
    EXPECT_EQ(through_file.error().code, EBUSY);
    EXPECT_NE(through_file.error().what.find("mounted on " + folder), std::string::npos) << through_file.error().what;
    ASSERT_FALSE(through_node);
    EXPECT_EQ(through_node.error().code, EBUSY);
    EXPECT_EQ(reader, 0);
}

}  // namespace
}  // namespace uext4
