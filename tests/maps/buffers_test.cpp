// Maps as buffers of reads and writes: of the same file, of another, unfaulted, direct and cached (problem C).
#include "mapped_image.h"

#include <grp.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <atomic>
#include <thread>

namespace uext4::test::buffers_test {
namespace {

constexpr std::size_t page = 4096;

// A file with every kind of place, four pages of each, and a map of it that was never touched.
struct Laid {
    uext4_file* file;
    char* memory;
    std::string model;
};
constexpr std::size_t hole_at = 4 * page, unwritten_at = 8 * page, delayed_at = 12 * page, laid = 16 * page;

// The first extent that a page has: its flags, or -1 where there is none.
int extent_flags(uext4_file* file, std::size_t at) {
    int flags = -1;
    EXPECT_GE(uext4_extents(
                  file, static_cast<off_t>(at), page,
                  [](void* into, const uext4_extent* extent) {
                      *static_cast<int*>(into) = static_cast<int>(extent->flags);
                      return 1;
                  },
                  &flags),
              0)
        << uext4_strerror();
    return flags;
}

class Buffers : public MappedImage, public testing::WithParamInterface<const char*> {
protected:
    Laid lay(uext4_file* file, std::size_t reach);
};

// `reach` bytes are mapped. Journaled contents have their blocks at once, and are not delayed.
Laid Buffers::lay(uext4_file* file, std::size_t reach) {
    Laid out{file, nullptr, pattern(4 * page, 1) + std::string(12 * page, 0)};
    write(file, out.model.substr(0, 4 * page));
    EXPECT_EQ(uext4_ftruncate(file, laid), 0);
    EXPECT_EQ(uext4_fallocate(file, 0, unwritten_at, 4 * page), 0);
    EXPECT_EQ(uext4_fsync(file), 0);
    out.memory = map(file, reach);
    // Behind the map: a file's first map writes what there is to be written.
    const std::string delayed = pattern(4 * page, 2);
    write(file, delayed, delayed_at);
    out.model.replace(delayed_at, delayed.size(), delayed);
    EXPECT_EQ(extent_flags(file, hole_at), -1);
    EXPECT_TRUE(extent_flags(file, unwritten_at) & UEXT4_EXTENT_UNWRITTEN);
    if (*GetParam() == '\0') {
        EXPECT_TRUE(extent_flags(file, delayed_at) & UEXT4_EXTENT_UNPLACED);
    }
    return out;
}

TEST_P(Buffers, AFileIsReadIntoItsOwnMap) {
    make("-t ext4 -b 4096", GetParam());
    NEED_MAPS();
    for (const int direct : {0, O_DIRECT})
        for (std::size_t from = 0; from < laid; from += 4 * page)
            for (std::size_t to = 0; to < laid; to += 4 * page) {
                SCOPED_TRACE(fmt::format("{} {} {}", direct, from, to));
                const std::string name = fmt::format("/{}-{}-{}", direct, from, to);
                Laid in = lay(open(name.c_str()), laid);
                uext4_file* file = open(name.c_str(), O_RDWR | direct);
                ASSERT_EQ(uext4_pread(file, in.memory + to, 4 * page, static_cast<off_t>(from)),
                          static_cast<ssize_t>(4 * page))
                    << uext4_strerror();
                in.model.replace(to, 4 * page, in.model.substr(from, 4 * page));
                EXPECT_EQ(std::string(in.memory, laid), in.model);
                EXPECT_EQ(read(in.file, laid), in.model);
                EXPECT_EQ(uext4_unmap(in.memory, laid), 0);
                uext4_close(file);
                uext4_close(in.file);
            }
    unmount();
}

TEST_P(Buffers, AFileIsWrittenFromItsOwnMap) {
    make("-t ext4 -b 4096", GetParam());
    NEED_MAPS();
    for (const int direct : {0, O_DIRECT})
        for (std::size_t from = 0; from < laid; from += 4 * page)
            for (std::size_t to = 0; to <= laid; to += 4 * page) {
                SCOPED_TRACE(fmt::format("{} {} {}", direct, from, to));
                const std::string name = fmt::format("/{}-{}-{}", direct, from, to);
                Laid in = lay(open(name.c_str()), laid + 8 * page);
                uext4_file* file = open(name.c_str(), O_RDWR | direct);
                ASSERT_EQ(uext4_pwrite(file, in.memory + from, 4 * page, static_cast<off_t>(to)),
                          static_cast<ssize_t>(4 * page))
                    << uext4_strerror();
                const std::string moved = in.model.substr(from, 4 * page);
                if (in.model.size() < to + 4 * page) in.model.resize(to + 4 * page);
                in.model.replace(to, 4 * page, moved);
                EXPECT_EQ(read(in.file, in.model.size()), in.model);
                EXPECT_EQ(std::string(in.memory, in.model.size()), in.model);
                EXPECT_EQ(uext4_unmap(in.memory, laid + 8 * page), 0);
                uext4_close(file);
                uext4_close(in.file);
            }
    unmount();
}

// Direct requests of two files at once, each into the other's map or from its own, over other bytes in each round.
TEST_P(Buffers, TwoFilesCrosswise) {
    make("-t ext4 -b 4096", GetParam());
    NEED_MAPS();
    constexpr std::size_t half = 8 * page, size = 2 * half, moved_to = 4 * page;
    uext4_file* a = open("/a", O_CREAT | O_RDWR | O_DIRECT);
    uext4_file* b = open("/b", O_CREAT | O_RDWR | O_DIRECT);
    uext4_file* cached_a = open("/a", O_RDWR);
    uext4_file* cached_b = open("/b", O_RDWR);
    std::string in_a, in_b;
    for (unsigned round = 0; round < 10 && !HasFailure(); ++round) {
        SCOPED_TRACE(round);
        const std::string left = pattern(size, 2 * round + 3), right = pattern(size, 2 * round + 4);
        write(cached_a, left);
        write(cached_b, right);
        char* map_a = map(a, size);
        char* map_b = map(b, size);
        std::thread one([&] { EXPECT_EQ(uext4_pread(a, map_b, half, 0), static_cast<ssize_t>(half)); });
        std::thread two([&] { EXPECT_EQ(uext4_pread(b, map_a + half, half, half), static_cast<ssize_t>(half)); });
        std::thread three([&] { EXPECT_EQ(uext4_pwrite(a, map_a, page, moved_to), static_cast<ssize_t>(page)); });
        one.join();
        two.join();
        three.join();
        std::string wanted = left.substr(0, half) + right.substr(half);
        wanted.replace(moved_to, page, left.substr(0, page));
        in_a = std::string(map_a, size);
        in_b = std::string(map_b, size);
        EXPECT_TRUE(in_a == wanted);
        // Of the page of a that was written meanwhile b has got what was there before or after, byte by byte.
        std::string as_after = in_b;
        for (std::size_t i = moved_to; i < moved_to + page; ++i)
            if (as_after[i] == left[i]) as_after[i] = wanted[i];
        EXPECT_TRUE(as_after == wanted);
        EXPECT_TRUE(read(cached_a, size) == in_a);
        EXPECT_TRUE(read(cached_b, size) == in_b);
        EXPECT_EQ(uext4_unmap(map_a, size), 0);
        EXPECT_EQ(uext4_unmap(map_b, size), 0);
        EXPECT_TRUE(read(cached_a, size) == in_a) << "without maps";
        EXPECT_TRUE(read(cached_b, size) == in_b) << "without maps";
    }
    for (uext4_file* file : {a, b, cached_a, cached_b}) uext4_close(file);
    unmount();
    mount();
    for (const auto& [name, bytes] : {std::pair("/a", &in_a), std::pair("/b", &in_b)}) {
        uext4_file* again = open(name, O_RDONLY);
        EXPECT_TRUE(read(again, size) == *bytes) << name << " after a new mount";
        uext4_close(again);
    }
    unmount();
}

// A writeback takes the right to store from a page; what is copied into the map after that has to fault again.
TEST_P(Buffers, AReadIntoAMapBesideWritebackIsWritten) {
    for (const char* format : {"-t ext4 -b 4096", "-t ext4 -b 1024"}) {
        make(format, GetParam());
        NEED_MAPS();
        constexpr std::size_t size = 64 * page;
        uext4_file* source = open("/source");
        uext4_file* target = open("/target");
        write(target, pattern(size, 1));
        char* memory = map(target, size);
        std::atomic<bool> stop{false};
        std::thread syncs([&] {
            while (!stop) EXPECT_EQ(uext4_fsync(target), 0) << uext4_strerror();
        });
        std::string bytes;
        for (unsigned round = 0; round < 25 && !HasFailure(); ++round) {
            bytes = pattern(size, 2 + round);
            write(source, bytes);
            EXPECT_EQ(uext4_pread(source, memory, size, 0), static_cast<ssize_t>(size)) << uext4_strerror();
            EXPECT_EQ(uext4_fsync(target), 0);
            EXPECT_EQ(std::string(memory, size), bytes);
            // Of a journaled file the direct read comes from the cache: only the next mount tells.
            uext4_file* direct = open("/target", O_RDONLY | O_DIRECT);
            void* seen = std::aligned_alloc(page, size);
            EXPECT_EQ(uext4_pread(direct, seen, size, 0), static_cast<ssize_t>(size));
            EXPECT_EQ(std::memcmp(seen, bytes.data(), size), 0) << "round " << round;
            std::free(seen);
            uext4_close(direct);
        }
        stop = true;
        syncs.join();
        EXPECT_EQ(uext4_unmap(memory, size), 0);
        uext4_close(source);
        uext4_close(target);
        unmount();
        mount();
        target = open("/target", O_RDONLY);
        EXPECT_EQ(read(target, size), bytes) << "after a new mount";
        uext4_close(target);
        unmount();
    }
}

TEST_P(Buffers, ABufferPastTheEndIsShortOrEfault) {
    make("-t ext4 -b 4096", GetParam());
    NEED_MAPS();
    uext4_file* a = open("/a");
    uext4_file* b = open("/b");
    write(a, pattern(4 * page, 5));
    write(b, std::string(2 * page, 'b'));
    char* memory = map(b, 8 * page);
    EXPECT_EQ(uext4_pread(a, memory, 4 * page, 0), static_cast<ssize_t>(2 * page));
    EXPECT_EQ(read(b, 2 * page), pattern(4 * page, 5).substr(0, 2 * page));
    EXPECT_EQ(uext4_pread(a, memory + 4 * page, 4 * page, 0), -EFAULT);
    EXPECT_EQ(uext4_pwrite(a, memory + page, 4 * page, 0), static_cast<ssize_t>(page));
    EXPECT_EQ(uext4_pwrite(a, memory + 4 * page, page, 0), -EFAULT);
    EXPECT_EQ(uext4_unmap(memory, 8 * page), 0);
    uext4_close(a);
    uext4_close(b);
    unmount();
}

// The answer is stored into a page that nobody has touched, of the file that is asked about.
TEST_P(Buffers, StatIsStoredIntoAMapOfItsFile) {
    make("-t ext4 -b 4096", GetParam());
    NEED_MAPS();
    uext4_file* file = open("/f");
    write(file, pattern(4 * page, 1));
    char* memory = map(file, 4 * page);
    auto* out = reinterpret_cast<struct stat*>(memory + page);
    EXPECT_EQ(uext4_fstat(file, out), 0);
    EXPECT_EQ(out->st_size, static_cast<off_t>(4 * page));
    out = reinterpret_cast<struct stat*>(memory + 2 * page);
    EXPECT_EQ(uext4_stat(fs, "/f", out), 0);
    EXPECT_EQ(out->st_size, static_cast<off_t>(4 * page));
    EXPECT_EQ(uext4_unmap(memory, 4 * page), 0);
    uext4_close(file);
    unmount();
}

// The kernel reports to such a process only the faults of its own code, and none of system calls.
int read_and_write_maps_as_nobody(const char* image, const char* options) {
    if (::setgroups(0, nullptr) != 0 || ::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0)
        return 1;
    uext4_fs* fs = nullptr;
    uext4_file* file = nullptr;
    if (uext4_mount(image, options, &fs) != 0 || uext4_open(fs, "/f", O_CREAT | O_RDWR, 0644, &file) != 0) return 2;
    const std::string bytes = pattern(8 * page, 7);
    if (uext4_pwrite(file, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) return 3;
    void* memory = nullptr;
    const int mapped = uext4_map(file, 0, 32 * page, PROT_READ | PROT_WRITE, MAP_SHARED, &memory);
    if (mapped == -EPERM || mapped == -EOPNOTSUPP) return 77;
    if (mapped != 0 || uext4_ftruncate(file, 24 * page) != 0) return 4;
    char* const map = static_cast<char*>(memory);
    // Pages that nobody has touched, and such as were written back.
    for (int round = 0; round < 3; ++round) {
        if (uext4_pread(file, map + 12 * page, 8 * page, 0) != static_cast<ssize_t>(8 * page)) return 5;
        if (std::string(map + 12 * page, 8 * page) != bytes) return 6;
        if (uext4_fsync(file) != 0) return 7;
        if (uext4_pwrite(file, map + 12 * page, 4 * page, 20 * page) != static_cast<ssize_t>(4 * page)) return 8;
        if (std::string(map + 20 * page, 4 * page) != bytes.substr(0, 4 * page)) return 9;
    }
    if (uext4_pread(file, map + 24 * page, page, 0) != -EFAULT) return 10;
    if (uext4_pwrite(file, map + 24 * page, page, 0) != -EFAULT) return 11;
    if (uext4_unmap(memory, 32 * page) != 0 || uext4_close(file) != 0 || uext4_umount(fs) != 0) return 12;
    return 0;
}

// The page with the name is taken away again and again, also when the call has looked at it already.
TEST_P(Buffers, AnAttributesNameLiesInAMapOfItsFile) {
    make("-t ext4 -b 4096", GetParam());
    NEED_MAPS();
    uext4_file* file = open("/f");
    const std::string page_of_name = "user.name" + std::string(page - 9, 0);
    ASSERT_EQ(uext4_pwrite(file, page_of_name.data(), page, 0), static_cast<ssize_t>(page));
    char* memory = map(file, page);
    std::atomic<bool> done{false};
    std::thread puncher([&] {
        while (!done) {
            EXPECT_EQ(uext4_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, page), 0);
            EXPECT_EQ(uext4_pwrite(file, page_of_name.data(), page, 0), static_cast<ssize_t>(page));
        }
    });
    char value[8] = {};
    int met = 0;
    // Until the page was there once; the other thread may be away just when it is not.
    constexpr int rounds = 20000, most_rounds = 200 * rounds;
    for (int i = 0; i < rounds || (met == 0 && i < most_rounds); ++i) {
        const int set = uext4_fsetxattr(file, memory, value, sizeof value, 0);
        EXPECT_TRUE(set == 0 || set == -ERANGE) << uext4_strerror();  // without the page, it is no name
        const ssize_t got = uext4_fgetxattr(file, memory, value, sizeof value);
        EXPECT_TRUE(got == 8 || got == -ERANGE || got == -ENODATA) << uext4_strerror();
        const int removed = uext4_fremovexattr(file, memory);
        EXPECT_TRUE(removed == 0 || removed == -ERANGE || removed == -ENODATA) << uext4_strerror();
        met += set == 0;
    }
    done = true;
    puncher.join();
    EXPECT_GT(met, 0);
    EXPECT_EQ(uext4_unmap(memory, page), 0);
    uext4_close(file);
    unmount();
}

TEST_P(Buffers, OfAProcessWithoutPrivileges) {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can become somebody else";
    make("-t ext4 -b 4096 -E root_owner=65534:65534", GetParam());
    unmount();
    ASSERT_EQ(::chmod(path_.c_str(), 0666), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) ::_exit(read_and_write_maps_as_nobody(path_.c_str(), GetParam()));
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status)) << status;
    if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "there are no maps without privileges here";
    EXPECT_EQ(WEXITSTATUS(status), 0) << "the step that failed";
    judge(path_);
}

// A child that lives on has the descriptor of the image, and is in nobody's way.
TEST_P(Buffers, AChildDoesNotKeepTheImage) {
    make("-t ext4 -b 4096", GetParam());
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        ::pause();
        ::_exit(0);
    }
    EXPECT_EQ(uext4_umount(fs), 0) << uext4_strerror();
    fs = nullptr;
    EXPECT_EQ(uext4_mount(path_.c_str(), "", &fs), 0) << uext4_strerror();
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    if (fs) unmount();
}

INSTANTIATE_TEST_SUITE_P(Modes, Buffers, testing::Values("", "data=journal"),
                         [](const auto& mode) { return std::string(*mode.param ? "journal" : "ordered"); });

}  // namespace
}  // namespace uext4::test::buffers_test
