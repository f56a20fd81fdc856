// The addresses of maps are the program's: it leaves, divides, lengthens and moves maps, and gives the addresses other
// use.
#include "mapped_image.h"
#include "tests/process_status.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

namespace uext4::test::addresses_test {
namespace {

constexpr std::size_t page = 4096;

// The image behind a device that can be slow, or fail.
class Addresses : public MappedImage {
protected:
    void TearDown() override {
        MappedImage::TearDown();
        if (fd_ >= 0) ::close(fd_);
    }
    void mount_slowly(const std::string& options = "") {
        if (fs) {
            ASSERT_EQ(uext4_umount(fs), 0) << uext4_strerror();
        }
        if (fd_ < 0) fd_ = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
        struct stat info{};
        ASSERT_EQ(::fstat(fd_, &info), 0);
        device_ = {};
        device_.context = this;
        device_.size = static_cast<std::uint64_t>(info.st_size);
        device_.read = [](void* context, void* buffer, std::size_t n, std::uint64_t at) {
            auto* self = static_cast<Addresses*>(context);
            if (const int wait = self->wait_ms.load()) std::this_thread::sleep_for(std::chrono::milliseconds(wait));
            return ::pread(self->fd_, buffer, n, static_cast<off_t>(at)) == static_cast<ssize_t>(n) ? 0 : -EIO;
        };
        device_.write = [](void* context, const void* buffer, std::size_t n, std::uint64_t at) {
            auto* self = static_cast<Addresses*>(context);
            if (self->broken) return -EIO;
            return ::pwrite(self->fd_, buffer, n, static_cast<off_t>(at)) == static_cast<ssize_t>(n) ? 0 : -EIO;
        };
        device_.flush = [](void*) { return 0; };
        ASSERT_EQ(uext4_mount_device(&device_, options.c_str(), &fs), 0) << uext4_strerror();
    }
    // A system call that reads into memory: what it returned, or its errno as a negative number.
    static long read_into(char* memory) {
        int ends[2];
        EXPECT_EQ(::pipe(ends), 0);
        EXPECT_EQ(::write(ends[1], "abc", 3), 3);
        const long got = ::read(ends[0], memory, 3);
        const long answer = got < 0 ? -errno : got;
        ::close(ends[0]);
        ::close(ends[1]);
        return answer;
    }

