// Accesses that cannot be: SIGBUS for that access alone, EFAULT in a system call, and nothing is lost.
#include "mapped_image.h"

#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace uext4::test::refusal_test {
namespace {

constexpr std::size_t page = 4096;

class Refusal : public MappedImage {};

// ThreadSanitizer holds a lock of its own during an atomic store, and who loads from there would wait for it as well.
__attribute__((no_sanitize("thread"))) void store_unseen(char* to, char byte) {
    *static_cast<volatile char*>(to) = byte;
}

TEST_F(Refusal, ArgumentsAreChecked) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    uext4_file* file = open("/f");
    write(file, "x");
    void* memory = nullptr;
    EXPECT_EQ(uext4_map(file, 1, page, PROT_READ, MAP_SHARED, &memory), -EINVAL);
    EXPECT_EQ(uext4_map(file, 0, 0, PROT_READ, MAP_SHARED, &memory), -EINVAL);
    EXPECT_EQ(uext4_map(file, 0, page, PROT_READ, MAP_SHARED | MAP_FIXED, &memory), -EINVAL);
    EXPECT_EQ(uext4_map(file, 0, page, PROT_READ, 0, &memory), -EINVAL);
    EXPECT_EQ(uext4_map(file, -4096, page, PROT_READ, MAP_SHARED, &memory), -EINVAL);
    EXPECT_EQ(uext4_msync(reinterpret_cast<void*>(std::uintptr_t{page} * 16 + 1), page, MS_SYNC), -EINVAL);
    EXPECT_EQ(uext4_map(file, 0, page, PROT_READ, MAP_SHARED | MAP_LOCKED, &memory), -EINVAL);
    EXPECT_EQ(uext4_map(file, 0, page, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC, &memory), -EOPNOTSUPP);
    for (const int flags : {MAP_SHARED_VALIDATE | MAP_NORESERVE, MAP_SHARED | MAP_NORESERVE, int{MAP_PRIVATE}}) {
        char* accepted = map(file, page, 0, PROT_READ | PROT_WRITE, flags | MAP_POPULATE);
        EXPECT_EQ(accepted[0], 'x');
        EXPECT_EQ(uext4_unmap(accepted, page), 0);
        EXPECT_EQ(uext4_unmap(accepted, page), -EINVAL);  // it is gone
    }
    uext4_close(file);
    file = open("/f", O_RDONLY);
    EXPECT_EQ(uext4_map(file, 0, page, PROT_READ | PROT_WRITE, MAP_SHARED, &memory), -EACCES);
    char* own = map(file, page, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    own[0] = 'y';
    EXPECT_EQ(uext4_umount(fs), -EBUSY);
    uext4_close(file);
    EXPECT_EQ(uext4_umount(fs), -EBUSY);
    EXPECT_EQ(own[0], 'y');
    EXPECT_EQ(uext4_unmap(own, page), 0);
    unmount();
}

TEST_F(Refusal, AnAppendOnlyFileIsNotOverwrittenThroughAMap) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    uext4_file* file = open("/f");
    write(file, "before");
    char* earlier = map(file, page, 0, PROT_READ);
    unsigned int flags = 0;
    ASSERT_EQ(uext4_getflags(fs, "/f", &flags), 0);
    ASSERT_EQ(uext4_setflags(fs, "/f", flags | FS_APPEND_FL), 0) << uext4_strerror();
    void* memory = nullptr;
    for (const int protection : {PROT_READ, PROT_READ | PROT_WRITE, PROT_NONE})
        EXPECT_EQ(uext4_map(file, 0, page, protection, MAP_SHARED, &memory), -EACCES);
    uext4_file* appending = open("/f", O_RDWR | O_APPEND);
    EXPECT_EQ(uext4_map(appending, 0, page, PROT_READ, MAP_SHARED, &memory), -EACCES);
    uext4_close(appending);
    // A copy of one's own, and what was opened for loads.
    char* own = map(file, page, 0, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    own[0] = 'o';
    EXPECT_EQ(uext4_unmap(own, page), 0);
    uext4_file* reading = open("/f", O_RDONLY);
    char* seen = map(reading, page, 0, PROT_READ);
    EXPECT_EQ(seen[0], 'b');
    ASSERT_EQ(::mprotect(seen, page, PROT_READ | PROT_WRITE), 0);
    EXPECT_TRUE(refused([&] { seen[0] = 'S'; }));
    EXPECT_EQ(uext4_unmap(seen, page), 0);
    uext4_close(reading);
    EXPECT_EQ(read(file, 6), "before");
    // A map that was there before keeps what it might do.
    ASSERT_EQ(::mprotect(earlier, page, PROT_READ | PROT_WRITE), 0);
    earlier[0] = 'B';
    EXPECT_EQ(read(file, 6), "Before");
    EXPECT_EQ(uext4_unmap(earlier, page), 0);
    ASSERT_EQ(uext4_setflags(fs, "/f", flags), 0);
    uext4_close(file);
    unmount();
}

TEST_F(Refusal, LengthsAndOffsetsAreRefusedAsByTheKernel) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    uext4_file* file = open("/f");
    void* memory = nullptr;
    EXPECT_EQ(uext4_map(file, 0, SIZE_MAX, PROT_READ, MAP_SHARED, &memory), -ENOMEM);
    EXPECT_EQ(uext4_map(file, 0, 0, PROT_READ, MAP_SHARED, &memory), -EINVAL);
    EXPECT_EQ(uext4_map(file, 1, page, PROT_READ, MAP_SHARED, &memory), -EINVAL);
    EXPECT_EQ(uext4_map(file, INT64_MAX - page + 1, 2 * page, PROT_READ, MAP_SHARED, &memory), -EOVERFLOW);
    uext4_close(file);
    unmount();
}

