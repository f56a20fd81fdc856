// Real maps through the C++ interface: as this kernel serves them, and as one does that cannot tell the first store.
#include "met_signal.h"

#include "api/file_system.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace uext4 {
namespace {

constexpr std::size_t page = 4096;

// What system calls are given.
class Pipe {
public:
    Pipe() { EXPECT_EQ(::pipe(ends_), 0); }
    ~Pipe() {
        ::close(ends_[0]);
        ::close(ends_[1]);
    }
    // What read(2) into the memory answers: 0, or the error.
    int into(char* memory) {
        char bytes[] = "abc";
        EXPECT_EQ(::write(ends_[1], bytes, 3), 3);
        if (::read(ends_[0], memory, 3) == 3) return 0;
        const int error = errno;
        EXPECT_EQ(::read(ends_[0], bytes, 3), 3);
        return error;
    }
    int from(const char* memory) {
        char bytes[3];
        if (::write(ends_[1], memory, 3) != 3) return errno;
        EXPECT_EQ(::read(ends_[0], bytes, 3), 3);
        return 0;
    }

private:
    int ends_[2] = {-1, -1};
};

class Engine : public testing::TestWithParam<bool> {
protected:
    void make(const std::string& mke2fs, const std::string& options, const char* size = "48M") {
        path_ = fmt::format("/dev/shm/uext4-engine-{}", ::getpid());
        ASSERT_EQ(std::system(fmt::format("mke2fs -q -F {} {} {} >/dev/null 2>&1", mke2fs, path_, size).c_str()), 0);
        mount(options);
    }
    void mount(const std::string& options) {
        auto mounted = FileSystem::mount(path_, options, [](const std::string&) {});
        ASSERT_TRUE(mounted) << mounted.error().what;
        fs = std::move(*mounted);
        if (GetParam()) fs->maps().disable_features();
    }
    void TearDown() override {
        if (fs) unmount();
        ::unlink(path_.c_str());
    }
    void unmount() {
        auto done = fs->unmount();
        EXPECT_TRUE(done) << done.error().what;
        fs.reset();
        EXPECT_EQ(std::system(fmt::format("e2fsck -fn {} >/dev/null 2>&1", path_).c_str()), 0);
    }
    std::unique_ptr<OpenFile> open(const char* name) {
        auto file = fs->open_path(name, O_CREAT | O_RDWR, 0644, Credentials::root());
        EXPECT_TRUE(file) << file.error().what;
        return std::move(*file);
    }
    // Null, and a skipped test, where there are no maps.
    char* map(OpenFile& file, std::size_t length, int flags = MAP_SHARED) {
        auto memory = file.map(0, length, PROT_READ | PROT_WRITE, flags);
        if (!memory) reason_ = memory.error().what;
        return memory ? static_cast<char*>(*memory) : nullptr;
    }
    void unmap(void* memory, std::size_t length) {
        auto done = ClientMaps::unmap(memory, length);
        EXPECT_TRUE(done) << done.error().what;
    }
    static void write(OpenFile& file, std::size_t at, const std::string& bytes) {
        ok(file.write(at, std::as_bytes(std::span(bytes))));
    }
    std::string read(OpenFile& file, std::size_t at, std::size_t n) {
        std::string out(n, '-');
        auto got = file.read(at, std::as_writable_bytes(std::span(out)));
        EXPECT_TRUE(got) << got.error().what;
        return out;
    }
    template <class T>
    static void ok(const Result<T>& result) {
        EXPECT_TRUE(result) << result.error().what;
    }

