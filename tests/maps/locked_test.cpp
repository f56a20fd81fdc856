// What the system does to memory of its own accord as it is mapped (mlockall).
#include "mapped_image.h"

#include <sys/resource.h>

namespace uext4::test {
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

}  // namespace
}  // namespace uext4::test