TEST_F(Refusal, MsyncCountsAsTheKernel) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    uext4_file* file = open("/f");
    write(file, std::string(3 * page, 'a'));
    char* memory = map(file, 3 * page);
    for (std::size_t p = 0; p < 3; ++p) memory[p * page] = 'b';
    EXPECT_EQ(uext4_msync(memory, 0, MS_SYNC), 0);
    EXPECT_EQ(uext4_msync(memory, SIZE_MAX, MS_SYNC), 0);  // wraps to nothing
    EXPECT_EQ(uext4_msync(memory, SIZE_MAX - 2 * page, MS_SYNC), -ENOMEM);
    EXPECT_EQ(uext4_msync(memory + 1, page, MS_SYNC), -EINVAL);
    EXPECT_EQ(uext4_msync(memory, page, MS_SYNC | MS_ASYNC), -EINVAL);
    // A gap is an error, which what is behind it does not suffer from.
    EXPECT_EQ(uext4_unmap(memory + page, page), 0);
    EXPECT_EQ(uext4_msync(memory, 3 * page, MS_SYNC), -ENOMEM);
    EXPECT_EQ(uext4_msync(memory, page, MS_SYNC), 0);
    EXPECT_EQ(uext4_unmap(memory, 3 * page), 0);
    uext4_close(file);
    unmount();
}

TEST_F(Refusal, AFullFileSystemRefusesTheStoreOnly) {
    make("-t ext4 -b 4096 -m 0", "", "8M");
    NEED_MAPS();
    uext4_file* fill = open("/fill");
    uext4_file* file = open("/f");
    ASSERT_EQ(uext4_ftruncate(file, 64 * page), 0);
    char* memory = map(file, 64 * page);
    memory[0] = 'a';
    ASSERT_EQ(uext4_fsync(file), 0);
    const std::string chunk(64 * page, 'f');
    off_t at = 0;
    for (;;) {
        const ssize_t n = uext4_pwrite(fill, chunk.data(), chunk.size(), at);
        if (n <= 0) break;
        at += n;
    }
    ASSERT_EQ(uext4_fsync(fill), 0) << uext4_strerror();
    unsigned refusals = 0;
    for (std::size_t p = 1; p < 64; ++p) refusals += refused([&] { memory[p * page] = 'b'; });
    EXPECT_GT(refusals, 30u);
    memory[1] = 'c';  // where there is a block, stores go on
    EXPECT_EQ(read(file, 2), "ac");
    EXPECT_EQ(memory[40 * page + 7], 0);
    ASSERT_EQ(uext4_ftruncate(fill, 0), 0);
    ASSERT_EQ(uext4_syncfs(fs), 0);
    memory[63 * page] = 'd';  // and with space again everywhere
    EXPECT_EQ(read(file, 1, 63 * page), "d");
    EXPECT_EQ(uext4_unmap(memory, 64 * page), 0);
    uext4_close(file);
    uext4_close(fill);
    unmount();
}