    std::unique_ptr<FileSystem> fs;
    std::string path_, reason_;
};

#define NEED(memory) \
    if (!(memory)) GTEST_SKIP() << reason_

TEST_P(Engine, NoStoreIsMissed) {
    for (const char* options : {"cache=1M", "cache=1M,data=journal"}) {
        make("-t ext4 -b 1024 -O inline_data", options);
        auto large = open("/large");
        ok(large->write(0, std::vector<std::byte>(4 << 20)));
        auto file = open("/f");
        ok(file->truncate(64 * page));
        char* memory = map(*file, 64 * page);
        NEED(memory);
        for (int round = 1; round < 6; ++round) {
            // Loaded first in some rounds: what a load made visible must not let a store through unseen.
            if (round % 2)
                for (std::size_t p = 0; p < 64; ++p) (void)static_cast<volatile char*>(memory)[p * page];
            for (std::size_t p = round % 3; p < 64; p += 3) memory[p * page + 7] = static_cast<char>(round);
            ok(file->sync(false));
            // More than the cache holds, in reads so small that they go through it: mapped pages go.
            for (std::size_t at = 0; at < 4 << 20; at += 16 << 10)
                EXPECT_EQ(read(*large, at, 16 << 10).size(), 16u << 10);
            EXPECT_LT(file->inode().pages().cached_folios(), 64u);
        }
        const std::string last(memory, 64 * page);
        unmap(memory, 64 * page);
        EXPECT_EQ(read(*file, 0, last.size()), last);
        file.reset();
        large.reset();
        unmount();
        mount(options);
        EXPECT_EQ(read(*open("/f"), 0, last.size()), last);
        unmount();
    }
}

// A call that waits for itself never ends, and takes no signal: the test's time limit is what ends it.
TEST_P(Engine, ABufferMayHaveGrown) {
    for (const char* options : {"", "data=journal"}) {
        make("-t ext4 -b 4096", options);
        auto file = open("/f");
        std::string bytes;
        for (char letter = 'a'; letter < 'i'; ++letter) bytes.append(page, letter);
        write(*file, 0, bytes);
        ok(file->sync(false));
        for (const int flags : {MAP_SHARED, MAP_PRIVATE}) {
            char* memory = map(*file, 8 * page, flags);
            NEED(memory);
            ASSERT_EQ(::munmap(memory + 4 * page, 4 * page), 0);
            ASSERT_EQ(::mremap(memory, 4 * page, 8 * page, 0), memory) << std::strerror(errno);
            ok(file->write(5 * page, std::as_bytes(std::span(memory + 5 * page, page))));
            ok(file->write(0, std::as_bytes(std::span(memory + 6 * page, page))));
            ok(file->read(7 * page, std::as_writable_bytes(std::span(memory + 7 * page, page))));
            EXPECT_EQ(read(*file, 0, 1), "g");
            EXPECT_EQ(memory[7 * page], 'h');
            unmap(memory, 8 * page);
        }
        EXPECT_EQ(read(*file, page, 7 * page), bytes.substr(page));
        file.reset();
        unmount();
    }
}

TEST_P(Engine, APopulatedMapIsThere) {
    make("-t ext4 -b 4096", "");
    auto file = open("/f");
    const std::string bytes(32 * page, 'p');
    ok(file->write(0, std::as_bytes(std::span(bytes))));
    ok(file->sync(false));
    char* memory = map(*file, 40 * page, MAP_SHARED | MAP_POPULATE);
    NEED(memory);
    std::vector<unsigned char> there(40);
    ASSERT_EQ(::mincore(memory, 40 * page, there.data()), 0);
    for (std::size_t p = 0; p < 32; ++p) EXPECT_TRUE(there[p] & 1) << p;
    EXPECT_EQ(std::string(memory, bytes.size()), bytes);
    memory[31 * page] = 'q';
    EXPECT_EQ(read(*file, 31 * page, 2), "qp");
    unmap(memory, 40 * page);
    file.reset();
}

// A store that meets the freeze in the same moment as the thaw is not forgotten.
TEST_P(Engine, FreezesAndThawsByTurns) {
    make("-t ext4 -b 4096", "");
    auto file = open("/f");
    ok(file->truncate(8 * page));
    char* memory = map(*file, 8 * page);
    NEED(memory);
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t)
        threads.emplace_back([&, t] {
            for (unsigned n = 0; !stop; ++n) memory[(n % 8) * page + t] = static_cast<char>(n);
        });
    for (int i = 0; i < 300; ++i) {
        ok(fs->freeze());
        const std::string frozen = read(*file, 0, 8 * page);
        std::this_thread::yield();
        EXPECT_EQ(read(*file, 0, 8 * page), frozen);
        ok(fs->thaw());
    }
    stop = true;
    for (auto& thread : threads) thread.join();
    unmap(memory, 8 * page);
    file.reset();
}

