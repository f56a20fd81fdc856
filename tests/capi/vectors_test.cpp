// A vector is one call: other writers come before or after it, never between its parts, however long it is, whatever
// memory its parts are, and whichever way it goes.
#include <uext4/uext4.h>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr std::size_t page = 4096;
constexpr unsigned rounds = 24;

class Vectors : public testing::Test {
protected:
    void SetUp() override {
        path = "/dev/shm/uext4-vectors-" + std::to_string(::getpid());
        ASSERT_EQ(std::system(("mke2fs -q -F -t ext4 -b 4096 " + path + " 256M >/dev/null 2>&1").c_str()), 0);
        ASSERT_EQ(uext4_mount(path.c_str(), nullptr, &fs), 0) << uext4_strerror();
    }
    void TearDown() override {
        if (fs) {
            EXPECT_EQ(uext4_umount(fs), 0) << uext4_strerror();
            EXPECT_EQ(std::system(("e2fsck -fn " + path + " >/dev/null 2>&1").c_str()), 0);
        }
        ::unlink(path.c_str());
    }
    uext4_file* open(int flags) {
        uext4_file* file = nullptr;
        EXPECT_EQ(uext4_open(fs, "/f", O_CREAT | O_RDWR | flags, 0644, &file), 0) << uext4_strerror();
        return file;
    }

    std::string path;
    uext4_fs* fs = nullptr;
};

// Parts of one letter each writer, aligned for direct requests.
struct Parts {
    Parts(unsigned count, std::size_t size, char letter)
        : memory(static_cast<char*>(std::aligned_alloc(page, (count * size + page - 1) / page * page)), &std::free) {
        std::memset(memory.get(), letter, count * size);
        for (unsigned i = 0; i < count; ++i) list.push_back({memory.get() + i * size, size});
        total = static_cast<ssize_t>(count * size);
    }
    std::unique_ptr<char, decltype(&std::free)> memory;
    std::vector<iovec> list;
    ssize_t total;
};

bool uniform(const char* bytes, std::size_t n) {
    return std::all_of(bytes, bytes + n, [&](char c) { return c == bytes[0]; });
}

// Two writers of the same place: what is there in the end is one writer's.
void expect_whole(uext4_file* a, uext4_file* b, unsigned count, std::size_t size) {
    const Parts as(count, size, 'a'), bs(count, size, 'b');
    const Parts seen(1, count * size, 0);
    for (unsigned round = 0; round < rounds; ++round) {
        std::thread other([&] { EXPECT_EQ(uext4_pwritev(b, bs.list.data(), static_cast<int>(count), 0), bs.total); });
        EXPECT_EQ(uext4_pwritev(a, as.list.data(), static_cast<int>(count), 0), as.total);
        other.join();
        ASSERT_EQ(uext4_preadv(a, seen.list.data(), 1, 0), seen.total);
        ASSERT_TRUE(uniform(seen.memory.get(), count * size)) << "round " << round;
    }
}

TEST_F(Vectors, OfLargePartsAreWhole) {
    uext4_file *a = open(0), *b = open(0);
    expect_whole(a, b, 3, 1280 << 10);
    EXPECT_EQ(uext4_close(a), 0);
    EXPECT_EQ(uext4_close(b), 0);
}

TEST_F(Vectors, OfManySmallPartsAreWhole) {
    uext4_file *a = open(0), *b = open(0);
    expect_whole(a, b, 900, 3001);
    EXPECT_EQ(uext4_close(a), 0);
    EXPECT_EQ(uext4_close(b), 0);
}

TEST_F(Vectors, DirectOnesAreWholeToWritersAndReaders) {
    uext4_file *a = open(O_DIRECT), *b = open(O_DIRECT);
    expect_whole(a, b, 3, 1280 << 10);
    expect_whole(a, b, 64, 64 << 10);
    std::atomic<bool> done{false};
    const Parts out(64, 64 << 10, 0), as(64, 64 << 10, 'a'), bs(64, 64 << 10, 'b');
    ASSERT_EQ(uext4_pwritev(a, as.list.data(), 64, 0), as.total);
    std::thread writer([&] {
        for (unsigned i = 0; i < rounds; ++i)
            EXPECT_EQ(uext4_pwritev(a, (i % 2 ? as : bs).list.data(), 64, 0), as.total);
        done.store(true);
    });
    while (!done.load()) {
        EXPECT_EQ(uext4_preadv(b, out.list.data(), 64, 0), out.total);
        EXPECT_TRUE(uniform(out.memory.get(), static_cast<std::size_t>(out.total)));
    }
    writer.join();
    EXPECT_EQ(uext4_close(a), 0);
    EXPECT_EQ(uext4_close(b), 0);
}