// What was removed is deleted in the background: whoever wants its space waits for it, a store as well as a write.
TEST_F(Refusal, TheSpaceOfARemovedFileIsThereForStores) {
    make("-t ext4 -b 4096", "", "200M");
    NEED_MAPS();
    constexpr std::size_t size = 256 * page;
    const std::string chunk(size, 'f');
    for (const bool mapped : {false, true}) {
        for (int round = 0; round < 3; ++round) {
            uext4_file* full = open("/full");
            off_t at = 0;
            for (ssize_t n = 0; (n = uext4_pwrite(full, chunk.data(), chunk.size(), at)) > 0;) at += n;
            ASSERT_EQ(uext4_fsync(full), 0) << uext4_strerror();
            if (mapped) {
                char* seen = map(full, static_cast<std::size_t>(at), 0, PROT_READ);
                for (off_t p = 0; p < at; p += 64 * static_cast<off_t>(page))
                    EXPECT_EQ(static_cast<volatile char*>(seen)[p], 'f');
                EXPECT_EQ(uext4_unmap(seen, static_cast<std::size_t>(at)), 0);
            }
            uext4_close(full);
            ASSERT_EQ(uext4_unlink(fs, "/full"), 0);
            struct statvfs space{};
            ASSERT_EQ(uext4_statfs(fs, &space), 0);
            EXPECT_GT(space.f_bfree * space.f_bsize, static_cast<std::uint64_t>(at) / 2);
            uext4_file* file = open("/f");
            if (mapped) {
                write(file, chunk);
            } else {
                ASSERT_EQ(uext4_ftruncate(file, size), 0);
                char* memory = map(file, size);
                EXPECT_FALSE(refused([&] { std::memset(memory, 'm', size); }));
                EXPECT_EQ(uext4_unmap(memory, size), 0);
            }
            uext4_close(file);
            ASSERT_EQ(uext4_unlink(fs, "/f"), 0);
        }
    }
    unmount();
}

TEST_F(Refusal, ASystemCallGetsEfault) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    uext4_file* file = open("/f");
    write(file, std::string(page, 'a'));
    char* memory = map(file, 4 * page);
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    ASSERT_EQ(::write(ends[1], "hello", 5), 5);
    EXPECT_EQ(::read(ends[0], memory + 10, 5), 5) << strerror(errno);
    EXPECT_EQ(read(file, 5, 10), "hello");
    ASSERT_EQ(::write(ends[1], "again", 5), 5);
    errno = 0;
    EXPECT_EQ(::read(ends[0], memory + 2 * page, 5), -1);
    EXPECT_EQ(errno, EFAULT);
    // The file grows: what was refused is there.
    ASSERT_EQ(uext4_ftruncate(file, 4 * page), 0);
    memory[2 * page] = 'z';
    EXPECT_EQ(read(file, 1, 2 * page), "z");
    ::close(ends[0]);
    ::close(ends[1]);
    EXPECT_EQ(uext4_unmap(memory, 4 * page), 0);
    uext4_close(file);
    unmount();
}

// While a call is refused a page of a map, the page has a right less: not beyond the call.
TEST_F(Refusal, AStoreBehindACallThatWasRefusedIsSigbus) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    uext4_file* source = open("/source");
    write(source, std::string(page, 's'));
    uext4_file* file = open("/f");
    constexpr std::size_t pages = 40;
    ASSERT_EQ(uext4_ftruncate(file, pages * page), 0);
    for (const int kind : {MAP_SHARED, MAP_PRIVATE}) {
        char* memory = map(file, pages * page, 0, PROT_READ | PROT_WRITE, kind);
        unsigned int flags = 0;
        ASSERT_EQ(uext4_getflags(fs, "/f", &flags), 0);
        ASSERT_EQ(uext4_setflags(fs, "/f", flags | FS_IMMUTABLE_FL), 0) << uext4_strerror();
        for (std::size_t p = 0; p < pages; ++p) {
            const ssize_t count = uext4_pread(source, memory + p * page + 10, 100, 0);
            EXPECT_EQ(count, kind == MAP_SHARED ? -EFAULT : 100);
            EXPECT_EQ(refused_by([&] { store_unseen(memory + p * page + 10, 'x'); }), kind == MAP_SHARED ? SIGBUS : 0);
        }
        ASSERT_EQ(uext4_setflags(fs, "/f", flags), 0);
        memory[0] = 'd';
        EXPECT_EQ(uext4_unmap(memory, pages * page), 0);
    }
    EXPECT_EQ(read(file, 1), "d");
    uext4_close(source);
    uext4_close(file);
    unmount();
}

