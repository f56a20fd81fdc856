// A program that has no memory for what it asks gets -ENOMEM from the C interface, never an exception: each large
// allocation of a call that moves bytes fails once. (Where small ones fail, or those of writeback, nothing is
// promised.)
#include <uext4/uext4.h>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <functional>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace {

constexpr std::size_t large = 4096;
// Of this thread: how many large allocations go well before one fails; negative: all do.
thread_local long until_failure = -1;
thread_local bool failed = false;

[[maybe_unused]] void* allocate(std::size_t size, std::size_t alignment) {
    if (size >= large && until_failure >= 0) {
        failed = until_failure == 0;
        --until_failure;
        if (failed) throw std::bad_alloc();
    }
    void* p =
        alignment ? std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment) : std::malloc(size);
    if (!p && size) throw std::bad_alloc();
    return p;
}

}  // namespace

// ThreadSanitizer has its own of these, and lets nobody replace them.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UEXT4_THREAD_SANITIZER 1
#endif
#endif

#ifndef UEXT4_THREAD_SANITIZER
// g++ does not see that these belong together.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
void* operator new(std::size_t size) { return allocate(size ? size : 1, 0); }
void* operator new[](std::size_t size) { return allocate(size ? size : 1, 0); }
void* operator new(std::size_t size, std::align_val_t a) { return allocate(size, static_cast<std::size_t>(a)); }
void* operator new[](std::size_t size, std::align_val_t a) { return allocate(size, static_cast<std::size_t>(a)); }
// (Those of a sanitizer would not be of the same kind as the deletes here.)
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return std::malloc(size ? size : 1); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return std::malloc(size ? size : 1); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
// (The analyzer takes gtest's results for deleted twice.)
void operator delete(void* p, std::size_t) noexcept { std::free(p); }  // NOLINT(clang-analyzer-cplusplus.NewDelete)
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
#endif

namespace {

class Memory : public testing::Test {
protected:
    void SetUp() override {
#ifdef UEXT4_THREAD_SANITIZER
        GTEST_SKIP() << "ThreadSanitizer does not let an allocation fail";
#endif
        path = "/dev/shm/uext4-capi-memory-" + std::to_string(::getpid());
        ASSERT_EQ(std::system(("mke2fs -q -F -t ext4 -b 4096 " + path + " 64M >/dev/null 2>&1").c_str()), 0);
        ASSERT_EQ(uext4_mount(path.c_str(), nullptr, &fs), 0) << uext4_strerror();
        ASSERT_EQ(uext4_mkdir(fs, "/d", 0755), 0);
        ASSERT_EQ(uext4_symlink(fs, "/d/f", "/link"), 0);
        ASSERT_EQ(uext4_open(fs, "/d/f", O_CREAT | O_RDWR, 0644, &file), 0);
        const std::string bytes(100000, 'x');
        ASSERT_EQ(uext4_pwrite(file, bytes.data(), bytes.size(), 0), 100000);
        ASSERT_EQ(uext4_fsync(file), 0);
        ASSERT_EQ(uext4_setxattr(fs, "/d/f", "user.a", "value", 5, 0), 0);
        ASSERT_EQ(uext4_syncfs(fs), 0);
    }
    void TearDown() override {
        if (file) uext4_close(file);
        if (fs) {
            EXPECT_EQ(uext4_umount(fs), 0) << uext4_strerror();
        }
        if (path.empty()) return;
        EXPECT_EQ(std::system(("e2fsck -fn " + path + " 2>&1").c_str()), 0);
        ::unlink(path.c_str());
    }
    // Until one call goes through without a failure.
    void each_allocation(const char* what, const std::function<long()>& call) {
        for (long n = 0; n < 10000; ++n) {
            failed = false;
            until_failure = n;
            const long result = call();
            until_failure = -1;
            if (!failed) {
                EXPECT_GE(result, 0) << what << ": " << uext4_strerror();
                allocations += n;
                return;
            }
            // Some go on without what they wanted the memory for.
            EXPECT_TRUE(result >= 0 || result == -ENOMEM)
                << what << ", allocation " << n << ": " << result << ", " << uext4_strerror();
        }
        ADD_FAILURE() << what << " allocates without end";
    }

