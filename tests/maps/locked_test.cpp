// What the system does to memory of its own accord as it is mapped (mlockall), and what it forbids (RLIMIT_FSIZE,
// RLIMIT_AS).
#include "mapped_image.h"
#include "tests/process_status.h"

#include <sys/resource.h>

#include <algorithm>

namespace uext4::test::locked_test {
namespace {

constexpr std::size_t page = 4096;

char load(const char* memory) { return *static_cast<const volatile char*>(memory); }

class LockedMaps : public MappedImage {
protected:
    // Whatever is mapped from now on is filled at once. False where the system does not let this process.
    static bool lock_what_comes() {
        rlimit lockable{};
        ::getrlimit(RLIMIT_MEMLOCK, &lockable);
        if (::geteuid() != 0 && lockable.rlim_cur != RLIM_INFINITY) return false;
        return ::mlockall(MCL_FUTURE) == 0;
    }
    void TearDown() override {
        ::munlockall();
        MappedImage::TearDown();
    }
};

TEST_F(LockedMaps, AreNotFilledPastTheCache) {
    for (const char* options : {"data=ordered", "data=journal"}) {
        for (const bool cached : {false, true}) {
            SCOPED_TRACE(fmt::format("{}, {}", options, cached ? "cached" : "not cached"));
            make("-t ext4 -b 4096", options);
            NEED_MAPS();
            uext4_file* file = open("/f");
            write(file, std::string(64 * page, 'a'));
            ASSERT_EQ(uext4_fsync(file), 0);
            if (!cached) {
                uext4_close(file);
                unmount();
                mount(options);
                file = open("/f", O_RDWR);
            }
            // A file's first map gives up what is cached of it.
            char* first = map(file, page);
            if (cached) {
                EXPECT_EQ(read(file, 64 * page), std::string(64 * page, 'a'));
            }
            if (!lock_what_comes()) GTEST_SKIP() << "memory cannot be locked";
            char* memory = map(file, 64 * page);
            char* own = map(file, 64 * page, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE);
            ::munlockall();
            int differing = 0;
            for (std::size_t p = 0; p < 64; ++p)
                differing += load(memory + p * page) != 'a' || load(own + p * page) != 'a';
            EXPECT_EQ(differing, 0);
            EXPECT_EQ(read(file, 1, 5 * page), "a");
            memory[7 * page] = 'S';
            own[8 * page] = 'P';
            EXPECT_EQ(uext4_msync(memory, 64 * page, MS_SYNC), 0);
            EXPECT_EQ(read(file, 1, 7 * page), "S");
            memory[7 * page] = 'T';
            ASSERT_EQ(uext4_ftruncate(file, 20 * page), 0);
            EXPECT_TRUE(refused([&] { memory[30 * page] = 'z'; }));
            EXPECT_EQ(uext4_unmap(memory, 64 * page), 0);
            EXPECT_EQ(uext4_unmap(own, 64 * page), 0);
            EXPECT_EQ(uext4_unmap(first, page), 0);
            uext4_close(file);
            unmount();
            mount(options);
            file = open("/f", O_RDONLY);
            EXPECT_EQ(read(file, 2, 7 * page - 1), "aT");
            EXPECT_EQ(read(file, 1, 8 * page), "a");
            uext4_close(file);
            unmount();
        }
    }
}

// What is mapped of a large file's memory, to read a byte, is large as well.
TEST_F(LockedMaps, ReadNoMoreOfALargeFileThanIsAskedFor) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    uext4_file* file = open("/f");
    ASSERT_EQ(uext4_ftruncate(file, off_t{1} << 40), 0);
    if (!lock_what_comes()) GTEST_SKIP() << "memory cannot be locked";
    char* memory = map(file, page);
    const std::size_t before = status_kib("RssShmem:");
    EXPECT_EQ(read(file, 1, off_t{1} << 39), std::string(1, 0));
    EXPECT_LT(status_kib("RssShmem:"), before + 1024);
    ::munlockall();
    EXPECT_EQ(uext4_unmap(memory, page), 0);
    uext4_close(file);
    unmount();
}

// The kernel fills what a locked map grows by before it tells where the map has gone.
TEST_F(LockedMaps, Grow) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    uext4_file* file = open("/f");
    write(file, std::string(64 * page, 'a'));
    if (!lock_what_comes()) GTEST_SKIP() << "memory cannot be locked";
    char* memory = map(file, 16 * page);
    memory[page] = 'b';
    void* place = ::mmap(nullptr, 32 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(place, MAP_FAILED);
    ::alarm(60);
    void* longer = ::mremap(memory, 16 * page, 32 * page, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    ::alarm(0);
    ASSERT_NE(longer, MAP_FAILED) << strerror(errno);
    memory = static_cast<char*>(longer);
    EXPECT_EQ(load(memory + page), 'b');
    EXPECT_EQ(load(memory + 30 * page), 'a');
    memory[30 * page] = 'c';
    EXPECT_EQ(read(file, 1, 30 * page), "c");
    EXPECT_EQ(uext4_unmap(memory, 32 * page), 0);
    uext4_close(file);
}

class FewAddresses : public MappedImage {
protected:
    static void limit(rlim_t bytes) {
        rlimit limits{};
        ASSERT_EQ(::getrlimit(RLIMIT_AS, &limits), 0);
        limits.rlim_cur = std::min(bytes, limits.rlim_max);
        ASSERT_EQ(::setrlimit(RLIMIT_AS, &limits), 0);
    }
    void TearDown() override {
        limit(RLIM_INFINITY);
        MappedImage::TearDown();
    }
};

TEST_F(FewAddresses, AreEnoughForALargeFile) {
    const std::size_t taken = status_kib("VmSize:") << 10, more = std::size_t{4} << 30;
    if (taken > more) GTEST_SKIP() << "the program has " << (taken >> 30) << " GiB of addresses already";
    make("-t ext4 -b 4096");
    NEED_MAPS();
    uext4_file* file = open("/f");
    ASSERT_EQ(uext4_ftruncate(file, off_t{8} << 40), 0);
    limit(taken + more);
    char* memory = map(file, page);
    for (off_t at = 0; at < off_t{8} << 40; at += off_t{1} << 40)
        EXPECT_EQ(read(file, 1, at + 5), std::string(1, 0)) << at;
    EXPECT_EQ(uext4_pwrite(file, "x", 1, off_t{7} << 40), 1) << uext4_strerror();
    EXPECT_EQ(uext4_unmap(memory, page), 0);
    uext4_close(file);
    unmount();
}

// The memory behind the maps counts as a file to the system; its limit is no reason to end the process, in whichever
// thread it is met.
class LimitedMaps : public MappedImage {
protected:
    static void limit(rlim_t bytes) {
        rlimit limits{};
        ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limits), 0);
        limits.rlim_cur = bytes;
        ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limits), 0);
    }
    void TearDown() override {
        rlimit limits{};
        ::getrlimit(RLIMIT_FSIZE, &limits);
        limits.rlim_cur = limits.rlim_max;
        ::setrlimit(RLIMIT_FSIZE, &limits);
        MappedImage::TearDown();
    }
    static constexpr off_t limit_at = off_t{96} << 20;
};

