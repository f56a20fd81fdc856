// What the program makes a map longer by is part of the map before anybody has touched it: as the buffer of a request,
// when it is moved or ended, and when what was known of the map is taken away.
#include "remapped_image.h"

#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <thread>
#include <utility>

namespace uext4::test::grown_test {
namespace {

class Grown : public RemappedImage {};

TEST_P(Grown, IsABuffer) {
    using Request = std::function<ssize_t(char* buffer)>;
    begin();
    NEED_MAPS();
    uext4_file* direct = open("/f", O_RDWR | O_DIRECT);
    char small[512] = {};
    const auto vector = [&](char* buffer) { return std::array<iovec, 2>{{{small, sizeof small}, {buffer, page}}}; };
    const Request requests[] = {
        [&](char* b) { return uext4_pwrite(file, b, page, 5 * page); },
        [&](char* b) { return uext4_pwrite(file, b, page, 6 * page); },
        [&](char* b) { return uext4_pread(file, b, page, 5 * page); },
        [&](char* b) { return uext4_pread(direct, b, page, 5 * page); },
        [&](char* b) { return uext4_pwrite(direct, b, page, 5 * page); },
        [&](char* b) { return uext4_pwrite(direct, b, 2 * page, 9 * page); },
        [&](char* b) { return uext4_pwritev(file, vector(b).data(), 2, 5 * page - 512); },
        [&](char* b) { return uext4_preadv(file, vector(b).data(), 2, 5 * page - 512); },
        [&](char* b) { return uext4_pwrite(file, b - 2 * page, 3 * page, 3 * page); },
        [&](char* b) { return uext4_pread(file, b + 100, 2 * page, 5 * page + 100); },
        [&](char* b) { return static_cast<ssize_t>(uext4_fsetxattr(file, "user.x", b, 200, 0)); },
        [&](char* b) { return uext4_fgetxattr(file, "user.x", b, page); },
    };
    for (const bool moves : {false, true}) {
        for (std::size_t i = 0; i < std::size(requests); ++i) {
            SCOPED_TRACE(fmt::format("request {}, {}", i, moves ? "moved" : "in place"));
            write(file, letters());
            ASSERT_EQ(uext4_fsync(file), 0);
            char* memory = grown(4, 8, moves);
            {
                const Watchdog watchdog(std::chrono::seconds(30));
                EXPECT_GE(requests[i](memory + 5 * page), 0) << uext4_strerror();
            }
            EXPECT_EQ(uext4_unmap(memory, 8 * page), 0);
        }
    }
    // What is written is what the map shows, and what is read is what it shows afterwards.
    write(file, letters());
    char* memory = grown(4, 8);
    EXPECT_EQ(uext4_pwrite(file, memory + 5 * page, page, 7 * page), static_cast<ssize_t>(page));
    EXPECT_EQ(read(file, 1, 7 * page), "f");
    EXPECT_EQ(uext4_pread(file, memory + 6 * page, page, 3 * page), static_cast<ssize_t>(page));
    EXPECT_EQ(load(memory + 6 * page), 'd');
    EXPECT_EQ(read(file, 1, 6 * page), is_shared() ? "d" : "g");
    EXPECT_EQ(uext4_unmap(memory, 8 * page), 0);
    uext4_close(direct);
    end();
}

TEST_P(Grown, IsABufferPastTheEnd) {
    begin();
    NEED_MAPS();
    ASSERT_EQ(uext4_ftruncate(file, 2 * page), 0);
    for (const bool reads : {false, true}) {
        char* memory = grown(4, 8);
        const Watchdog watchdog(std::chrono::seconds(30));
        EXPECT_EQ(
            reads ? uext4_pread(file, memory + 5 * page, page, 0) : uext4_pwrite(file, memory + 5 * page, page, 0),
            -EFAULT);
        EXPECT_EQ(uext4_unmap(memory, 8 * page), 0);
    }
    end();
}

// The end of the buffer alone lies there; and memory that nobody can read is no buffer, but nobody has asked for bytes.
TEST_P(Grown, LeavesOtherBuffersAlone) {
    begin();
    NEED_MAPS();
    char* memory = grown(4, 8);
    EXPECT_EQ(uext4_pread(file, memory + 3 * page, 4 * page, 0), static_cast<ssize_t>(4 * page));
    void* above = ::mmap(memory + 8 * page, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (above != MAP_FAILED) {
        EXPECT_EQ(uext4_pread(file, above, page, file_pages * page), 0);
        ::munmap(above, page);
    }
    EXPECT_EQ(uext4_unmap(memory, 8 * page), 0);
    end();
}

TEST_P(Grown, IsMovedElsewhere) {
    begin();
    NEED_MAPS();
    for (const std::size_t first : {4, 5, 6, 3, 2}) {
        SCOPED_TRACE(first);
        write(file, letters());
        char* memory = grown(4, 8);
        void* place = ::mmap(nullptr, 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        char* moved = static_cast<char*>(
            ::mremap(memory + first * page, 2 * page, 2 * page, MREMAP_MAYMOVE | MREMAP_FIXED, place));
        ASSERT_EQ(moved, place) << strerror(errno);
        expect_pages(moved, 2, first);
        expect_pages(memory, first, 0);
        expect_pages(memory + (first + 2) * page, 6 - first, first + 2);
        EXPECT_EQ(uext4_unmap(moved, 2 * page), 0) << uext4_strerror();
        EXPECT_EQ(uext4_unmap(memory, 8 * page), 0) << uext4_strerror();
        for (const char* left : {moved, moved + page, memory, memory + 3 * page, memory + 7 * page})
            EXPECT_FALSE(is_mapped(left));
    }
    end();
}

// What was made longer reaches the next map of the file, and the kernel takes both for one: a part of each is moved.
TEST_P(Grown, IsMovedWithWhatLiesAbove) {
    begin();
    NEED_MAPS();
    using Use = std::function<void(char* moved)>;
    const Use uses[] = {
        [&](char* moved) { expect_pages(moved, 5, 5); },
        [&](char* moved) { EXPECT_EQ(uext4_pread(file, moved, page, 0), static_cast<ssize_t>(page)); },
        [&](char* moved) { EXPECT_EQ(uext4_pwrite(file, moved, page, 12 * page), static_cast<ssize_t>(page)); },
        [&](char* moved) { EXPECT_EQ(uext4_msync(moved, 5 * page, MS_SYNC), 0) << uext4_strerror(); },
        [&](char* moved) {
            const int other = ::memfd_create("other", MFD_CLOEXEC);
            EXPECT_EQ(::write(other, moved, page), static_cast<ssize_t>(page)) << strerror(errno);
            ::close(other);
        },
        [&](char* moved) { EXPECT_EQ(::munmap(moved, 3 * page), 0); },
    };
    for (std::size_t i = 0; i < std::size(uses); ++i) {
        SCOPED_TRACE(i);
        write(file, letters());
        void* place = ::mmap(nullptr, 32 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        ASSERT_NE(place, MAP_FAILED);
        char* const arena = static_cast<char*>(place);
        for (const std::size_t first : {0, 6}) {
            char* memory =
                map(file, 4 * page, static_cast<off_t>(first * page), PROT_READ | PROT_WRITE, GetParam().flags);
            ASSERT_EQ(::mremap(memory, 4 * page, 4 * page, MREMAP_MAYMOVE | MREMAP_FIXED, arena + first * page),
                      arena + first * page);
        }
        ASSERT_EQ(::munmap(arena + 4 * page, 2 * page), 0);
        ASSERT_EQ(::mremap(arena, 4 * page, 6 * page, 0), arena) << strerror(errno);
        char* const moved = arena + 16 * page;
        const Watchdog watchdog(std::chrono::seconds(30));
        ASSERT_EQ(::mremap(arena + 5 * page, 5 * page, 5 * page, MREMAP_MAYMOVE | MREMAP_FIXED, moved), moved)
            << strerror(errno);
        uses[i](moved);
        expect_pages(arena, 5, 0);
        EXPECT_EQ(uext4_unmap(arena, 32 * page), 0) << uext4_strerror();
        for (const std::size_t p : {0, 4, 16, 20}) EXPECT_FALSE(is_mapped(arena + p * page)) << p;
        ::munmap(arena, 32 * page);
    }
    end();
}

TEST_P(Grown, IsUnmapped) {
    begin();
    NEED_MAPS();
    for (const bool moves : {false, true}) {
        char* memory = grown(4, 8, moves);
        EXPECT_EQ(uext4_unmap(memory, 8 * page), 0);
        for (std::size_t p = 0; p < 8; ++p) EXPECT_FALSE(is_mapped(memory + p * page)) << p;
        memory = grown(4, 8, moves);
        EXPECT_EQ(uext4_unmap(memory + 6 * page, 2 * page), 0) << uext4_strerror();
        for (std::size_t p = 0; p < 8; ++p) EXPECT_EQ(is_mapped(memory + p * page), p < 6) << p;
        expect_pages(memory, 6, 0);
        write(file, letters());
        EXPECT_EQ(uext4_unmap(memory, 6 * page), 0);
        for (std::size_t p = 0; p < 8; ++p) EXPECT_FALSE(is_mapped(memory + p * page)) << p;
    }
    end();
}

// By the library, by munmap and by mremap: what is left goes on as a map.
TEST_P(Grown, OutlivesWhatWasKnown) {
    begin();
    NEED_MAPS();
    using Take = std::function<void(char* memory, std::size_t length)>;
    const Take ways[] = {
        [](char* memory, std::size_t length) { EXPECT_EQ(uext4_unmap(memory, length), 0) << uext4_strerror(); },
        [](char* memory, std::size_t length) { EXPECT_EQ(::munmap(memory, length), 0); },
        [](char* memory, std::size_t length) {
            void* place = ::mmap(nullptr, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            ASSERT_EQ(::mremap(memory, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, place), place);
            EXPECT_EQ(uext4_unmap(place, length), 0) << uext4_strerror();
        },
    };
    for (std::size_t way = 0; way < std::size(ways); ++way) {
        for (const auto& [from, to] : {std::pair(0, 4), {0, 6}, {3, 4}, {2, 6}, {5, 6}}) {
            SCOPED_TRACE(fmt::format("way {}, pages {} to {}", way, from, to));
            write(file, letters());
            char* memory = grown(4, 8);
            ways[way](memory + static_cast<std::size_t>(from) * page, static_cast<std::size_t>(to - from) * page);
            const auto left = static_cast<std::size_t>(8 - to), end_page = static_cast<std::size_t>(to);
            {
                const Watchdog watchdog(std::chrono::seconds(30));
                EXPECT_EQ(uext4_pwrite(file, memory + 7 * page, page, 7 * page), static_cast<ssize_t>(page));
            }
            expect_pages(memory + end_page * page, left, end_page);
            expect_pages(memory, static_cast<std::size_t>(from), 0);
            EXPECT_EQ(uext4_unmap(memory + end_page * page, left * page), 0) << uext4_strerror();
            if (from > 0) {
                EXPECT_EQ(uext4_unmap(memory, static_cast<std::size_t>(from) * page), 0);
            }
        }
    }
    end();
}

TEST_P(Grown, IsSynced) {
    begin();
    NEED_MAPS();
    char* memory = grown(4, 8);
    EXPECT_EQ(uext4_msync(memory, 8 * page, MS_SYNC), 0) << uext4_strerror();
    EXPECT_EQ(uext4_msync(memory, 9 * page, MS_SYNC), -ENOMEM);
    EXPECT_EQ(uext4_unmap(memory, 8 * page), 0);
    memory = grown(4, 8);
    EXPECT_EQ(uext4_msync(memory + 5 * page, 2 * page, MS_SYNC), 0) << uext4_strerror();
    EXPECT_EQ(uext4_unmap(memory, 8 * page), 0);
    end();
}

// The kernel tells apart what the program has given other rights; it is one map all the same.
TEST_P(Grown, IsDivided) {
    begin();
    NEED_MAPS();
    char* memory = grown(4, 8);
    ASSERT_EQ(::mprotect(memory + 5 * page, page, PROT_READ), 0);
    char seen = 0;
    EXPECT_FALSE(refused([&] { seen = load(memory + 7 * page); }));
    EXPECT_EQ(seen, 'h');
    {
        const Watchdog watchdog(std::chrono::seconds(30));
        EXPECT_EQ(uext4_pwrite(file, memory + 5 * page, page, 5 * page), static_cast<ssize_t>(page));
    }
    EXPECT_EQ(uext4_unmap(memory, 8 * page), 0);
    for (std::size_t p = 0; p < 8; ++p) EXPECT_FALSE(is_mapped(memory + p * page)) << p;
    end();
}

// The program goes on as soon as an event is read, and not when it is applied: what was known of the map is gone, and
// the rest has been moved on.
TEST_P(Grown, OutlivesAllThatWasKnown) {
    begin();
    NEED_MAPS();
    constexpr int dont_unmap = 4;
    for (int lap = 0; lap < 60; ++lap) {
        SCOPED_TRACE(lap);
        char* memory = grown(4, 8);
        ASSERT_EQ(::munmap(memory, 4 * page), 0);
        void* other = ::mremap(memory + 4 * page, 4 * page, 4 * page, MREMAP_MAYMOVE | MREMAP_FIXED, memory);
        ASSERT_EQ(other, memory) << strerror(errno);
        const Watchdog watchdog(std::chrono::seconds(30));
        char seen = 0;
        EXPECT_FALSE(refused([&] { seen = load(memory + page); }));
        EXPECT_EQ(seen, 'f');
        void* left = ::mremap(memory, 4 * page, 4 * page, MREMAP_MAYMOVE | dont_unmap, nullptr);
        if (left != MAP_FAILED) {
            ASSERT_EQ(::munmap(memory, page), 0);
            ASSERT_EQ(::munmap(left, 4 * page), 0);
            EXPECT_FALSE(refused([&] { seen = load(memory + 2 * page); }));
            EXPECT_EQ(seen, 'g');
            EXPECT_EQ(uext4_unmap(memory + page, 3 * page), 0) << uext4_strerror();
        } else {
            EXPECT_EQ(uext4_unmap(memory, 4 * page), 0) << uext4_strerror();
        }
    }
    end();
}

// Another thread's maps above are being ended, and as soon as the first of them is gone the map grows into its place.
TEST_P(Grown, TakesThePlaceOfWhatIsBeingEnded) {
    begin();
    NEED_MAPS();
    constexpr std::size_t parts = 60;
    uext4_file* other = open("/other");
    write(other, letters());
    for (int lap = 0; lap < 20; ++lap) {
        SCOPED_TRACE(lap);
        void* place = ::mmap(nullptr, (parts + 4) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        char* const arena = static_cast<char*>(place);
        const auto put = [&](uext4_file* of, std::size_t pages, std::size_t first, char* at) {
            char* memory =
                map(of, pages * page, static_cast<off_t>(first * page), PROT_READ | PROT_WRITE, GetParam().flags);
            ASSERT_EQ(::mremap(memory, pages * page, pages * page, MREMAP_MAYMOVE | MREMAP_FIXED, at), at);
        };
        put(file, 2, 0, arena);
        for (std::size_t i = 0; i < parts; ++i) put(other, 1, i % 2, arena + (2 + i) * page);
        const Watchdog watchdog(std::chrono::seconds(60));
        std::atomic<bool> grows{false};
        std::thread growing([&] {
            grows.store(true);
            while (::mremap(arena, 2 * page, 3 * page, 0) == MAP_FAILED) std::this_thread::yield();
            char seen = 0;
            EXPECT_FALSE(refused([&] { seen = load(arena + 2 * page); }));
            EXPECT_EQ(seen, 'c');
        });
        while (!grows.load()) std::this_thread::yield();
        EXPECT_EQ(uext4_unmap(arena + 2 * page, parts * page), 0) << uext4_strerror();
        growing.join();
        (void)uext4_unmap(arena, 3 * page);
        ::munmap(arena, (parts + 4) * page);
    }
    uext4_close(other);
    end();
}

// Nobody touches what is added, and it is gone again: maps of other files do not wait for all that is mapped to be
// looked at.
TEST_P(Grown, AgainAndAgainKeepsNobodyElseWaiting) {
    begin();
    NEED_MAPS();
    constexpr std::size_t others = 3000, pages = 400;
    uext4_file* other = open("/other");
    ASSERT_EQ(uext4_ftruncate(other, pages * page), 0);
    std::vector<char*> maps;
    for (std::size_t i = 0; i < others; ++i)
        maps.push_back(map(file, page, static_cast<off_t>(i % file_pages * page), PROT_READ, GetParam().flags));
    char* memory = map(other, pages * page, 0, PROT_READ | PROT_WRITE, GetParam().flags);
    void* changed = map(file, 4 * page, 0, PROT_READ | PROT_WRITE, GetParam().flags);
    std::atomic<bool> over{false};
    const Watchdog watchdog(std::chrono::seconds(30));
    std::thread changing([&] {
        while (!over.load()) {
            void* const longer = ::mremap(changed, 4 * page, 8 * page, MREMAP_MAYMOVE);
            if (longer != MAP_FAILED) changed = ::mremap(longer, 8 * page, 4 * page, 0);
            std::this_thread::sleep_for(std::chrono::microseconds(200));
        }
    });
    for (std::size_t p = 0; p < pages; ++p) {
        memory[p * page] = 'x';
        if (p % 16 == 0) {
            EXPECT_EQ(uext4_fsync(other), 0);
        }
    }
    over.store(true);
    changing.join();
    EXPECT_EQ(uext4_unmap(changed, 4 * page), 0);
    EXPECT_EQ(uext4_unmap(memory, pages * page), 0);
    for (char* one : maps) EXPECT_EQ(uext4_unmap(one, page), 0);
    uext4_close(other);
    end();
}

// Without /proc nobody knows what was added: it is refused, and not waited for.
int grow_without_proc(const char* image, const Mode& mode) {
    if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::umount2("/proc", MNT_DETACH) != 0)
        return 77;
    uext4_fs* fs = nullptr;
    uext4_file* file = nullptr;
    void* memory = nullptr;
    if (uext4_mount(image, mode.options, &fs) != 0 || uext4_open(fs, "/f", O_RDWR, 0, &file) != 0) return 1;
    if (uext4_map(file, 0, 4 * page, PROT_READ | PROT_WRITE, mode.flags, &memory) != 0) return 2;
    char* const longer = static_cast<char*>(::mremap(memory, 4 * page, 8 * page, MREMAP_MAYMOVE));
    if (longer == MAP_FAILED) return 3;
    const Watchdog watchdog(std::chrono::seconds(30));
    const int other = ::memfd_create("other", MFD_CLOEXEC);
    if (::write(other, longer + 5 * page, 100) != -1 || errno != EFAULT) return 4;
    if (!refused([&] { (void)load(longer + 6 * page); })) return 5;
    if (!refused([&] { longer[7 * page] = 'x'; })) return 6;
    if (load(longer + page) != 'b') return 7;
    if (uext4_unmap(longer, 4 * page) != 0 || ::munmap(longer + 4 * page, 4 * page) != 0) return 8;
    return uext4_close(file) == 0 && uext4_umount(fs) == 0 ? 0 : 9;
}

TEST_P(Grown, OfAProcessWithoutProc) {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can do without /proc";
    begin();
    NEED_MAPS();
    end();
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) ::_exit(grow_without_proc(path_.c_str(), GetParam()));
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status)) << status;
    if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "no mount name space is to be had here";
    EXPECT_EQ(WEXITSTATUS(status), 0) << "the step that failed";
    judge(path_);
}

// The library's own memory of a file is no part of a map that ends below it.
TEST_P(Grown, IsNotWhatLiesAbove) {
    begin();
    NEED_MAPS();
    constexpr std::size_t window = std::size_t{64} << 20;
    ASSERT_EQ(uext4_ftruncate(file, 2 * window), 0);
    char* first = map(file, page, 0, PROT_READ | PROT_WRITE, GetParam().flags);
    EXPECT_EQ(read(file, 1, window), std::string(1, 0));  // the second window of it is there
    for (const bool by_library : {false, true}) {
        char* memory = map(file, window, 0, PROT_READ | PROT_WRITE, GetParam().flags);
        if (by_library) EXPECT_EQ(uext4_unmap(memory, window), 0);
        else EXPECT_EQ(::munmap(memory, window), 0);
        EXPECT_EQ(uext4_unmap(memory + window, page), -EINVAL);
    }
    EXPECT_EQ(read(file, 1, window), std::string(1, 0));
    EXPECT_EQ(uext4_unmap(first, page), 0);
    end();
}

// The kernel reports to such a process only the faults of its own code, and none of system calls.
int grow_as_nobody(const char* image, const Mode& mode) {
    if (::setgroups(0, nullptr) != 0 || ::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0)
        return 1;
    uext4_fs* fs = nullptr;
    uext4_file* file = nullptr;
    if (uext4_mount(image, mode.options, &fs) != 0 || uext4_open(fs, "/f", O_RDWR, 0, &file) != 0) return 2;
    for (int request = 0; request < 5; ++request) {
        void* memory = nullptr;
        const int mapped = uext4_map(file, 0, 4 * page, PROT_READ | PROT_WRITE, mode.flags, &memory);
        if (mapped == -EPERM || mapped == -EOPNOTSUPP) return 77;
        if (mapped != 0) return 3;
        void* longer = ::mremap(memory, 4 * page, 8 * page, MREMAP_MAYMOVE);
        if (longer == MAP_FAILED) return 4;
        char* const map = static_cast<char*>(longer);
        const Watchdog watchdog(std::chrono::seconds(30));
        ssize_t moved = 0;
        std::size_t wanted = page;
        switch (request) {
            case 0: moved = uext4_pwrite(file, map + 5 * page, page, 5 * page); break;
            case 1: moved = uext4_pread(file, map + 5 * page, page, 5 * page); break;
            case 2: moved = uext4_pwrite(file, map + 5 * page, page, 6 * page); break;
            case 3: moved = uext4_pwrite(file, map + 3 * page, wanted = 3 * page, 3 * page); break;
            default: moved = uext4_pread(file, map + 3 * page, wanted = 3 * page, 3 * page); break;
        }
        if (moved != static_cast<ssize_t>(wanted)) return 10 + request;
        if (uext4_unmap(longer, 8 * page) != 0) return 5;
    }
    return uext4_close(file) == 0 && uext4_umount(fs) == 0 ? 0 : 6;
}

TEST_P(Grown, OfAProcessWithoutPrivileges) {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can become somebody else";
    begin("-t ext4 -b 4096 -E root_owner=65534:65534");
    ASSERT_EQ(uext4_fchown(file, 65534, 65534), 0);
    end();
    ASSERT_EQ(::chmod(path_.c_str(), 0666), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) ::_exit(grow_as_nobody(path_.c_str(), GetParam()));
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status)) << status;
    if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "there are no maps without privileges here";
    EXPECT_EQ(WEXITSTATUS(status), 0) << "the step that failed";
    judge(path_);
}

INSTANTIATE_TEST_SUITE_P(Modes, Grown, all_modes(), name_of);

}  // namespace
}  // namespace uext4::test::grown_test
