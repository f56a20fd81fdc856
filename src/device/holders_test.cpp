// Which process is told to have an image open.
#include "device/holders.h"

#include "device/file_device.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <string>

namespace uext4 {
namespace {

class HoldersTest : public testing::Test {
protected:
    std::string path = testing::TempDir() + "holders_" + std::to_string(getpid()) + ".img";

    void SetUp() override {
        const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        ASSERT_GE(fd, 0);
        ASSERT_EQ(ftruncate(fd, 1 << 20), 0);
        close(fd);
    }
    void TearDown() override { unlink(path.c_str()); }

    std::unique_ptr<FileDevice> open_file(const FileDeviceOptions& options) {
        auto device = FileDevice::open(path, options);
        EXPECT_TRUE(device) << device.error().what;
        return device ? std::move(*device) : nullptr;
    }
    static FileDeviceOptions reading() {
        FileDeviceOptions options;
        options.writable = false;
        return options;
    }
};

// A process does not wait for itself, however long it may wait (the test would not end).
TEST_F(HoldersTest, WhatThisProcessHasOpenIsNotWaitedFor) {
    for (const bool by_reader : {false, true}) {
        auto first = open_file(by_reader ? reading() : FileDeviceOptions{});
        FileDeviceOptions patient;
        patient.lock_timeout = std::chrono::hours(100);
        auto second = FileDevice::open(path, patient);
        ASSERT_FALSE(second);
        EXPECT_EQ(second.error().code, EBUSY);
        EXPECT_EQ(second.error().what, path + ": this process has it open already");
    }
}

// Of the other parts of the image only those matter that overlap.
TEST_F(HoldersTest, TheHolderOfAViewIsTheOneThatOverlapsIt) {
    FileDeviceOptions low, high;
    low.length = 1000;
    high.offset = 1000;
    auto own = open_file(low);
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
        [[maybe_unused]] auto device = FileDevice::open(path, high);
        [[maybe_unused]] const ssize_t told = ::write(ready[1], "x", 1);
        for (;;) pause();
    }
    char byte;
    ASSERT_EQ(::read(ready[0], &byte, 1), 1);
    auto refused = FileDevice::open(path, high);
    auto refused_by_own = FileDevice::open(path, low);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().what.find(fmt::format("process {} (", child)), std::string::npos) << refused.error().what;
    ASSERT_FALSE(refused_by_own);
    EXPECT_NE(refused_by_own.error().what.find("this process"), std::string::npos) << refused_by_own.error().what;
}

}  // namespace
}  // namespace uext4