    std::atomic<int> wait_ms{0};
    std::atomic<bool> broken{false};
    uext4_device device_{};
    int fd_ = -1;
};

sigjmp_buf left_at;

// An access that a signal ends is answered all the same, when nobody waits for it any more. By then the address may be
// that of another map, whose stores must be seen.
TEST_F(Addresses, ALateAnswerMeetsNoOtherMap) {
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
    GTEST_SKIP() << "the thread sanitizer keeps signals until the access has ended";
#endif
#endif
    make("-t ext4 -b 4096");
    NEED_MAPS();
    for (const char* name : {"/late", "/other"}) {
        uext4_file* file = open(name);
        write(file, std::string(16 * page, 'A'));
        uext4_close(file);
    }
    mount_slowly("noatime");
    uext4_file* late = open("/late", O_RDWR);
    uext4_file* other = open("/other", O_RDWR);
    char* seen = map(other, 16 * page);
    EXPECT_EQ(*static_cast<volatile char*>(seen + page), 'A');
    char* memory = map(late, 16 * page, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    struct sigaction leave{}, before{};
    leave.sa_handler = [](int) { siglongjmp(left_at, 1); };
    ASSERT_EQ(::sigaction(SIGALRM, &leave, &before), 0);
    wait_ms = 400;
    volatile bool was_left = true;
    if (sigsetjmp(left_at, 1) == 0) {
        ::ualarm(100'000, 0);
        (void)*static_cast<volatile char*>(memory + page);
        was_left = false;
    }
    ::sigaction(SIGALRM, &before, nullptr);
    ASSERT_TRUE(was_left) << "the load ended before the signal";
    ASSERT_EQ(uext4_unmap(memory, 16 * page), 0);
    char* again = map(other, 16 * page);
    ASSERT_EQ(again, memory) << "the address was not given out again";
    std::this_thread::sleep_for(std::chrono::milliseconds(800));
    wait_ms = 0;
    again[page] = 'N';
    EXPECT_EQ(uext4_msync(again, 16 * page, MS_SYNC), 0);
    EXPECT_EQ(uext4_unmap(again, 16 * page), 0);
    EXPECT_EQ(uext4_unmap(seen, 16 * page), 0);
    uext4_close(late);
    uext4_close(other);
    mount_slowly();
    other = open("/other", O_RDONLY);
    EXPECT_EQ(read(other, 2, page - 1), "AN");
    uext4_close(other);
    unmount();
}

// A refused system call takes a page's rights away for a moment. What lies there afterwards may be somebody else's.
TEST_F(Addresses, MemoryOfOthersKeepsItsRights) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    uext4_file* file = open("/f");
    ASSERT_EQ(uext4_ftruncate(file, 16 * page), 0);
    char* memory = map(file, 16 * page);
    unsigned flags = 0;
    ASSERT_EQ(uext4_fgetflags(file, &flags), 0);
    ASSERT_EQ(uext4_fsetflags(file, flags | FS_IMMUTABLE_FL), 0);
    ASSERT_EQ(read_into(memory + 5 * page), -EFAULT);
    ASSERT_EQ(uext4_unmap(memory, 16 * page), 0);
    void* mine = ::mmap(memory, 16 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    ASSERT_EQ(mine, memory) << strerror(errno);
    EXPECT_TRUE(refused([&] { memory[5 * page] = 1; }));
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    EXPECT_TRUE(refused([&] { memory[5 * page] = 1; }));
    ::munmap(mine, 16 * page);

    // Rights that the program has set are those that come back.
    memory = map(file, 16 * page);
    ASSERT_EQ(::mprotect(memory + 4 * page, 2 * page, PROT_READ), 0);
    ASSERT_EQ(uext4_fsetflags(file, flags), 0);
    ASSERT_EQ(uext4_ftruncate(file, 2 * page), 0);
    ASSERT_EQ(uext4_fsetflags(file, flags | FS_IMMUTABLE_FL), 0);
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    EXPECT_EQ(::write(ends[1], memory + 5 * page, 1), -1);  // past the end
    ::close(ends[0]);
    ::close(ends[1]);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    ASSERT_EQ(uext4_fsetflags(file, flags), 0);
    ASSERT_EQ(uext4_ftruncate(file, 16 * page), 0);
    EXPECT_TRUE(refused([&] { memory[5 * page] = 1; }));
    memory[6 * page] = 1;
    EXPECT_EQ(uext4_unmap(memory, 16 * page), 0);
    uext4_close(file);
    unmount();
}

// The pages of a large folio are shown at once, also where the program has divided their map.
TEST_F(Addresses, ADividedMapShowsItsPages) {
    make("-t ext4 -b 65536", "", "512M");
    NEED_MAPS();
    uext4_file* file = open("/f");
    ASSERT_EQ(uext4_ftruncate(file, 10'000), 0);
    char* memory = map(file, 32 * page);
    // A refusal divides it for a moment.
    ASSERT_EQ(read_into(memory + 5 * page), -EFAULT);
    ASSERT_EQ(uext4_ftruncate(file, 60'000), 0);
    EXPECT_FALSE(refused([&] { (void)*static_cast<volatile char*>(memory + page); }));
    EXPECT_FALSE(refused([&] { memory[6 * page] = 1; }));
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    // The program divides it for good; stores of all parts are seen, again and again.
    ASSERT_EQ(::mprotect(memory + 3 * page, page, PROT_READ), 0);
    for (char value = 'a'; value < 'd'; ++value) {
        for (std::size_t p = 0; p < 14; ++p) {
            EXPECT_EQ(refused([&] { memory[p * page + 9] = value; }), p == 3) << p;
        }
        ASSERT_EQ(uext4_fsync(file), 0);
        EXPECT_EQ(read(file, 1, 13 * page + 9), std::string(1, value));
    }
    EXPECT_EQ(uext4_unmap(memory, 32 * page), 0);
    uext4_close(file);
    unmount();
    mount();
    file = open("/f", O_RDONLY);
    for (std::size_t p = 0; p < 14; ++p)
        EXPECT_EQ(read(file, 1, static_cast<off_t>(p * page + 9)), p == 3 ? std::string(1, 0) : "c") << p;
    uext4_close(file);
    unmount();
}

// mremap(2) tells of a map that moves, and not of one that becomes longer.
TEST_F(Addresses, AMapBecomesLonger) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    uext4_file* file = open("/f");
    write(file, std::string(64 * page, 'a'));
    for (const bool moves : {false, true}) {
        char* memory = map(file, 64 * page);
        ASSERT_EQ(::munmap(memory + 16 * page, 48 * page), 0);
        memory[0] = 'b';
        int flags = 0;
        void* place = nullptr;
        if (moves) {
            flags = MREMAP_MAYMOVE | MREMAP_FIXED;
            place = ::mmap(nullptr, 64 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            ASSERT_NE(place, MAP_FAILED);
        }
        void* longer = ::mremap(memory, 16 * page, 32 * page, flags, place);
        ASSERT_NE(longer, MAP_FAILED) << strerror(errno);
        memory = static_cast<char*>(longer);
        ::alarm(60);  // rather than an access without an end
        EXPECT_EQ(*static_cast<volatile char*>(memory + 20 * page), 'a');
        const char mark = moves ? 'm' : 'n';
        memory[30 * page] = mark;
        memory[page] = mark;
        EXPECT_EQ(read(file, 1, 30 * page), std::string(1, mark));
        ASSERT_EQ(uext4_fsync(file), 0);
        memory[30 * page] = 'z';
        ::alarm(0);
        ASSERT_EQ(uext4_fsync(file), 0);
        EXPECT_EQ(read(file, 1, 30 * page), "z");
        EXPECT_EQ(uext4_unmap(memory, 32 * page), 0);
        if (moves) ::munmap(static_cast<char*>(place) + 32 * page, 32 * page);
    }
    uext4_close(file);
    unmount();
}

std::size_t page_tables() {
    const std::size_t kib = status_kib("VmPTE:");
    EXPECT_GT(kib, 0U) << "no VmPTE";
    return kib;
}

// What stores left behind an abort will not become durable, and msync says so, as fsync does.
TEST_F(Addresses, NothingIsSyncedAfterAnAbort) {
    for (const char* options : {"errors=remount-ro", "errors=remount-ro,data=journal"}) {
        make("-t ext4 -b 4096");
        NEED_MAPS();
        mount_slowly(options);
        uext4_file* file = open("/f");
        uext4_file* other = open("/g");
        write(file, std::string(4 * page, 'A'));
        ASSERT_EQ(uext4_fsync(file), 0);
        char* memory = map(file, 4 * page);
        memory[0] = 'B';
        EXPECT_EQ(uext4_msync(memory, page, MS_SYNC), 0);
        memory[0] = 'C';
        uext4_file* sparse = open("/sparse");
        constexpr std::size_t far = std::size_t{8} << 30;
        ASSERT_EQ(uext4_ftruncate(sparse, far), 0);
        char* wide = map(sparse, far);
        wide[0] = 'w';
        const std::size_t tables = page_tables();
        broken = true;
        write(other, "x");
        EXPECT_LT(uext4_fsync(other), 0);
        EXPECT_LT(uext4_syncfs(fs), 0);
        ASSERT_EQ(uext4_mkdir(fs, "/d", 0755), -EROFS);
        EXPECT_EQ(uext4_fsync(file), -EROFS);
        EXPECT_EQ(uext4_msync(memory, page, MS_SYNC), -EROFS);
        // Also where stores went through without being asked about.
        bool ended = false;
        for (int i = 0; i < 1000 && !ended; ++i) {
            ended = refused([&] { const_cast<volatile char*>(memory)[0] = 'D'; });
            if (!ended) ::usleep(10'000);
        }
        EXPECT_TRUE(ended) << "stores go on";
        EXPECT_TRUE(refused([&] { const_cast<volatile char*>(memory)[page] = 'D'; }));
        EXPECT_TRUE(refused([&] { const_cast<volatile char*>(wide)[far / 2] = 'D'; }));
        EXPECT_LT(page_tables(), tables + 4096) << "KiB";
        EXPECT_EQ(uext4_unmap(wide, far), 0);
        uext4_close(sparse);
        EXPECT_EQ(const_cast<volatile char*>(memory)[page], 'A');
        EXPECT_EQ(uext4_unmap(memory, 4 * page), 0);
        uext4_close(file);
        uext4_close(other);
        (void)uext4_umount(fs);  // says what was lost
        fs = nullptr;
        broken = false;
        ::close(std::exchange(fd_, -1));
    }
}

TEST_F(Addresses, AMappedFileIsMappedAgainWhileFrozen) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    uext4_file* file = open("/f");
    write(file, std::string(page, 'a'));
    char* first = map(file, page);
    ASSERT_EQ(uext4_freeze(fs), 0);
    char* second = map(file, page, 0, PROT_READ);
    EXPECT_EQ(*static_cast<volatile char*>(second), 'a');
    EXPECT_EQ(uext4_unmap(second, page), 0);
    ASSERT_EQ(uext4_thaw(fs), 0);
    EXPECT_EQ(uext4_unmap(first, page), 0);
    uext4_close(file);
    unmount();
}

}  // namespace
}  // namespace uext4::test::addresses_test
