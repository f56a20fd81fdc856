// For tests: an image that is mounted by the C ABI, and maps of its files. What is left goes through e2fsck.
#pragma once

#include "uext4/uext4.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csetjmp>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace uext4::test {

inline std::string pattern(std::size_t size, unsigned seed) {
    std::string out(size, 0);
    for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<char>((i * 131 + seed * 977 + (i >> 9)) % 251 + 1);
    return out;
}

class MappedImage : public testing::Test {
protected:
    void make(const std::string& mke2fs, const std::string& options = "", const char* size = "64M") {
        path_ = fmt::format("/dev/shm/uext4-maps-{}", ::getpid());
        ::unlink(path_.c_str());
        ASSERT_EQ(std::system(fmt::format("mke2fs -q -F {} {} {} >/dev/null 2>&1", mke2fs, path_, size).c_str()), 0);
        mount(options);
    }
    void mount(const std::string& options = "") {
        ASSERT_EQ(uext4_mount(path_.c_str(), options.c_str(), &fs), 0) << uext4_strerror();
    }
    // Skips the test where there are no maps, with the reason that the library gives.
    bool has_maps() {
        uext4_file* file = open("/probe");
        char c = 0;
        EXPECT_EQ(uext4_pwrite(file, &c, 1, 0), 1);
        void* memory = nullptr;
        const int r = uext4_map(file, 0, 4096, PROT_READ, MAP_SHARED, &memory);
        if (r == 0) EXPECT_EQ(uext4_unmap(memory, 4096), 0);
        else reason_ = uext4_strerror();
        // The file stays: its map is let go of a moment later, and until then it would be an orphan, which e2fsck -fn
        // calls an error in a frozen image.
        uext4_close(file);
        return r == 0 || (r != -EOPNOTSUPP && r != -EPERM);
    }
    void unmount() {
        ASSERT_EQ(uext4_umount(fs), 0) << uext4_strerror();
        fs = nullptr;
        judge(path_);
    }
    static void judge(const std::string& image) {
        const std::string log = image + ".log";
        const int status = std::system(fmt::format("e2fsck -fn {} > {} 2>&1", image, log).c_str());
        if (status != 0) {
            std::string text;
            if (std::FILE* f = std::fopen(log.c_str(), "r")) {
                char buffer[4000];
                text.assign(buffer, std::fread(buffer, 1, sizeof buffer, f));
                std::fclose(f);
            }
            ADD_FAILURE() << text;
        }
        ::unlink(log.c_str());
    }
    void TearDown() override {
        if (fs && uext4_umount(fs) != 0) ADD_FAILURE() << uext4_strerror();
        ::unlink(path_.c_str());
    }

    uext4_file* open(const char* name, int flags = O_CREAT | O_RDWR) {
        uext4_file* file = nullptr;
        EXPECT_EQ(uext4_open(fs, name, flags, 0644, &file), 0) << uext4_strerror();
        return file;
    }
    void write(uext4_file* file, const std::string& bytes, off_t at = 0) {
        EXPECT_EQ(uext4_pwrite(file, bytes.data(), bytes.size(), at), static_cast<ssize_t>(bytes.size()))
            << uext4_strerror();
    }
    std::string read(uext4_file* file, std::size_t size, off_t at = 0) {
        std::string out(size, 0);
        const ssize_t n = uext4_pread(file, out.data(), size, at);
        EXPECT_GE(n, 0) << uext4_strerror();
        out.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
        return out;
    }
    char* map(uext4_file* file, std::size_t length, off_t at = 0, int prot = PROT_READ | PROT_WRITE,
              int flags = MAP_SHARED) {
        void* memory = nullptr;
        EXPECT_EQ(uext4_map(file, at, length, prot, flags, &memory), 0) << uext4_strerror();
        return static_cast<char*>(memory);
    }

    uext4_fs* fs = nullptr;
    std::string path_, reason_;
};

// The signal that `access` ends with, SIGBUS or SIGSEGV; 0 when it is made.
inline thread_local sigjmp_buf refused_at;
template <class Access>
int refused_by(Access access) {
    struct sigaction action{}, old_bus{}, old_segv{};
    action.sa_handler = [](int number) { siglongjmp(refused_at, number); };
    sigaction(SIGBUS, &action, &old_bus);
    sigaction(SIGSEGV, &action, &old_segv);
    const int met = sigsetjmp(refused_at, 1);
    if (met == 0) access();
    sigaction(SIGBUS, &old_bus, nullptr);
    sigaction(SIGSEGV, &old_segv, nullptr);
    return met;
}
template <class Access>
bool refused(Access access) {
    return refused_by(access) != 0;
}

}  // namespace uext4::test

#define NEED_MAPS() \
    if (!has_maps()) GTEST_SKIP() << reason_