// What msync acknowledged is there after the process is killed.
TEST_P(Engine, SyncedStoresSurviveAKill) {
    for (const char* options : {"", "data=journal"}) {
        make("-t ext4 -b 1024", options);
        {
            auto file = open("/probe");
            ok(file->truncate(page));
            char* memory = map(*file, page);
            NEED(memory);
            unmap(memory, page);
        }
        unmount();
        const pid_t child = ::fork();
        if (child == 0) {
            mount(options);
            auto file = open("/f");
            if (!file->truncate(16 * page)) ::_exit(1);
            char* memory = map(*file, 16 * page);
            for (std::size_t p = 0; p < 16; ++p) memory[p * page + p] = 'k';
            if (!FileSystem::sync_maps(memory, 16 * page, true)) ::_exit(2);
            for (std::size_t p = 0; p < 16; ++p) memory[p * page + 100] = 'n';
            ::kill(::getpid(), SIGKILL);
        }
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        EXPECT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
        mount(options);
        auto file = open("/f");
        const std::string now = read(*file, 0, 16 * page);
        for (std::size_t p = 0; p < 16; ++p) EXPECT_EQ(now[p * page + p], 'k') << p;
        file.reset();
        unmount();
    }
}

// Pages that were stored to before need no sync in between.
TEST_P(Engine, AFileThatBecameImmutableTakesNoStore) {
    for (const char* options : {"", "data=journal"}) {
        make("-t ext4 -b 4096 -O inline_data", options);
        for (const char* name : {"/inline", "/large"}) {
            auto file = open(name);
            ok(file->truncate(name[1] == 'i' ? 20 : 3 * page));
            char* memory = map(*file, page);
            NEED(memory);
            auto source = open("/source");
            ok(source->write(0, std::as_bytes(std::span("xyz", 3))));
            const Bytes target(reinterpret_cast<std::byte*>(memory), 3);
            memory[0] = 'a';
            const std::uint32_t flags = fs->get_flags(file->inode());
            ok(fs->set_flags(file->inode(), flags | format::inode_flag::immutable, Credentials::root(), true));
            const auto refused = source->read(0, target);
            ASSERT_FALSE(refused);
            EXPECT_EQ(refused.error().code, EFAULT);
            EXPECT_EQ(memory[0], 'a');
            ok(fs->set_flags(file->inode(), flags, Credentials::root(), true));
            ok(source->read(0, target));
            EXPECT_EQ(read(*file, 0, 3), "xyz");
            unmap(memory, page);
        }
        unmount();
        ::unlink(path_.c_str());
    }
}

// A block of 64 KiB is one folio of many pages: only those that are in the file are shown.
TEST_P(Engine, PagesOfLargeBlocks) {
    make("-t ext4 -b 65536", "", "512M");
    auto file = open("/f");
    ok(file->truncate(40 * page));
    char* memory = map(*file, 48 * page);
    NEED(memory);
    for (std::size_t p = 0; p < 40; ++p) memory[p * page] = static_cast<char>(p + 1);
    ok(file->truncate(page + 100));
    EXPECT_EQ(memory[page], 2);
    memory[page + 200] = 'x';
    ok(file->sync(false));
    ok(file->truncate(40 * page));
    for (std::size_t p = 1; p < 40; ++p) EXPECT_EQ(memory[p * page + 200], 0) << p;
    for (std::size_t p = 2; p < 40; ++p) EXPECT_EQ(memory[p * page], 0) << p;
    memory[39 * page] = 'y';
    ok(file->truncate(2 * page));
    auto bounced = file->read(0, Bytes(reinterpret_cast<std::byte*>(memory + 2 * page), 16));
    EXPECT_FALSE(bounced);  // past the end
    unmap(memory, 48 * page);
    EXPECT_EQ(read(*file, page, 2), std::string("\2\0", 2));
    file.reset();
}

