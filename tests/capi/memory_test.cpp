// A program that has no memory for what it asks gets -ENOMEM from the C interface, never an exception: each large
// allocation of a call that moves bytes fails once. Where those of a commit, a writeback or a freeze fail, the file
// system may end, and nobody waits for ever. (Where small ones fail, nothing is promised.)
#include <uext4/uext4.h>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <functional>
#include <new>
#include <string>
#include <thread>
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

// What is let go of at the end of a call that is done is no reason for it to fail.
TEST_F(Memory, UsedUpBesideACrowdOfInodes) {
    ASSERT_EQ(uext4_close(std::exchange(file, nullptr)), 0);
    ASSERT_EQ(uext4_umount(std::exchange(fs, nullptr)), 0);
    ASSERT_EQ(std::system(("mke2fs -q -F -t ext4 -b 4096 -N 20000 " + path + " 128M >/dev/null 2>&1").c_str()), 0);
    constexpr int all = 12000;
    ASSERT_EQ(uext4_mount(path.c_str(), "cache=16M,noatime", &fs), 0) << uext4_strerror();
    for (int i = 0; i < all; ++i) {
        ASSERT_EQ(uext4_open(fs, ("/c" + std::to_string(i)).c_str(), O_CREAT | O_RDWR, 0644, &file), 0);
        ASSERT_EQ(uext4_pwrite(file, "x", 1, 0), 1);
        ASSERT_EQ(uext4_close(std::exchange(file, nullptr)), 0);
    }
    ASSERT_EQ(uext4_umount(std::exchange(fs, nullptr)), 0);
    struct Crowd {
        const char* options;
        int kept;
    };
    // With folios, as many as such a cache has; or whose times wait to be stored.
    for (const auto& [options, kept] : {Crowd{"cache=16M,noatime", 4090}, Crowd{"cache=16M,strictatime", 8000}})
        for (long n = 0; n < 4; ++n) {
            ASSERT_EQ(uext4_mount(path.c_str(), options, &fs), 0) << uext4_strerror();
            for (int i = 0; i < kept; ++i) {
                char byte = 0;
                ASSERT_EQ(uext4_open(fs, ("/c" + std::to_string(i)).c_str(), O_RDONLY, 0, &file), 0);
                ASSERT_EQ(uext4_pread(file, &byte, 1, 0), 1);
                ASSERT_EQ(uext4_close(std::exchange(file, nullptr)), 0);
            }
            bool ended = false;  // by half a change
            for (int i = kept; i < all && !ended; ++i) {
                until_failure = n;
                failed = false;
                const int result = uext4_chmod(fs, ("/c" + std::to_string(i)).c_str(), 0600);
                until_failure = -1;
                ended = result == -EROFS;
                ASSERT_TRUE(ended || result == 0 || (failed && result == -ENOMEM)) << i << ": " << uext4_strerror();
            }
            ended = ended || uext4_mkdir(fs, ("/d" + std::to_string(n)).c_str(), 0755) == -EROFS;
            EXPECT_EQ(uext4_umount(std::exchange(fs, nullptr)) == 0, !ended);
            ASSERT_EQ(std::system(("e2fsck -E journal_only -y " + path + " >/dev/null 2>&1").c_str()), 0);
        }
}

// Stores through a map that a freeze has stopped go on when it fails, or are refused.
TEST_F(Memory, UsedUpByAFreezeBesideStores) {
    ASSERT_EQ(uext4_close(std::exchange(file, nullptr)), 0);
    ASSERT_EQ(uext4_umount(std::exchange(fs, nullptr)), 0);
    constexpr std::size_t pages = 16, page = 4096;
    const int zeros = ::open("/dev/zero", O_RDONLY);
    for (long n = 0; n == 0 || failed; ++n) {
        ::alarm(120);  // ends the test where something waits
        uext4_fs* whole = nullptr;
        uext4_file* one = nullptr;
        ASSERT_EQ(uext4_mount(path.c_str(), nullptr, &whole), 0) << uext4_strerror();
        ASSERT_EQ(uext4_open(whole, "/d/f", O_RDWR, 0, &one), 0);
        void* address = nullptr;
        if (uext4_map(one, 0, pages * page, PROT_READ | PROT_WRITE, MAP_SHARED, &address) != 0) {
            const std::string why = uext4_strerror();
            ::alarm(0);
            ::close(zeros);
            EXPECT_EQ(uext4_close(one), 0);
            EXPECT_EQ(uext4_umount(whole), 0);
            GTEST_SKIP() << why;
        }
        std::atomic<unsigned> stores{0};
        std::atomic<bool> over{false};
        std::thread storing([&] {
            // By the kernel, which answers EFAULT where a store is refused.
            for (unsigned i = 0; !over; ++i, ++stores)
                (void)!::read(zeros, static_cast<char*>(address) + i % pages * page, 1);
        });
        const std::string bytes(600000, static_cast<char>('a' + n % 26));
        ASSERT_EQ(uext4_pwrite(one, bytes.data(), bytes.size(), pages * page), 600000);
        failed = false;
        until_failure = n;
        const int result = uext4_freeze(whole);
        until_failure = -1;
        if (result == 0) {
            EXPECT_EQ(uext4_thaw(whole), 0);
        } else {
            EXPECT_TRUE(failed) << result;
            ++allocations;
        }
        const unsigned before = stores;
        for (int ms = 0; ms < 20000 && stores < before + 2; ++ms) ::usleep(1000);
        EXPECT_GE(stores, before + 2) << "allocation " << n << ": " << result;
        over = true;
        storing.join();
        EXPECT_EQ(uext4_unmap(address, pages * page), 0);
        (void)uext4_close(one);
        (void)uext4_umount(whole);
        ::alarm(0);
        EXPECT_EQ(std::system(("e2fsck -E journal_only -y " + path + " >/dev/null 2>&1").c_str()), 0);
    }
    ::close(zeros);
    EXPECT_GT(allocations, 0);
}

}  // namespace
