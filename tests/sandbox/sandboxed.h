// A test whose body runs in a process of its own, which nothing brings out of the sandbox again.
#pragma once

#include "tests/hostile/batches.h"
#include "tests/sandbox/ways_out.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <string>
#include <tuple>
#include <vector>

namespace uext4::sandboxed {

// The sanitizer's own thread keeps what it has, and no sandbox is to be had beside it.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UEXT4_HAS_A_THREAD_OF_A_SANITIZER 1
#endif
// A thread looks up where its stack lies, in /proc, before anything else.
#if __has_feature(address_sanitizer)
#define UEXT4_NO_THREADS_IN_A_SANDBOX 1
#endif
#endif

class Sandbox : public testing::Test {
protected:
    void SetUp() override {
#ifdef UEXT4_HAS_A_THREAD_OF_A_SANITIZER
        GTEST_SKIP() << "the thread sanitizer has a thread of its own";
#endif
        path = fmt::format("/dev/shm/uext4-sandbox-{}", ::getpid());
        const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        ASSERT_GE(fd, 0);
        ASSERT_EQ(::ftruncate(fd, 1 << 20), 0);
        ::close(fd);
        victims_name = path + "-victim";
        victim = victims_name.c_str();
        opened_before = ::open(victim, O_RDONLY | O_CREAT | O_CLOEXEC, 0644);
        ASSERT_GE(opened_before, 0);
        ::setxattr(victim, "user.there", "x", 1, 0);  // where the file system has such
        ASSERT_EQ(::stat(victim, &victims), 0);
    }
    void TearDown() override {
        if (opened_before < 0) return;
        struct stat now{};
        EXPECT_EQ(::stat(victim, &now), 0);
        EXPECT_EQ(std::tuple(now.st_mode, now.st_uid, now.st_gid, now.st_ctim.tv_sec, now.st_ctim.tv_nsec),
                  std::tuple(victims.st_mode, victims.st_uid, victims.st_gid, victims.st_ctim.tv_sec,
                             victims.st_ctim.tv_nsec));
        ::close(opened_before);
        ::unlink(victim);
        ::unlink(path.c_str());
    }
    // In a child, since nothing brings the rights back.
    static void in_child(const std::function<std::vector<std::string>()>& body) {
        std::fflush(nullptr);  // or what the test's own output holds back is the child's to write as well
        const auto failures =
            hostile::run_in_batches(1, [](std::size_t) { return "sandboxed"; }, [&](std::size_t) { return body(); });
        for (const std::string& failure : failures) ADD_FAILURE() << failure;
    }
    std::string path, victims_name;
    struct stat victims{};
};

}  // namespace uext4::sandboxed