// Pages that were stored to before are no exception, whether they have been written back since or not.
TEST_F(Refusal, AnImmutableFileRefusesTheNextStore) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    for (const bool synced : {true, false}) {
        SCOPED_TRACE(synced);
        const char* path = synced ? "/synced" : "/f";
        uext4_file* file = open(path);
        write(file, std::string(2 * page, 'a'));
        char* memory = map(file, 2 * page);
        memory[0] = 'b';
        if (synced) {
            ASSERT_EQ(uext4_fsync(file), 0);
        }
        unsigned int flags = 0;
        ASSERT_EQ(uext4_getflags(fs, path, &flags), 0);
        ASSERT_EQ(uext4_setflags(fs, path, flags | FS_IMMUTABLE_FL), 0) << uext4_strerror();
        EXPECT_TRUE(refused([&] { memory[0] = 'c'; }));
        EXPECT_EQ(memory[0], 'b');
        ASSERT_EQ(uext4_setflags(fs, path, flags), 0);
        memory[0] = 'd';
        EXPECT_EQ(read(file, 1), "d");
        EXPECT_EQ(uext4_unmap(memory, 2 * page), 0);
        uext4_close(file);
    }
    unmount();
}

TEST_F(Refusal, FrozenStoresWaitForTheThaw) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    uext4_file* file = open("/f");
    write(file, std::string(page, 'a'));
    char* memory = map(file, page);
    memory[0] = 'b';
    ASSERT_EQ(uext4_freeze(fs), 0) << uext4_strerror();
    std::atomic<bool> stored{false};
    std::thread thread([&] {
        store_unseen(memory, 'c');
        stored = true;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    EXPECT_FALSE(stored);
    EXPECT_EQ(std::atomic_ref(memory[0]).load(), 'b');  // loads pass
    EXPECT_EQ(std::system(fmt::format("cp --sparse=always {0} {0}.copy", path_).c_str()), 0);
    judge(path_ + ".copy");
    ::unlink((path_ + ".copy").c_str());
    ASSERT_EQ(uext4_thaw(fs), 0);
    thread.join();
    EXPECT_EQ(read(file, 1), "c");
    EXPECT_EQ(uext4_unmap(memory, page), 0);
    uext4_close(file);
    unmount();
}

class Times : public Refusal, public testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(Modes, Times, testing::Values("data=ordered", "data=journal"));

TEST_P(Times, AreSetByAStore) {
    make("-t ext4 -b 4096", GetParam());
    NEED_MAPS();
    uext4_file* file = open("/f");
    write(file, std::string(page, 'a'));
    const timespec old[2] = {{1000, 0}, {1000, 0}};
    ASSERT_EQ(uext4_fsync(file), 0);
    ASSERT_EQ(uext4_futimens(file, old), 0);
    char* memory = map(file, page);
    struct stat st{};
    (void)*static_cast<volatile char*>(memory);
    ASSERT_EQ(uext4_fstat(file, &st), 0);
    EXPECT_EQ(st.st_mtime, 1000);
    const std::int64_t changed = st.st_ctim.tv_sec * 1'000'000'000 + st.st_ctim.tv_nsec;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // times are of a clock that ticks every few
    memory[0] = 'b';
    ASSERT_EQ(uext4_fstat(file, &st), 0);
    EXPECT_GT(st.st_mtime, 1000);
    EXPECT_GT(st.st_ctim.tv_sec * 1'000'000'000 + st.st_ctim.tv_nsec, changed);
    EXPECT_EQ(uext4_unmap(memory, page), 0);
    uext4_close(file);
    unmount();
}

TEST_F(Refusal, TheProgramsOwnUnmapIsNoticed) {
    make("-t ext4 -b 4096");
    NEED_MAPS();
    uext4_file* file = open("/f");
    write(file, std::string(8 * page, 'a'));
    char* memory = map(file, 4 * page);
    char* other = map(file, 4 * page, 4 * page);
    memory[0] = 'b';
    other[0] = 'c';
    ASSERT_EQ(::munmap(memory, 4 * page), 0);
    void* moved = ::mremap(other, 4 * page, 4 * page, MREMAP_MAYMOVE | MREMAP_FIXED, memory);
    ASSERT_NE(moved, MAP_FAILED) << std::strerror(errno);
    static_cast<char*>(moved)[page] = 'd';
    EXPECT_EQ(read(file, 1, 5 * page), "d");
    EXPECT_EQ(uext4_unmap(moved, 4 * page), 0) << uext4_strerror();
    EXPECT_EQ(read(file, 1), "b");
    EXPECT_EQ(read(file, 1, 4 * page), "c");
    uext4_close(file);
    unmount();
}

}  // namespace
}  // namespace uext4::test::refusal_test