TEST_F(LimitedMaps, ReachAsFarAsTheLimit) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    uext4_file* file = open("/big");
    ASSERT_EQ(uext4_ftruncate(file, off_t{1} << 30), 0);
    limit(limit_at);
    char* memory = map(file, 16 * page);
    EXPECT_FALSE(refused([&] { memory[page] = 's'; }));
    EXPECT_EQ(read(file, 1, page), "s");
    char* last = map(file, 16 * page, limit_at - 16 * page);
    EXPECT_FALSE(refused([&] { last[15 * page] = 'l'; }));
    void* beyond = nullptr;
    EXPECT_EQ(uext4_map(file, limit_at - page, 2 * page, PROT_READ, MAP_SHARED, &beyond), -EFBIG);
    EXPECT_NE(std::string(uext4_strerror()).find("RLIMIT_FSIZE"), std::string::npos) << uext4_strerror();
    EXPECT_EQ(uext4_pwrite(file, "x", 1, limit_at), -EFBIG) << "a mapped file's folio has no memory there";
    sigset_t pending;
    ASSERT_EQ(::sigpending(&pending), 0);
    EXPECT_FALSE(sigismember(&pending, SIGXFSZ));
    // The limit lifted, it is as if it had not been.
    limit(RLIM_INFINITY);
    EXPECT_EQ(uext4_map(file, limit_at - page, 2 * page, PROT_READ | PROT_WRITE, MAP_SHARED, &beyond), 0);
    EXPECT_FALSE(refused([&] { static_cast<char*>(beyond)[page] = 'y'; }));
    EXPECT_EQ(read(file, 1, limit_at), "y");
    EXPECT_EQ(uext4_unmap(beyond, 2 * page), 0);
    EXPECT_EQ(uext4_unmap(memory, 16 * page), 0);
    EXPECT_EQ(uext4_unmap(last, 16 * page), 0);
    uext4_close(file);
    unmount();
}

// A signal of the limit's that the program has kept for itself stays its own.
TEST_F(LimitedMaps, LeaveTheProgramsSignals) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    uext4_file* file = open("/big");
    ASSERT_EQ(uext4_ftruncate(file, page), 0);
    char* memory = map(file, page);
    sigset_t one, before, pending;
    sigemptyset(&one);
    sigaddset(&one, SIGXFSZ);
    ASSERT_EQ(::pthread_sigmask(SIG_BLOCK, &one, &before), 0);
    ASSERT_EQ(::pthread_kill(::pthread_self(), SIGXFSZ), 0);
    limit(limit_at);
    EXPECT_EQ(uext4_ftruncate(file, off_t{1} << 30), 0);
    ASSERT_EQ(::sigpending(&pending), 0);
    EXPECT_TRUE(sigismember(&pending, SIGXFSZ));
    int taken = 0;
    EXPECT_EQ(::sigwait(&one, &taken), 0);
    EXPECT_EQ(uext4_ftruncate(file, (off_t{1} << 30) + off_t{1}), 0);
    ASSERT_EQ(::sigpending(&pending), 0);
    EXPECT_FALSE(sigismember(&pending, SIGXFSZ));
    ASSERT_EQ(::pthread_sigmask(SIG_SETMASK, &before, nullptr), 0);
    EXPECT_EQ(uext4_unmap(memory, page), 0);
    uext4_close(file);
    limit(RLIM_INFINITY);
    unmount();
}

}  // namespace
}  // namespace uext4::test::locked_test
