// What a map has become longer by is found where the process has no descriptor left to look with.
#include "mapped_image.h"

#include <sys/resource.h>
#include <sys/wait.h>

#include <utility>

namespace uext4::test::descriptors_test {
namespace {

constexpr std::size_t page = 4096, file_pages = 16;

char load(const char* memory) { return *static_cast<const volatile char*>(memory); }

class NoDescriptors : public MappedImage {
protected:
    void begin() {
        make("-t ext4 -b 4096");
        if (HasFatalFailure()) return;
        file = open("/f");
        std::string letters;
        for (std::size_t p = 0; p < file_pages; ++p) letters.append(page, static_cast<char>('a' + p));
        write(file, letters);
    }
    void take_all() {
        ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before_), 0);
        rlimit less = before_;
        less.rlim_cur = 256;
        ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &less), 0);
        for (int fd = 0; (fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) taken_.push_back(fd);
        ASSERT_EQ(errno, EMFILE);
    }
    void give_back() {
        for (const int fd : taken_) ::close(fd);
        if (!std::exchange(taken_, {}).empty()) ::setrlimit(RLIMIT_NOFILE, &before_);
    }
    char* grow(char* memory, std::size_t pages, std::size_t to) {
        void* longer = ::mremap(memory, pages * page, to * page, MREMAP_MAYMOVE);
        EXPECT_NE(longer, MAP_FAILED);
        return static_cast<char*>(longer);
    }
    void TearDown() override {
        give_back();
        if (file) uext4_close(file);
        MappedImage::TearDown();
    }

    uext4_file* file = nullptr;
    std::vector<int> taken_;
    rlimit before_{};
};

TEST_F(NoDescriptors, GrowthIsLoaded) {
    begin();
    NEED_MAPS();
    char* memory = map(file, 4 * page);
    take_all();
    memory = grow(memory, 4, 8);
    char seen = 0;
    EXPECT_FALSE(refused([&] { seen = load(memory + 5 * page); }));
    EXPECT_EQ(seen, 'f');
    EXPECT_EQ(uext4_unmap(memory, 8 * page), 0) << uext4_strerror();
}

TEST_F(NoDescriptors, GrowthIsABuffer) {
    begin();
    NEED_MAPS();
    char* memory = map(file, 4 * page);
    take_all();
    memory = grow(memory, 4, 8);
    // The library's own buffer, which it goes through, has a descriptor.
    ::close(taken_.back());
    taken_.pop_back();
    EXPECT_EQ(uext4_pread(file, memory + 5 * page, page, 0), static_cast<ssize_t>(page)) << uext4_strerror();
    EXPECT_EQ(read(file, 1, 5 * page), "a");
    EXPECT_EQ(uext4_unmap(memory, 8 * page), 0) << uext4_strerror();
}

TEST_F(NoDescriptors, WhatAMoveLeavesIsLoaded) {
    begin();
    NEED_MAPS();
    char* memory = map(file, 4 * page);
    take_all();
    void* moved = ::mremap(memory, 4 * page, 4 * page, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, nullptr);
    if (moved == MAP_FAILED) GTEST_SKIP() << "no MREMAP_DONTUNMAP of a shared map";
    char seen = 0;
    for (char* half : {memory, static_cast<char*>(moved)}) {
        EXPECT_FALSE(refused([&] { seen = load(half + 3 * page); }));
        EXPECT_EQ(seen, 'd');
        EXPECT_EQ(uext4_unmap(half, 4 * page), 0) << uext4_strerror();
    }
}

TEST_F(NoDescriptors, GrowthThatIsLeftKeepsItsFile) {
    begin();
    NEED_MAPS();
    char* memory = map(file, 4 * page);
    take_all();
    memory = grow(memory, 4, 8);
    ASSERT_EQ(::munmap(memory, 4 * page), 0);
    EXPECT_EQ(uext4_unlink(fs, "/none"), -ENOENT);
    uext4_close(std::exchange(file, nullptr));
    ASSERT_EQ(uext4_umount(fs), -EBUSY);
    give_back();
    char seen = 0;
    EXPECT_FALSE(refused([&] { seen = load(memory + 5 * page); }));
    EXPECT_EQ(seen, 'f');
    EXPECT_FALSE(refused([&] { memory[6 * page] = 'S'; }));
    file = open("/f");
    EXPECT_EQ(read(file, 1, 6 * page), "S");
    EXPECT_EQ(uext4_unmap(memory + 4 * page, 4 * page), 0) << uext4_strerror();
}

// A program that closes all that is open, as a daemon does, and opens files of its own: twice.
int live_twice(const char* image) {
    for (int life = 0; life < 2; ++life) {
        for (const bool by_library : {true, false}) {
            uext4_fs* mounted = nullptr;
            uext4_file* opened = nullptr;
            if (uext4_mount(image, "", &mounted) != 0 || uext4_open(mounted, "/f", O_RDWR, 0, &opened) != 0) return 1;
            void* memory = nullptr;
            const int mapped = uext4_map(opened, 0, 8 * page, PROT_READ | PROT_WRITE, MAP_SHARED, &memory);
            if (mapped != 0) return mapped == -EPERM || mapped == -EOPNOTSUPP ? 77 : 2;
            static_cast<volatile char*>(memory)[1] = 'z';
            if (by_library ? uext4_unmap(memory, 8 * page) != 0 : ::munmap(memory, 8 * page) != 0) return 3;
            if (uext4_close(opened) != 0 || uext4_umount(mounted) != 0) return 4;
        }
        ::close_range(3, ~0u, 0);
        for (int n = 0; n < 40; ++n)
            if (::open("/etc/passwd", O_RDONLY | O_CLOEXEC) < 0) return 5;
    }
    return 0;
}

TEST_F(NoDescriptors, AreClosedByTheProgram) {
    begin();
    NEED_MAPS();
    uext4_close(std::exchange(file, nullptr));
    unmount();
    const pid_t child = ::fork();
    if (child == 0) ::_exit(live_twice(path_.c_str()));
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "no maps in a child";
    EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace uext4::test::descriptors_test