// Nothing is left of a refusal when the library has answered that its reason is gone.
TEST_P(Engine, ARefusalEndsWithItsReason) {
    make("-t ext4 -b 4096", "");
    auto file = open("/f");
    write(*file, 0, std::string(2 * page, 'a'));
    ok(file->sync(false));
    char* memory = map(*file, 4 * page);
    NEED(memory);
    Pipe pipe;
    const std::uint32_t flags = fs->get_flags(file->inode());
    for (int i = 0; i < 20; ++i) {
        ok(fs->set_flags(file->inode(), flags | FS_IMMUTABLE_FL, Credentials::root(), true));
        EXPECT_EQ(pipe.into(memory), EFAULT);
        ok(fs->set_flags(file->inode(), flags, Credentials::root(), true));
        EXPECT_EQ(signal_of([&] { static_cast<volatile char*>(memory)[0] = 'k'; }), 0) << i;
        // And what the program sets stays.
        ASSERT_EQ(::mprotect(memory, page, PROT_READ), 0);
        if (i < 3) std::this_thread::sleep_for(std::chrono::milliseconds(50));
        EXPECT_EQ(signal_of([&] { static_cast<volatile char*>(memory)[1] = 'l'; }), SIGSEGV) << i;
        ASSERT_EQ(::mprotect(memory, page, PROT_READ | PROT_WRITE), 0);
        // Past the end, and then not.
        EXPECT_EQ(pipe.into(memory + 2 * page), EFAULT);
        ok(file->truncate(3 * page));
        EXPECT_EQ(signal_of([&] { static_cast<volatile char*>(memory)[2 * page] = 'm'; }), 0) << i;
        ok(file->truncate(2 * page));
    }
    EXPECT_EQ(read(*file, 0, 2), "ka");
    unmap(memory, 4 * page);
    file.reset();
}

// Who has SIGBUS blocked or ignored does not live on, and ends as any program does that the kernel serves.
TEST_P(Engine, ASignalThatCannotBeTakenEndsTheProcess) {
    make("-t ext4 -b 4096", "");
    auto probe = open("/probe");
    char* probed = map(*probe, page);
    NEED(probed);
    unmap(probed, page);
    probe.reset();
    unmount();
    auto opened = Userfault::open();
    ok(opened);
    const int expected = !GetParam() && opened->features().poison ? SIGBUS : SIGSEGV;
    for (const bool ignored : {false, true}) {
        const pid_t child = ::fork();
        if (child == 0) {
            const rlimit no_core{0, 0};
            ::setrlimit(RLIMIT_CORE, &no_core);
            std::signal(SIGSEGV, SIG_DFL);
            mount("");
            auto file = open("/f");
            write(*file, 0, std::string(page, 'a'));
            char* memory = map(*file, page);
            if (!memory) ::_exit(1);
            ok(fs->set_flags(file->inode(), fs->get_flags(file->inode()) | FS_IMMUTABLE_FL, Credentials::root(), true));
            sigset_t blocked;
            sigemptyset(&blocked);
            sigaddset(&blocked, SIGBUS);
            if (ignored) std::signal(SIGBUS, SIG_IGN);
            else ::pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
            static_cast<volatile char*>(memory)[0] = 'k';
            ::_exit(2);
        }
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        EXPECT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
        EXPECT_EQ(WTERMSIG(status), expected);
    }
}