TEST_F(Vectors, DirectOnesWithAPartOutOfLineAreRefusedBeforeTheFirst) {
    uext4_file* a = open(O_DIRECT);
    const Parts parts(2, page, 'x');
    std::vector<iovec> list = parts.list;
    list[1].iov_len = 511;
    EXPECT_EQ(uext4_pwritev(a, list.data(), 2, 0), -EINVAL);
    struct stat st{};
    EXPECT_EQ(uext4_fstat(a, &st), 0);
    EXPECT_EQ(st.st_size, 0);
    EXPECT_EQ(uext4_preadv(a, list.data(), 2, 0), 0);  // the end of the file is what it meets first
    ASSERT_EQ(uext4_pwritev(a, parts.list.data(), 2, 0), parts.total);
    const Parts seen(2, page, '-');
    list = seen.list;
    list[1].iov_len = 511;
    EXPECT_EQ(uext4_preadv(a, list.data(), 2, 0), -EINVAL);
    EXPECT_EQ(*static_cast<char*>(list[0].iov_base), '-');
    // The memory may lie anywhere.
    list[1] = {static_cast<char*>(list[1].iov_base) + 1, 512};
    EXPECT_EQ(uext4_preadv(a, list.data(), 2, 0), static_cast<ssize_t>(page + 512));
    EXPECT_EQ(static_cast<char*>(list[1].iov_base)[511], 'x');
    EXPECT_EQ(static_cast<char*>(list[1].iov_base)[512], '-');
    EXPECT_EQ(uext4_close(a), 0);
}

// Also parts that are maps of a file, and a truncate beside them, which comes before or after.
TEST_F(Vectors, AppendsOfMapsStayTogether) {
    constexpr std::size_t length = 1536 << 10;
    uext4_file* source = nullptr;
    ASSERT_EQ(uext4_open(fs, "/source", O_CREAT | O_RDWR, 0644, &source), 0);
    const std::vector<char> letters(length, 'm');
    ASSERT_EQ(uext4_pwrite(source, letters.data(), length, 0), static_cast<ssize_t>(length));
    void* map = nullptr;
    const int mapped = uext4_map(source, 0, length, PROT_READ, MAP_SHARED, &map);
    if (mapped == -EPERM || mapped == -EOPNOTSUPP || mapped == -ENOSYS) {
        EXPECT_EQ(uext4_close(source), 0);
        GTEST_SKIP() << "no maps here: " << uext4_strerror();
    }
    ASSERT_EQ(mapped, 0) << uext4_strerror();
    uext4_file *a = open(O_APPEND), *b = open(O_APPEND);
    const Parts own(1, length, 'm'), others(4, length / 2, 'o');
    const iovec mixed[2] = {{map, length}, own.list[0]};
    for (unsigned round = 0; round < rounds; ++round) {
        // The map alone is longer than what is copied of it at once.
        const int count = round % 2 ? 1 : 2;
        const std::size_t put = static_cast<std::size_t>(count) * length;
        const auto append = [&] { EXPECT_EQ(uext4_pwritev(a, mixed, count, 0), static_cast<ssize_t>(put)); };
        std::thread writer([&] { EXPECT_EQ(uext4_pwritev(b, others.list.data(), 4, 0), others.total); });
        append();
        writer.join();
        std::vector<char> seen(put + 2 * length);
        ASSERT_EQ(uext4_pread(a, seen.data(), seen.size(), 0), static_cast<ssize_t>(seen.size()));
        const std::size_t first = seen.front() == 'm' ? put : 2 * length;
        ASSERT_TRUE(uniform(seen.data(), first) && uniform(seen.data() + first, seen.size() - first));
        ASSERT_NE(seen.front(), seen.back());
        std::thread cutter([&] { EXPECT_EQ(uext4_ftruncate(b, 0), 0); });
        append();
        cutter.join();
        struct stat st{};
        EXPECT_EQ(uext4_fstat(a, &st), 0);
        const auto end = static_cast<std::size_t>(st.st_size);
        EXPECT_TRUE(end == 0 || end == put) << end;
        EXPECT_EQ(uext4_ftruncate(a, 0), 0);
    }
    EXPECT_EQ(uext4_unmap(map, length), 0);
    for (uext4_file* file : {source, a, b}) EXPECT_EQ(uext4_close(file), 0);
}

}  // namespace
