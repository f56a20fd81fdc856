// A program that ends with a file system mounted: what runs at its very end, after all that was set up later has been
// taken down, still uses its maps, as do the library's own threads.
#include <uext4/uext4.h>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr std::size_t page = 4096, size = 64 * page;
constexpr int no_maps = 77;
std::string path;
uext4_fs* fs = nullptr;
uext4_file* file = nullptr;
char* memory = nullptr;

[[noreturn]] void end_with(int status, const char* what) {
    if (status) (void)!::write(STDERR_FILENO, what, std::strlen(what));
    ::_exit(status);
}

void use_it_all() {
    // Pages that were touched, and ones that were not.
    for (std::size_t at = 0; at < size; at += page) memory[at] = static_cast<char>(memory[at] + 1);
    char seen[2] = {};
    if (uext4_pread(file, &seen[0], 1, 0) != 1 || uext4_pread(file, &seen[1], 1, size - page) != 1)
        end_with(1, "pread fails\n");
    if (seen[0] != 'b' || seen[1] != 1) end_with(2, "the file has other bytes than its map\n");
    void* another = nullptr;
    if (uext4_map(file, 0, page, PROT_READ, MAP_SHARED, &another) != 0) end_with(3, uext4_strerror());
    if (*static_cast<char*>(another) != 'b') end_with(4, "another map has other bytes\n");
    if (uext4_msync(memory, size, MS_SYNC) != 0) end_with(5, uext4_strerror());
    if (uext4_unmap(another, page) != 0 || uext4_unmap(memory, size) != 0) end_with(6, uext4_strerror());
    if (uext4_close(file) != 0 || uext4_umount(fs) != 0) end_with(7, uext4_strerror());
    end_with(0, "");
}

[[noreturn]] void work_and_end() {
    // First of all, so that it runs last.
    if (std::atexit(use_it_all) != 0) end_with(10, "atexit fails\n");
    if (uext4_mount(path.c_str(), nullptr, &fs) != 0) end_with(11, uext4_strerror());
    if (uext4_open(fs, "/f", O_CREAT | O_RDWR, 0644, &file) != 0) end_with(12, uext4_strerror());
    if (uext4_ftruncate(file, size) != 0) end_with(13, uext4_strerror());
    void* there = nullptr;
    const int mapped = uext4_map(file, 0, size, PROT_READ | PROT_WRITE, MAP_SHARED, &there);
    if (mapped == -EOPNOTSUPP || mapped == -EPERM) end_with(no_maps, uext4_strerror());
    if (mapped != 0) end_with(14, uext4_strerror());
    memory = static_cast<char*>(there);
    memory[0] = 'a';
    std::exit(0);
}

TEST(AtExit, EverythingStillWorks) {
    path = "/dev/shm/uext4-at-exit-" + std::to_string(::getpid());
    ASSERT_EQ(std::system(("mke2fs -q -F -t ext4 " + path + " 16M >/dev/null 2>&1").c_str()), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) work_and_end();
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    const int checked = std::system(("e2fsck -fn " + path + " >/dev/null 2>&1").c_str());
    ::unlink(path.c_str());
    if (WIFEXITED(status) && WEXITSTATUS(status) == no_maps) GTEST_SKIP() << "no memory maps here";
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
        << (WIFEXITED(status) ? "status " : "signal ") << (WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    EXPECT_EQ(checked, 0);
}

}  // namespace