// The pages of a folio that lie past the end are refused to everybody, at once, and nothing beside them is.
TEST_P(Engine, PastTheEndInAFolio) {
    make("-t ext4 -b 65536", "", "512M");
    auto file = open("/f");
    write(*file, 0, std::string(2 * page, 'a'));
    char* memory = map(*file, 16 * page);
    NEED(memory);
    std::atomic<bool> stop{false};
    std::atomic<unsigned> hurt{0};
    std::thread beside([&] {
        while (!stop) {
            hurt += signal_of([&] { (void)static_cast<volatile char*>(memory)[page]; }) != 0;
            hurt += signal_of([&] { static_cast<volatile char*>(memory)[1] = 'a'; }) != 0;
        }
    });
    Pipe pipe;
    for (std::size_t p = 2; p < 8; ++p) {
        auto* at = static_cast<volatile char*>(memory) + p * page;
        EXPECT_EQ(signal_of([&] { (void)*at; }), SIGBUS) << p;
        EXPECT_EQ(signal_of([&] { *at = 'x'; }), SIGBUS) << p;
        EXPECT_EQ(pipe.into(memory + p * page), EFAULT);
        EXPECT_EQ(pipe.from(memory + p * page), EFAULT);
        ok(file->truncate((p + 1) * page));
        EXPECT_EQ(signal_of([&] { EXPECT_EQ(*at, 0); }), 0) << p;
        ok(file->truncate(2 * page));
    }
    stop = true;
    beside.join();
    EXPECT_EQ(hurt, 0u);
    unmap(memory, 16 * page);
    file.reset();
}

// MADV_REMOVE takes pages from under the cache: what is on the device stays, what was not there yet is zeros, and every
// way to the file says the same.
TEST_P(Engine, MemoryThatTheProgramThrowsAway) {
    for (const char* options : {"", "data=journal"}) {
        for (const char* format : {"-t ext4 -b 4096", "-t ext4 -b 1024"}) {
            make(format, options);
            auto file = open("/f");
            std::string expected;
            for (int p = 0; p < 16; ++p) expected += std::string(page, static_cast<char>('a' + p));
            write(*file, 0, expected);
            ok(file->sync(false));
            char* memory = map(*file, 16 * page);
            NEED(memory);
            EXPECT_EQ(read(*file, 0, expected.size()), expected);  // cached
            for (const std::size_t p : {0, 1}) {
                memory[p * page] = '!';
                expected.replace(p * page, page, page, '\0');
            }
            ASSERT_EQ(::madvise(memory, 8 * page, MADV_REMOVE), 0);
            // A part of a page is written before anybody has looked.
            write(*file, 2 * page + 5, std::string("hello"));
            expected.replace(2 * page + 5, 5, "hello");
            for (std::size_t p = 0; p < 10; p += 2) {
                EXPECT_EQ(signal_of([&] { EXPECT_EQ(memory[p * page], expected[p * page]) << p; }), 0) << p;
                EXPECT_EQ(signal_of([&] { memory[p * page + 9] = 'N'; }), 0) << p;
                expected[p * page + 9] = 'N';
            }
            EXPECT_EQ(read(*file, 0, expected.size()), expected);
            EXPECT_EQ(signal_of([&] { EXPECT_EQ(std::string(memory, 16 * page), expected); }), 0);
            ok(file->sync(false));
            ASSERT_EQ(::madvise(memory, 16 * page, MADV_REMOVE), 0);
            EXPECT_EQ(signal_of([&] { EXPECT_EQ(std::string(memory, 16 * page), expected); }), 0);
            EXPECT_EQ(read(*file, 0, expected.size()), expected);
            unmap(memory, 16 * page);
            file.reset();
            unmount();
            mount(options);
            EXPECT_EQ(read(*open("/f"), 0, expected.size()), expected);
            unmount();
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Engine, testing::Bool(),
                         [](const auto& kernel) { return kernel.param ? "older" : "running"; });

}  // namespace
}  // namespace uext4
