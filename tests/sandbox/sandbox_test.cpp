// A hostile thread in a sandboxed process tries each way out; what the server itself needs goes on working.
#include "sandbox/sandbox.h"
#include "device/file_device.h"
#include "tests/sandbox/sandboxed.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

namespace uext4::sandboxed {
namespace {

TEST_F(Sandbox, EveryWayOutIsShut) {
#ifdef UEXT4_NO_THREADS_IN_A_SANDBOX
    GTEST_SKIP() << "the address sanitizer's threads cannot be started in a sandbox";
#endif
    for (const auto& [threads_first, reach] :
         {std::pair(false, SandboxProfile::image), std::pair(true, SandboxProfile::image),
          std::pair(false, SandboxProfile::server), std::pair(true, SandboxProfile::server)}) {
        in_child([&]() -> std::vector<std::string> {
            std::vector<std::string> open_ways;
            std::atomic<bool> go{false};
            std::atomic<bool> bare{false};
            auto hostile = [&] {
                if (threads_first && !drop_capabilities_except({}))
                    open_ways.emplace_back("capabilities cannot be given up");
                bare.store(true);
                while (!go.load()) std::this_thread::yield();
                for (const Way& way : ways_out()) {
                    errno = 0;
                    const long result = way.go();
                    const bool shut =
                        result < 0 && (errno == EPERM || (errno == ENOSYS && way.name == std::string("clone3")));
                    if (!shut)
                        open_ways.push_back(fmt::format("{} gave {} ({})", way.name, result, std::strerror(errno)));
                }
            };
            std::thread before;
            if (threads_first) before = std::thread(hostile);
            while (threads_first && !bare.load()) std::this_thread::yield();
            if (auto entered = enter_sandbox(reach); !entered) return {entered.error().what};
            if (!threads_first) before = std::thread(hostile);
            go.store(true);
            before.join();
            return open_ways;
        });
    }
}

// Whatever is not on this list, by its number, and with arguments that none of the calls allowed in part takes.
TEST_F(Sandbox, EveryOtherCallIsRefused) {
    // clang-format off
    static constexpr long plain[] = {
        SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_preadv2,
        SYS_pwritev2, SYS_lseek, SYS_fstat, SYS_fstatfs, SYS_fsync, SYS_fdatasync, SYS_sync_file_range, SYS_ftruncate,
        SYS_fallocate, SYS_fadvise64, SYS_copy_file_range, SYS_splice, SYS_vmsplice, SYS_tee, SYS_close, SYS_dup,
        SYS_dup2, SYS_dup3, SYS_flock, SYS_poll, SYS_ppoll, SYS_select, SYS_pselect6, SYS_epoll_create1, SYS_epoll_ctl,
        SYS_epoll_wait, SYS_epoll_pwait, SYS_eventfd2, SYS_pipe2, SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect,
        SYS_brk, SYS_futex, SYS_set_robust_list, SYS_rseq, SYS_exit, SYS_exit_group,
        SYS_gettid, SYS_getpid, SYS_getppid, SYS_sched_yield, SYS_restart_syscall, SYS_wait4,
        SYS_set_tid_address, SYS_nanosleep, SYS_clock_nanosleep, SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday,
        SYS_time, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigtimedwait, SYS_rt_sigpending,
        SYS_sigaltstack, SYS_getrandom, SYS_uname, SYS_sysinfo, SYS_getrusage, SYS_getuid, SYS_geteuid, SYS_getgid,
        SYS_getegid,
    };
    // clang-format on
    // Those of the kernel's own probes, which no filter is asked about, and which end a program that makes them.
    constexpr long uretprobe = 335, uprobe = 336;
    constexpr long beyond_the_newest = 600;
    for (const SandboxProfile reach : {SandboxProfile::image, SandboxProfile::server}) {
        in_child([&]() -> std::vector<std::string> {
            std::vector<std::string> open_ways;
            if (auto entered = enter_sandbox(reach); !entered) return {entered.error().what};
            for (long call = 0; call < beyond_the_newest; ++call) {
                if (std::ranges::find(plain, call) != std::end(plain)) continue;
                if (call == uretprobe || call == uprobe) continue;
                if (call == SYS_recvmsg && reach == SandboxProfile::server) continue;  // which is passed descriptors
                errno = 0;
                const long result = ::syscall(call, -1L, -1L, -1L, -1L, -1L, -1L);
                if (result != -1 || errno != (call == SYS_clone3 ? ENOSYS : EPERM))
                    open_ways.push_back(fmt::format("call {} gave {} ({})", call, result, std::strerror(errno)));
            }
            return open_ways;
        });
    }
}

// Descriptors come to a server only, and from whom it is connected with already.
#ifdef __x86_64__
// By the numbers of another table: that is the end of all threads, and not of one alone, whose work others would wait
// for.
TEST_F(Sandbox, ACallOfAnotherTableEndsTheProcess) {
#ifdef UEXT4_NO_THREADS_IN_A_SANDBOX
    GTEST_SKIP() << "the address sanitizer's threads cannot be started in a sandbox";
#endif
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        const rlimit no_core{0, 0};
        ::setrlimit(RLIMIT_CORE, &no_core);
        if (!enter_sandbox(SandboxProfile::server)) ::_exit(1);
        constexpr long x32 = 0x40000000;
        std::thread([] { ::syscall(x32 + SYS_getpid); }).join();
        ::_exit(2);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << status;
}
#endif

TEST_F(Sandbox, OnlyAServerIsPassedDescriptors) {
    for (const SandboxProfile reach : {SandboxProfile::image, SandboxProfile::server}) {
        in_child([&]() -> std::vector<std::string> {
            int ends[2];
            if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return {"no sockets"};
            if (auto entered = enter_sandbox(reach); !entered) return {entered.error().what};
            std::vector<std::string> wrong;
            char word = 'x';
            iovec part{&word, 1};
            msghdr message{};
            message.msg_iov = &part;
            message.msg_iovlen = 1;
            if (::send(ends[0], &word, 1, 0) != 1) wrong.emplace_back("nothing can be sent");
            const bool came = ::recvmsg(ends[1], &message, MSG_DONTWAIT) == 1;
            if (came != (reach == SandboxProfile::server))
                wrong.emplace_back(came ? "recvmsg is allowed" : "recvmsg is refused");
            if (::sendmsg(ends[0], &message, 0) >= 0) wrong.emplace_back("sendmsg is allowed");
            return wrong;
        });
    }
}
// What could be asked of the threads from outside is tests/mount/sandbox_test.py.
TEST_F(Sandbox, AThreadThatKeepsCapabilitiesIsNoSandbox) {
    if (::geteuid() != 0) GTEST_SKIP() << "there are no capabilities to keep";
    in_child([]() -> std::vector<std::string> {
        std::atomic<bool> end{false};
        std::thread with([&] {
            while (!end.load()) std::this_thread::yield();
        });
        std::vector<std::string> wrong;
        const Result<void> entered = enter_sandbox();
        if (entered || entered.error().code != EPERM || in_sandbox()) wrong.emplace_back("a thread was left its own");
        end.store(true);
        with.join();
        return wrong;
    });
}

// As before: by lines on a terminal, by buffers elsewhere.
TEST_F(Sandbox, OutputGoesOutAsItDid) {
    const int some_terminal = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    const bool has_terminals = some_terminal >= 0 && ::close(some_terminal) == 0;
    for (const bool terminal : {true, false}) {
        if (terminal && !has_terminals) continue;
        in_child([&]() -> std::vector<std::string> {
            int ends[2];
            if (::pipe2(ends, O_CLOEXEC) != 0) return {"no pipe"};
            if (terminal) {
                ends[0] = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
                if (ends[0] < 0 || ::grantpt(ends[0]) != 0 || ::unlockpt(ends[0]) != 0) return {"no terminal"};
                ends[1] = ::open(::ptsname(ends[0]), O_RDWR | O_NOCTTY | O_CLOEXEC);
            }
            if (ends[1] < 0 || ::dup2(ends[1], STDOUT_FILENO) < 0) return {"no output"};
            if (auto entered = enter_sandbox(); !entered) return {entered.error().what};
            if (std::printf("a line\nand more") < 0) return {"nothing can be printed"};
            pollfd out{ends[0], POLLIN, 0};
            char got[64];
            const bool came = ::poll(&out, 1, 0) == 1;
            if (came != terminal) return {terminal ? "a line is held back" : "a line is not held back"};
            if (terminal && ::read(ends[0], got, sizeof got) != 8) return {"not the line came"};  // with its \r
            if (std::fflush(stdout) != 0 || ::poll(&out, 1, 0) != 1) return {"the rest does not come"};
            return {};
        });
    }
    if (!has_terminals) GTEST_SKIP() << "no terminals here: without one it does";
}

TEST_F(Sandbox, WhatAServerNeedsGoesOn) {
#ifdef UEXT4_NO_THREADS_IN_A_SANDBOX
    GTEST_SKIP() << "the address sanitizer's threads cannot be started in a sandbox";
#endif
    in_child([&]() -> std::vector<std::string> {
        auto opened = FileDevice::open(path);
        if (!opened) return {opened.error().what};
        int ends[2];
        if (::pipe2(ends, O_CLOEXEC) != 0) return {"no pipe"};
        if (auto entered = enter_sandbox(); !entered) return {entered.error().what};
        std::vector<std::string> wrong;
        struct stat pipe{};
        if (::syscall(SYS_fstat, ends[0], &pipe) != 0 || !S_ISFIFO(pipe.st_mode))
            wrong.emplace_back("fstat is refused");
        auto need = [&](const Result<void>& result) {
            if (!result) wrong.push_back(result.error().what);
        };
        std::vector<std::byte> block(4096, std::byte{7}), back(4096);
        need((*opened)->write(8192, block));
        need((*opened)->write_fua(16384, block));
        need((*opened)->flush());
        need((*opened)->discard(8192, 4096));
        need((*opened)->read_from_medium(16384, back));
        if (back != block) wrong.push_back("other bytes came back");
        need((*opened)->read(8192, back));
        std::thread worker([&] {
            if (::write(ends[1], "x", 1) != 1) wrong.push_back("a pipe cannot be written");
        });
        worker.join();
        char got = 0;
        if (::read(ends[0], &got, 1) != 1) wrong.push_back("a pipe cannot be read");
        std::string big(64 << 20, 'x');
        if (big[big.size() - 1] != 'x') wrong.push_back("no memory");
        ::usleep(1000);
        return wrong;
    });
}

}  // namespace
}  // namespace uext4::sandboxed
