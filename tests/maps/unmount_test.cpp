// A file system is not unmounted while another thread still has to do with a map of it: one that it ends, syncs, or
// uses as a buffer of another file system's.
#include "mapped_image.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UEXT4_WATCHES_MEMORY 1
#endif
#endif

namespace uext4::test::unmount_test {
namespace {

constexpr std::size_t page = 4096;

class Unmount : public MappedImage {
protected:
    // Maps one page of the file many times, side by side.
    char* map_many(std::size_t parts) {
        uext4_file* file = open("/f");
        write(file, pattern(2 * page, 1));
        void* place = ::mmap(nullptr, parts * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        EXPECT_NE(place, MAP_FAILED);
        char* const base = static_cast<char*>(place);
        for (std::size_t p = 0; p < parts; ++p) {
            char* memory = map(file, page, static_cast<off_t>(p % 2 * page));
            void* to = base + p * page;
            EXPECT_EQ(::mremap(memory, page, page, MREMAP_MAYMOVE | MREMAP_FIXED, to), to) << strerror(errno);
        }
        base[1] = 'x';
        uext4_close(file);
        EXPECT_EQ(uext4_umount(fs), -EBUSY);
        return base;
    }
    void unmount_meanwhile(const std::function<void()>& run) {
        std::atomic<bool> started{false};
        std::thread other([&] {
            started.store(true);
            run();
        });
        while (!started.load()) std::this_thread::yield();
        int r = -EBUSY;
        while ((r = uext4_umount(fs)) == -EBUSY) std::this_thread::yield();
        EXPECT_EQ(r, 0) << uext4_strerror();
        fs = nullptr;
        other.join();
    }
};

TEST_F(Unmount, WhileMapsAreEnded) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    constexpr std::size_t parts = 1000;
    for (int lap = 0; lap < 2; ++lap) {
        char* memory = map_many(parts);
        unmount_meanwhile([&] { EXPECT_EQ(uext4_unmap(memory, parts * page), 0) << uext4_strerror(); });
        mount();
    }
}

TEST_F(Unmount, WhileMapsAreSynced) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    constexpr std::size_t parts = 100;
    for (int lap = 0; lap < 5; ++lap) {
        char* memory = map_many(parts);
        std::atomic<bool> syncs{false};
        std::thread syncing([&] {
            while (uext4_msync(memory, parts * page, MS_SYNC) == 0) syncs.store(true);
        });
        while (!syncs.load()) std::this_thread::yield();
        unmount_meanwhile([&] { EXPECT_EQ(uext4_unmap(memory, parts * page), 0) << uext4_strerror(); });
        syncing.join();
        mount();
    }
}

class UnmountBesideAnother : public Unmount {
protected:
    void SetUp() override {
        make("-t ext4 -b 4096");
        ASSERT_EQ(std::system(fmt::format("mke2fs -q -F -t ext4 -b 4096 {} 16M >/dev/null 2>&1", other_path()).c_str()),
                  0);
        ASSERT_EQ(uext4_mount(other_path().c_str(), "", &other), 0) << uext4_strerror();
        ASSERT_EQ(uext4_open(other, "/s", O_CREAT | O_RDWR, 0644, &source), 0) << uext4_strerror();
        ASSERT_EQ(uext4_pwrite(source, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    }
    void TearDown() override {
        if (source) uext4_close(source);
        EXPECT_EQ(other ? uext4_umount(other) : 0, 0) << uext4_strerror();
        ::unlink(other_path().c_str());
        Unmount::TearDown();
    }
    std::string other_path() const { return path_ + "-other"; }
    // In the place of the map.
    static void put_other_memory(char* memory) {
        EXPECT_EQ(::mmap(memory, parts * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
                  memory);
    }

    static constexpr std::size_t parts = 100;
    const std::string bytes = pattern(parts * page, 3);
    uext4_fs* other = nullptr;
    uext4_file* source = nullptr;
};

TEST_F(UnmountBesideAnother, WhileMapsAreItsBuffers) {
#ifdef UEXT4_WATCHES_MEMORY
    GTEST_SKIP() << "to the thread sanitizer, memory that takes the place of a buffer in use is a race";
#endif
    NEED_MAPS();
    for (int lap = 0; lap < 5; ++lap) {
        char* memory = map_many(parts);
        std::atomic<bool> reads{false}, ended{false};
        std::thread reading([&] {
            for (; !ended.load(); reads.store(true)) {
                const ssize_t n = uext4_pread(source, memory, parts * page, 0);
                EXPECT_TRUE(n > 0 || n == -EFAULT) << uext4_strerror();
            }
        });
        while (!reads.load()) std::this_thread::yield();
        // Other memory comes to the addresses in the same moment, as a request is on its way there.
        unmount_meanwhile([&] { put_other_memory(memory); });
        ended.store(true);
        reading.join();
        mount();
    }
}

// The map is gone, and the request still asks its file system for the page: for the right to store, which it has not
// where the program took it away, and which waits for a thaw.
TEST_F(UnmountBesideAnother, WhileABufferThatWasAMapWaits) {
#ifdef UEXT4_WATCHES_MEMORY
    GTEST_SKIP() << "to the thread sanitizer, memory that takes the place of a buffer in use is a race";
#endif
    NEED_MAPS();
    // Nothing tells that the reader waits: he is given more time each time.
    bool was_busy = false;
    for (int lap = 1; lap <= 8 && !was_busy; ++lap) {
        char* memory = map_many(parts);
        ASSERT_EQ(::mprotect(memory, parts * page, PROT_READ), 0);
        ASSERT_EQ(uext4_freeze(fs), 0) << uext4_strerror();
        std::thread reading([&] {
            EXPECT_EQ(uext4_pread(source, memory, parts * page, 0), static_cast<ssize_t>(parts * page))
                << uext4_strerror();
        });
        std::this_thread::sleep_for(std::chrono::milliseconds(10 << lap));
        put_other_memory(memory);
        const int unmounted = uext4_umount(fs);
        was_busy = unmounted == -EBUSY;
        EXPECT_TRUE(unmounted == 0 || was_busy) << uext4_strerror();
        if (unmounted != 0) {
            EXPECT_EQ(uext4_thaw(fs), 0) << uext4_strerror();
        }
        reading.join();
        if (unmounted != 0) {
            EXPECT_EQ(uext4_umount(fs), 0) << uext4_strerror();
        }
        fs = nullptr;
        EXPECT_TRUE(std::string(memory, parts * page) == bytes);
        EXPECT_EQ(::munmap(memory, parts * page), 0);
        mount();
    }
    EXPECT_TRUE(was_busy);
}

}  // namespace
}  // namespace uext4::test::unmount_test