    std::string path;
    uext4_fs* fs = nullptr;
    uext4_file* file = nullptr;
    long allocations = 0;
};

TEST_F(Memory, UsedUp) {
    std::vector<char> bytes(3 << 20, 'y');
    std::vector<iovec> parts;
    for (std::size_t at = 0; at < bytes.size(); at += 512 << 10) parts.push_back({bytes.data() + at, 512 << 10});
    const auto size = static_cast<ssize_t>(bytes.size());
    each_allocation("write of parts", [&] { return uext4_pwritev(file, parts.data(), 6, 0); });
    each_allocation("write", [&] { return uext4_pwrite(file, bytes.data(), bytes.size(), 5000); });
    each_allocation("read", [&] { return uext4_pread(file, bytes.data(), bytes.size(), 50); });
    each_allocation("copy", [&] { return uext4_copy_file_range(file, 0, file, 2 * size, bytes.size()); });
    ASSERT_EQ(uext4_setxattr(fs, "/d/f", "user.b", bytes.data(), 3000, 0), 0);
    each_allocation("get an attribute", [&] { return uext4_getxattr(fs, "/d/f", "user.b", bytes.data(), 5000); });
    each_allocation("list a directory", [&] {
        uext4_dir* directory = nullptr;
        const int r = uext4_opendir(fs, "/d", &directory);
        if (r < 0) return r;
        errno = 0;
        while (uext4_readdir(directory)) errno = 0;
        const int stopped = -errno;
        EXPECT_EQ(uext4_closedir(directory), 0);
        return stopped;
    });
    EXPECT_GE(allocations, 2);  // the parts put together, and the buffer of the copy
}

// Half a change never reaches the image: the file system is read-only from then on.
TEST_F(Memory, UsedUpInAChange) {
    const std::string value(3000, 'v');
    for (long n = 0;; ++n) {
        failed = false;
        until_failure = n;
        const int result = uext4_setxattr(fs, "/d/f", "user.b", value.data(), value.size(), 0);
        until_failure = -1;
        if (!failed) {
            EXPECT_EQ(result, 0) << uext4_strerror();
            EXPECT_GT(n, 0);
            return;
        }
        EXPECT_EQ(result, -ENOMEM) << uext4_strerror();
        EXPECT_EQ(uext4_mkdir(fs, "/later", 0755), -EROFS);
        EXPECT_EQ(uext4_close(std::exchange(file, nullptr)), 0);
        EXPECT_LT(uext4_umount(std::exchange(fs, nullptr)), 0);
        ASSERT_EQ(uext4_mount(path.c_str(), nullptr, &fs), 0) << uext4_strerror();
        char buffer[4000];
        EXPECT_EQ(uext4_getxattr(fs, "/d/f", "user.b", buffer, sizeof buffer), -ENODATA);
        EXPECT_EQ(uext4_getxattr(fs, "/d/f", "user.a", buffer, sizeof buffer), 5);
        ASSERT_EQ(uext4_umount(std::exchange(fs, nullptr)), 0) << uext4_strerror();
        EXPECT_EQ(std::system(("e2fsck -fn " + path + " 2>&1").c_str()), 0);
        ASSERT_EQ(uext4_mount(path.c_str(), nullptr, &fs), 0) << uext4_strerror();
        ASSERT_EQ(uext4_open(fs, "/d/f", O_RDWR, 0, &file), 0);
    }
}

// In the middle of making something durable: the file system may end, but nobody waits for it for ever, and what it
// leaves is recovered.
TEST_F(Memory, UsedUpByACommitOrAFreeze) {
    ASSERT_EQ(uext4_close(std::exchange(file, nullptr)), 0);
    ASSERT_EQ(uext4_umount(std::exchange(fs, nullptr)), 0);
    const std::function<long(uext4_file*, uext4_fs*)> calls[] = {
        [](uext4_file* f, uext4_fs*) { return uext4_fsync(f); },
        [](uext4_file*, uext4_fs* whole) { return uext4_syncfs(whole); },
        [](uext4_file*, uext4_fs* whole) { return uext4_freeze(whole); },
    };
    for (const char* mode : {"data=ordered", "data=journal"})
        for (const auto& call : calls)
            for (long n = 0;; ++n) {
                ASSERT_LT(n, 1000);
                ::alarm(120);  // ends the test where something waits
                uext4_fs* whole = nullptr;
                uext4_file* one = nullptr;
                ASSERT_EQ(uext4_mount(path.c_str(), mode, &whole), 0) << uext4_strerror();
                ASSERT_EQ(uext4_open(whole, "/d/f", O_CREAT | O_RDWR, 0644, &one), 0);
                const std::string bytes(300000, static_cast<char>('a' + n % 26));
                ASSERT_EQ(uext4_pwrite(one, bytes.data(), bytes.size(), 0), 300000);
                failed = false;
                until_failure = n;
                const long result = call(one, whole);
                until_failure = -1;
                if (!failed) {
                    EXPECT_EQ(result, 0) << uext4_strerror();
                }
                // Done, or an error; and each call that follows ends.
                if (result == 0) uext4_thaw(whole);
                (void)uext4_mkdir(whole, "/more", 0755);
                (void)uext4_rmdir(whole, "/more");
                (void)uext4_fsync(one);
                (void)uext4_close(one);
                (void)uext4_umount(whole);
                ::alarm(0);
                const std::string judge =
                    "(e2fsck -E journal_only -y " + path + "; e2fsck -fn " + path + ") >/dev/null 2>&1";
                EXPECT_EQ(std::system(judge.c_str()), 0) << mode << ", allocation " << n;
                if (!failed) break;
                ++allocations;
            }
    EXPECT_GT(allocations, 5);
}

}  // namespace
