// The C interface, as other software links it: the shared library and its header alone.
#include <uext4/uext4.h>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <future>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <utility>

namespace {

class CInterface : public testing::Test {
protected:
    void SetUp() override {
        path = "/dev/shm/uext4-capi-" + std::to_string(::getpid());
        ASSERT_EQ(std::system(("mke2fs -q -F -t ext4 -b 4096 " + path + " 64M >/dev/null 2>&1").c_str()), 0);
        ASSERT_EQ(uext4_mount(path.c_str(), nullptr, &fs), 0) << uext4_strerror();
    }
    void TearDown() override {
        if (fs) {
            EXPECT_EQ(uext4_umount(fs), 0) << uext4_strerror();
            EXPECT_EQ(std::system(("e2fsck -fn " + path + " >/dev/null 2>&1").c_str()), 0);
        }
        ::unlink(path.c_str());
    }
    std::string path;
    uext4_fs* fs = nullptr;
};

TEST_F(CInterface, FilesAndErrors) {
    uext4_file* file = nullptr;
    EXPECT_EQ(uext4_open(fs, "/none", O_RDONLY, 0, &file), -ENOENT);
    EXPECT_NE(std::string(uext4_strerror()).find("none"), std::string::npos);
    ASSERT_EQ(uext4_open(fs, "/f", O_CREAT | O_RDWR | O_EXCL, 0640, &file), 0) << uext4_strerror();
    EXPECT_EQ(uext4_pwrite(file, "hello", 5, 100), 5);
    char buffer[16] = {};
    EXPECT_EQ(uext4_pread(file, buffer, sizeof buffer, 100), 5);
    EXPECT_STREQ(buffer, "hello");
    EXPECT_EQ(uext4_fsync(file), 0);
    EXPECT_EQ(uext4_fallocate(file, 0, 0, 1 << 20), 0);
    EXPECT_EQ(uext4_lseek(file, 0, SEEK_END), 1 << 20);
    EXPECT_EQ(uext4_ftruncate(file, 103), 0);
    struct stat st{};
    EXPECT_EQ(uext4_fstat(file, &st), 0);
    EXPECT_EQ(st.st_size, 103);
    EXPECT_EQ(st.st_mode & 07777, 0640u);
    const iovec parts[2] = {{const_cast<char*>("ab"), 2}, {const_cast<char*>("cd"), 2}};
    EXPECT_EQ(uext4_pwritev(file, parts, 2, 0), 4);
    EXPECT_EQ(uext4_fsetxattr(file, "user.x", "v", 1, 0), 0);
    EXPECT_EQ(uext4_fgetxattr(file, "user.x", nullptr, 0), 1);
    EXPECT_EQ(uext4_fgetxattr(file, "user.y", nullptr, 0), -ENODATA);
    EXPECT_EQ(uext4_umount(fs), -EBUSY);
    EXPECT_EQ(uext4_close(file), 0);
    EXPECT_EQ(uext4_open(fs, "/f", O_PATH, 0, &file), -EINVAL);
    EXPECT_EQ(uext4_open(fs, "/", O_RDONLY | O_DIRECT, 0, &file), -EINVAL);
}

// Lengths that no memory has are refused or cut, as by the system calls.
TEST_F(CInterface, AbsurdLengths) {
    uext4_file* file = nullptr;
    ASSERT_EQ(uext4_open(fs, "/f", O_CREAT | O_RDWR, 0644, &file), 0);
    char bytes[16] = "0123456789";
    ASSERT_EQ(uext4_pwrite(file, bytes, 10, 0), 10);
    const std::size_t all = SIZE_MAX, half = SSIZE_MAX;
    const auto vector = [&](std::size_t a, std::size_t b) { return std::array<iovec, 2>{{{bytes, a}, {bytes, b}}}; };
    for (const auto& parts : {vector(all, 5), vector(5, all), vector(all, all), vector(half, half), vector(half, 1),
                              vector(half + 1, 0), vector(0, half + 1)}) {
        EXPECT_EQ(uext4_pwritev(file, parts.data(), 2, 0), -EINVAL) << parts[0].iov_len << " " << parts[1].iov_len;
        EXPECT_EQ(uext4_preadv(file, parts.data(), 2, 0), -EINVAL) << parts[0].iov_len << " " << parts[1].iov_len;
    }
    for (const std::size_t length : {all, half + 1, all - 4095}) {
        EXPECT_EQ(uext4_pwrite(file, bytes, length, 0), -EINVAL) << length;
        EXPECT_EQ(uext4_pread(file, bytes, length, 0), -EINVAL) << length;
    }
    EXPECT_EQ(uext4_copy_file_range(file, 1, file, 100, all), -EOVERFLOW);
    EXPECT_EQ(uext4_copy_file_range(file, -1, file, 100, 10), -EOVERFLOW);
    EXPECT_EQ(uext4_copy_file_range(file, 1, file, -1, 10), -EOVERFLOW);
    EXPECT_EQ(uext4_copy_file_range(file, -1, file, 100, 0), -EINVAL);
    EXPECT_EQ(uext4_copy_file_range(file, 1, file, -5, 1), -EINVAL);
    EXPECT_EQ(uext4_copy_file_range(file, 1, file, 100, half + 1), 9);
    EXPECT_EQ(uext4_pread(file, bytes, 10, INT64_MAX - 5), -EINVAL);
    EXPECT_EQ(uext4_pwrite(file, bytes, 10, INT64_MAX - 5), -EINVAL);
    EXPECT_EQ(uext4_pwrite(file, bytes, 10, INT64_MAX - 10), -EFBIG);
    EXPECT_EQ(uext4_pwrite(file, bytes, 10, -1), -EINVAL);
    const auto parts = vector(2, 3);
    EXPECT_EQ(uext4_pwritev(file, parts.data(), IOV_MAX + 1, 0), -EINVAL);
    EXPECT_EQ(uext4_pwritev(file, parts.data(), -1, 0), -EINVAL);
    EXPECT_EQ(uext4_pwritev(file, parts.data(), 0, 0), 0);
    EXPECT_EQ(uext4_preadv(file, parts.data(), 2, INT64_MAX - 3), -EINVAL);
    EXPECT_EQ(uext4_ftruncate(file, INT64_MAX), -EFBIG);
    EXPECT_EQ(uext4_fallocate(file, 0, INT64_MAX - 5, 10), -EFBIG);
    EXPECT_EQ(uext4_fallocate(file, 0, 0, INT64_MAX), -EFBIG);
    EXPECT_EQ(uext4_fsetxattr(file, "user.a", bytes, all, 0), -E2BIG);
    EXPECT_EQ(uext4_lseek(file, INT64_MIN, SEEK_END), -EINVAL);
    // As far as the file may reach: 2^32 - 1 blocks.
    constexpr off_t largest = off_t{0xFFFFFFFF} * 4096;
    EXPECT_EQ(uext4_lseek(file, largest, SEEK_SET), largest);
    for (const off_t beyond : {largest + 1, off_t{INT64_MAX}})
        EXPECT_EQ(uext4_lseek(file, beyond, SEEK_SET), -EINVAL) << beyond;
    EXPECT_EQ(uext4_lseek(file, largest, SEEK_END), -EINVAL);
    EXPECT_EQ(uext4_lseek(file, INT64_MAX, SEEK_END), -EINVAL);
    EXPECT_EQ(uext4_lseek(file, -1, SEEK_SET), -EINVAL);
    EXPECT_EQ(uext4_lseek(file, INT64_MAX, SEEK_DATA), -ENXIO);
    void* address = nullptr;
    for (const std::size_t length : {all, half, std::size_t{1} << 62})
        EXPECT_LT(uext4_map(file, 0, length, PROT_READ, MAP_SHARED, &address), 0) << length;
    EXPECT_LT(uext4_map(file, INT64_MAX - 4095, 8192, PROT_READ, MAP_SHARED, &address), 0);
    EXPECT_LT(uext4_unmap(bytes, all), 0);
    EXPECT_EQ(uext4_msync(nullptr, all, MS_SYNC), 0);  // as the kernel: rounded up, it is no length
    EXPECT_EQ(uext4_msync(nullptr, half, MS_SYNC), -ENOMEM);
    const gid_t group = 5;
    uext4_identity identity{};
    identity.groups = &group;
    identity.group_count = all;
    EXPECT_EQ(uext4_set_identity(fs, &identity), -EINVAL);
    EXPECT_EQ(uext4_set_thread_identity(&identity), -EINVAL);
    struct stat st{};
    EXPECT_EQ(uext4_fstat(file, &st), 0);
    EXPECT_EQ(st.st_size, 109);
    EXPECT_EQ(uext4_close(file), 0);
}

TEST_F(CInterface, NamesAndDirectories) {
    EXPECT_EQ(uext4_mkdir(fs, "/d", 0755), 0);
    EXPECT_EQ(uext4_mkdir(fs, "/d", 0755), -EEXIST);
    EXPECT_EQ(uext4_symlink(fs, "target", "/d/link"), 0);
    char text[64] = {};
    EXPECT_EQ(uext4_readlink(fs, "/d/link", text, sizeof text), 6);
    EXPECT_EQ(uext4_mknod(fs, "/d/null", S_IFCHR | 0666, 0x103), 0);
    for (int i = 0; i < 300; ++i) {
        uext4_file* file = nullptr;
        ASSERT_EQ(uext4_open(fs, ("/d/f" + std::to_string(i)).c_str(), O_CREAT | O_WRONLY, 0644, &file), 0);
        uext4_close(file);
    }
    uext4_dir* dir = nullptr;
    ASSERT_EQ(uext4_opendir(fs, "/d", &dir), 0);
    std::set<std::string> names;
    long middle = 0;
    std::string after;
    while (dirent* e = uext4_readdir(dir)) {
        EXPECT_TRUE(names.insert(e->d_name).second) << e->d_name;
        if (names.size() == 100) middle = uext4_telldir(dir);
        if (names.size() == 101) after = e->d_name;
    }
    EXPECT_EQ(names.size(), 304u);
    uext4_seekdir(dir, middle);
    EXPECT_EQ(uext4_readdir(dir)->d_name, after);
    EXPECT_EQ(uext4_closedir(dir), 0);
    EXPECT_EQ(uext4_rename(fs, "/d/f1", "/moved", 0), 0);
    EXPECT_EQ(uext4_link(fs, "/moved", "/again"), 0);
    EXPECT_EQ(uext4_unlink(fs, "/moved"), 0);
    EXPECT_EQ(uext4_rmdir(fs, "/d"), -ENOTEMPTY);
    EXPECT_EQ(uext4_access(fs, "/again", R_OK), 0);
    // As in the kernel, before the path is looked at.
    for (const char* path : {"/again", "/is not there"}) EXPECT_EQ(uext4_access(fs, path, 8), -EINVAL) << path;
    struct statvfs v{};
    EXPECT_EQ(uext4_statfs(fs, &v), 0);
    EXPECT_EQ(v.f_namemax, 255u);
    EXPECT_EQ(uext4_syncfs(fs), 0);
}

TEST_F(CInterface, IdentitiesAreAskedForRights) {
    EXPECT_EQ(uext4_mkdir(fs, "/private", 0700), 0);
    const uext4_identity somebody{1000, 1000, nullptr, 0, 022, 0};
    EXPECT_EQ(uext4_set_thread_identity(&somebody), 0);
    EXPECT_EQ(uext4_mkdir(fs, "/private/x", 0755), -EACCES);
    EXPECT_EQ(uext4_chmod(fs, "/private", 0777), -EPERM);
    EXPECT_EQ(uext4_set_thread_identity(nullptr), 0);
    EXPECT_EQ(uext4_mkdir(fs, "/private/x", 0755), 0);
}

TEST_F(CInterface, AFrozenImageNeedsNoReplay) {
    uext4_file* file = nullptr;
    ASSERT_EQ(uext4_open(fs, "/f", O_CREAT | O_RDWR, 0644, &file), 0);
    EXPECT_EQ(uext4_pwrite(file, "data", 4, 0), 4);
    ASSERT_EQ(uext4_freeze(fs), 0) << uext4_strerror();
    EXPECT_EQ(
        std::system(("cp " + path + " " + path + ".copy && e2fsck -fn " + path + ".copy >/dev/null 2>&1").c_str()), 0);
    // e2fsck -n passes over a log that needs to be replayed.
    EXPECT_NE(std::system(("dumpe2fs -h " + path + ".copy 2>/dev/null | grep -q needs_recovery").c_str()), 0);
    EXPECT_EQ(std::system(("test \"$(debugfs -R 'cat /f' " + path + ".copy 2>/dev/null)\" = data").c_str()), 0);
    ::unlink((path + ".copy").c_str());
    EXPECT_EQ(uext4_thaw(fs), 0);
    EXPECT_EQ(uext4_thaw(fs), -EINVAL);
    EXPECT_EQ(uext4_pwrite(file, "more", 4, 4), 4);
    EXPECT_EQ(uext4_close(file), 0);
}

TEST_F(CInterface, AFreezeDoesNotNest) {
    ASSERT_EQ(uext4_freeze(fs), 0) << uext4_strerror();
    EXPECT_EQ(uext4_freeze(fs), -EBUSY);
    EXPECT_EQ(uext4_thaw(fs), 0);
    EXPECT_EQ(uext4_thaw(fs), -EINVAL);
    EXPECT_EQ(uext4_mkdir(fs, "/after", 0755), 0);
}

// Whether `work` ends while the file system is frozen; thaws if it does not, so that the test ends.
bool ends_while_frozen(uext4_fs* fs, const std::function<void()>& work) {
    std::future<void> done = std::async(std::launch::async, work);
    const bool ended = done.wait_for(std::chrono::seconds(10)) == std::future_status::ready;
    if (!ended) uext4_thaw(fs);
    done.wait();
    return ended;
}

std::string bytes_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

// Whoever waited for the thaw there could be the one who was to thaw.
TEST_F(CInterface, WhatMakesDurableDoesNotWaitWhileFrozen) {
    uext4_file *file = nullptr, *replaced = nullptr;
    ASSERT_EQ(uext4_open(fs, "/f", O_CREAT | O_RDWR, 0644, &file), 0);
    EXPECT_EQ(uext4_pwrite(file, "data", 4, 0), 4);
    ASSERT_EQ(uext4_open(fs, "/replaced", O_CREAT | O_RDWR, 0644, &replaced), 0);
    EXPECT_EQ(uext4_pwrite(replaced, "old", 3, 0), 3);
    EXPECT_EQ(uext4_ftruncate(replaced, 0), 0);
    EXPECT_EQ(uext4_pwrite(replaced, "new", 3, 0), 3);
    ASSERT_EQ(uext4_freeze(fs), 0) << uext4_strerror();
    const std::string frozen = bytes_of(path);
    char byte = 0;
    EXPECT_EQ(uext4_pread(file, &byte, 1, 0), 1);  // which moves its access time, in memory
    EXPECT_TRUE(ends_while_frozen(fs, [&] { EXPECT_EQ(uext4_fsync(file), 0); }));
    EXPECT_TRUE(ends_while_frozen(fs, [&] { EXPECT_EQ(uext4_fdatasync(file), 0); }));
    EXPECT_TRUE(ends_while_frozen(fs, [&] { EXPECT_EQ(uext4_syncfs(fs), 0); }));
    EXPECT_TRUE(ends_while_frozen(fs, [&] { EXPECT_EQ(uext4_close(replaced), 0); }));
    EXPECT_TRUE(bytes_of(path) == frozen) << "the image changed while it was frozen";
    EXPECT_EQ(uext4_thaw(fs), 0);
    EXPECT_EQ(uext4_close(file), 0);
}

TEST_F(CInterface, AnUnmountThaws) {
    uext4_file* file = nullptr;
    ASSERT_EQ(uext4_open(fs, "/f", O_CREAT | O_RDWR, 0644, &file), 0);
    EXPECT_EQ(uext4_unlink(fs, "/f"), 0);
    ASSERT_EQ(uext4_freeze(fs), 0) << uext4_strerror();
    EXPECT_EQ(uext4_close(file), 0);  // the file is to be deleted
    uext4_fs* ended = std::exchange(fs, nullptr);
    EXPECT_TRUE(ends_while_frozen(ended, [&] { EXPECT_EQ(uext4_umount(ended), 0); }));
}

// One name at any time, of two: who moves it without replacing finds no name, or no new one.
TEST_F(CInterface, RenameAnswersForOneMoment) {
    ASSERT_EQ(uext4_mkdir(fs, "/a", 0755), 0);
    ASSERT_EQ(uext4_mkdir(fs, "/b", 0755), 0);
    ASSERT_EQ(uext4_mkdir(fs, "/a/one", 0755), 0);
    std::atomic<bool> over{false};
    std::thread mover([&] {
        while (!over) {
            uext4_rename(fs, "/a/one", "/b/two", 0);
            uext4_rename(fs, "/b/two", "/a/one", 0);
        }
    });
    std::map<int, unsigned> answers;
    for (int i = 0; i < 200000; ++i) {
        ++answers[uext4_rename(fs, "/a/one", "/b/two", RENAME_NOREPLACE)];
        ++answers[uext4_rename(fs, "/a/one", "/b/two/", RENAME_NOREPLACE)];
    }
    over = true;
    mover.join();
    for (const auto& [answer, times] : answers)
        EXPECT_TRUE(answer == 0 || answer == -ENOENT) << answer << ", " << times << " times";
}

TEST(CDevice, ServesCallbacks) {
    const std::string path = "/dev/shm/uext4-capi-device-" + std::to_string(::getpid());
    ASSERT_EQ(std::system(("mke2fs -q -F -t ext4 " + path + " 32M >/dev/null 2>&1").c_str()), 0);
    int fd = ::open(path.c_str(), O_RDWR);
    uext4_device device{};
    device.context = &fd;
    device.size = 32 << 20;
    device.read = [](void* c, void* b, size_t n, uint64_t at) {
        return ::pread(*static_cast<int*>(c), b, n, static_cast<off_t>(at)) == static_cast<ssize_t>(n) ? 0 : -EIO;
    };
    device.write = [](void* c, const void* b, size_t n, uint64_t at) {
        return ::pwrite(*static_cast<int*>(c), b, n, static_cast<off_t>(at)) == static_cast<ssize_t>(n) ? 0 : -EIO;
    };
    device.flush = [](void* c) { return ::fdatasync(*static_cast<int*>(c)) == 0 ? 0 : -errno; };
    uext4_fs* fs = nullptr;
    ASSERT_EQ(uext4_mount_device(&device, "data=journal", &fs), 0) << uext4_strerror();
    EXPECT_EQ(uext4_mkdir(fs, "/d", 0755), 0);
    EXPECT_EQ(uext4_umount(fs), 0) << uext4_strerror();
    ::close(fd);
    EXPECT_EQ(std::system(("e2fsck -fn " + path + " >/dev/null 2>&1").c_str()), 0);
    ::unlink(path.c_str());
}

// A directory with the flag dirsync: a power cut right after a change of names finds it.
TEST_F(CInterface, DirectoriesThatSyncEachChange) {
    constexpr unsigned dirsync = 0x10000;
    ASSERT_EQ(uext4_umount(fs), 0);
    ASSERT_EQ(uext4_mount(path.c_str(), "commit=300", &fs), 0) << uext4_strerror();
    ASSERT_EQ(uext4_mkdir(fs, "/d", 0755), 0);
    unsigned flags = 0;
    ASSERT_EQ(uext4_getflags(fs, "/d", &flags), 0);
    ASSERT_EQ(uext4_setflags(fs, "/d", flags | dirsync), 0) << uext4_strerror();
    ASSERT_EQ(uext4_mkdir(fs, "/plain", 0755), 0);
    ASSERT_EQ(uext4_syncfs(fs), 0);
    const std::string copy = path + ".copy";
    // What the image holds now, without what is in memory only.
    const auto there = [&](const char* name) {
        EXPECT_EQ(std::system(("cp " + path + " " + copy).c_str()), 0);
        uext4_fs* cut = nullptr;
        EXPECT_EQ(uext4_mount(copy.c_str(), nullptr, &cut), 0) << uext4_strerror();
        struct stat st{};
        const int found = uext4_stat(cut, name, &st);
        EXPECT_EQ(uext4_umount(cut), 0);
        ::unlink(copy.c_str());
        return found;
    };
    uext4_file* file = nullptr;
    ASSERT_EQ(uext4_open(fs, "/plain/f", O_CREAT | O_RDWR, 0644, &file), 0);
    EXPECT_EQ(uext4_close(file), 0);
    EXPECT_EQ(there("/plain/f"), -ENOENT) << "nothing synced this one: the rest would show nothing";
    ASSERT_EQ(uext4_open(fs, "/d/f", O_CREAT | O_RDWR, 0644, &file), 0);
    EXPECT_EQ(uext4_close(file), 0);
    EXPECT_EQ(there("/d/f"), 0);
    EXPECT_EQ(uext4_rename(fs, "/d/f", "/plain/g", 0), 0);
    EXPECT_EQ(there("/plain/g"), 0);
    EXPECT_EQ(uext4_link(fs, "/plain/g", "/d/h"), 0);
    EXPECT_EQ(there("/d/h"), 0);
    EXPECT_EQ(uext4_mkdir(fs, "/d/i", 0755), 0);
    EXPECT_EQ(there("/d/i"), 0);
    EXPECT_EQ(uext4_rmdir(fs, "/d/i"), 0);
    EXPECT_EQ(there("/d/i"), -ENOENT);
    EXPECT_EQ(uext4_unlink(fs, "/d/h"), 0);
    EXPECT_EQ(there("/d/h"), -ENOENT);
}

TEST_F(CInterface, PathsThatBeginWithAnInodesNumber) {
    ASSERT_EQ(uext4_mkdir(fs, "/d", 0755), 0);
    struct stat st{};
    ASSERT_EQ(uext4_stat(fs, "/d", &st), 0);
    const std::string number = "<" + std::to_string(st.st_ino) + ">", inside = number + "/inside";
    // Where a name is made or taken away, a number is none.
    EXPECT_EQ(uext4_mkdir(fs, number.c_str(), 0755), -EINVAL);
    EXPECT_EQ(uext4_symlink(fs, "x", "<999>"), -EINVAL);
    EXPECT_EQ(uext4_rmdir(fs, number.c_str()), -EINVAL);
    EXPECT_EQ(uext4_unlink(fs, number.c_str()), -EINVAL);
    EXPECT_EQ(uext4_rename(fs, number.c_str(), "/e", 0), -EINVAL);
    EXPECT_EQ(uext4_rename(fs, "/d", number.c_str(), 0), -EINVAL);
    EXPECT_EQ(uext4_link(fs, "<8>", "/journal"), -EPERM);
    uext4_file* file = nullptr;
    EXPECT_EQ(uext4_open(fs, "<999>", O_RDWR | O_CREAT, 0644, &file), -ESTALE);
    EXPECT_EQ(uext4_open(fs, "<99999999>", O_RDWR | O_CREAT, 0644, &file), -ENOENT);
    EXPECT_EQ(uext4_open(fs, "<8>", O_RDWR, 0, &file), -EPERM);
    ASSERT_EQ(uext4_open(fs, "<8>", O_RDONLY, 0, &file), 0);
    EXPECT_EQ(uext4_close(file), 0);
    // What it names may be a directory, on the way to an entry.
    EXPECT_EQ(uext4_mkdir(fs, inside.c_str(), 0755), 0);
    EXPECT_EQ(uext4_stat(fs, "/d/inside", &st), 0);
    EXPECT_EQ(uext4_stat(fs, inside.c_str(), &st), 0);
    EXPECT_EQ(uext4_stat(fs, (number + "/none").c_str(), &st), -ENOENT);
    EXPECT_EQ(uext4_stat(fs, "<8>/none", &st), -ENOTDIR);
    // A name that looks like a number is one behind a slash.
    EXPECT_EQ(uext4_mkdir(fs, "/<12>", 0755), 0);
    EXPECT_EQ(uext4_rmdir(fs, "/<12>"), 0);
}

TEST_F(CInterface, AttributesThatAreToBeMadeAndReplaced) {
    ASSERT_EQ(uext4_mkdir(fs, "/d", 0755), 0);
    EXPECT_EQ(uext4_setxattr(fs, "/d", "user.a", "x", 1, XATTR_CREATE | XATTR_REPLACE), -ENODATA);
    EXPECT_EQ(uext4_setxattr(fs, "/d", "user.a", "x", 1, XATTR_CREATE), 0);
    EXPECT_EQ(uext4_setxattr(fs, "/d", "user.a", "x", 1, XATTR_CREATE | XATTR_REPLACE), -EEXIST);
    EXPECT_EQ(uext4_setxattr(fs, "/d", "user.a", "x", 1, XATTR_REPLACE), 0);
}

// A sparse copy reads what it is shown, while others write.
TEST_F(CInterface, WhoVisitsExtentsMayUseTheFile) {
    constexpr int runs = 700;
    static constexpr off_t page = 4096;
    struct Files {
        uext4_file *cached = nullptr, *direct = nullptr, *copy = nullptr;
        int seen = 0;
    } files;
    ASSERT_EQ(uext4_open(fs, "/f", O_CREAT | O_RDWR, 0644, &files.cached), 0);
    ASSERT_EQ(uext4_open(fs, "/f", O_RDWR | O_DIRECT, 0, &files.direct), 0);
    ASSERT_EQ(uext4_open(fs, "/copy", O_CREAT | O_RDWR, 0644, &files.copy), 0);
    const std::string bytes(page, 'x');
    for (int i = 0; i < runs; ++i) ASSERT_EQ(uext4_pwrite(files.cached, bytes.data(), page, 2 * i * page), page);
    ASSERT_EQ(uext4_fsync(files.cached), 0);
    std::atomic<bool> stop{false};
    std::thread writer([&] {
        while (!stop) EXPECT_EQ(uext4_pwrite(files.cached, bytes.data(), page, 0), page);
    });
    const auto visit = [](void* context, const uext4_extent* extent) {
        auto& to = *static_cast<Files*>(context);
        alignas(page) static char buffer[page];
        const off_t at = static_cast<off_t>(extent->offset);
        EXPECT_EQ(extent->length, static_cast<std::uint64_t>(page));
        EXPECT_EQ(uext4_lseek(to.cached, at, SEEK_HOLE), at + page);
        EXPECT_EQ(uext4_pread(to.cached, buffer, page, at), page);
        EXPECT_EQ(uext4_pread(to.direct, buffer, page, at), page);
        EXPECT_EQ(uext4_pwrite(to.copy, buffer, page, at), page);
        EXPECT_EQ(uext4_pwrite(to.cached, buffer, page, at), page);
        if (++to.seen % 200 == 0) {
            EXPECT_EQ(uext4_fsync(to.cached), 0);
        }
        return 0;
    };
    EXPECT_EQ(uext4_extents(files.cached, 0, 2 * runs * page, visit, &files), 0);
    stop = true;
    writer.join();
    EXPECT_EQ(files.seen, runs);
    for (uext4_file* file : {files.cached, files.direct, files.copy}) EXPECT_EQ(uext4_close(file), 0);
}

}  // namespace
