// A hostile thread in a sandboxed process tries each way out; what the server itself needs goes on working.
#include "sandbox/sandbox.h"
#include "device/file_device.h"
#include "sandbox/host_changes.h"
#include "tests/hostile/batches.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>
#include <thread>
#include <tuple>

namespace uext4 {
namespace {

struct Way {
    const char* name;
    long (*go)();
};

const open_how how{O_RDONLY, 0, 0};
char* const no_words[] = {nullptr};
unsigned char ring_parameters[120];
struct stat found;
struct statx found_x;
char text[4096];
constexpr const char* secret = "/etc/shadow";
// Somebody else's file, and a descriptor of it, as a process may have one from whoever started it.
std::string victims_name;
const char* victim = "";
int opened_before = -1;

// Of a stack of its own, which it leaves at once where it is started.
long thread_in(int name_space) {
    alignas(16) static char stack[64 << 10];
    return ::clone([](void*) -> int { return static_cast<int>(::syscall(SYS_exit, 0)); }, stack + sizeof stack,
                   CLONE_THREAD | CLONE_SIGHAND | CLONE_VM | name_space, nullptr);
}

const Way ways[] = {
    {"open", [] { return ::syscall(SYS_open, "/etc/passwd", O_RDONLY); }},
    {"openat", [] { return ::syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY); }},
    {"openat2", [] { return ::syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", &how, sizeof how); }},
    {"creat", [] { return ::syscall(SYS_creat, "/dev/shm/uext4-hostile", 0600); }},
    {"open_by_handle_at", [] { return ::syscall(SYS_open_by_handle_at, AT_FDCWD, nullptr, O_RDONLY); }},
    {"open_tree", [] { return ::syscall(SYS_open_tree, AT_FDCWD, "/", 0); }},
    {"stat", [] { return ::syscall(SYS_stat, secret, &found); }},
    {"lstat", [] { return ::syscall(SYS_lstat, secret, &found); }},
    {"newfstatat", [] { return ::syscall(SYS_newfstatat, AT_FDCWD, secret, &found, 0); }},
    {"newfstatat of a link", [] { return ::syscall(SYS_newfstatat, AT_FDCWD, secret, &found, AT_SYMLINK_NOFOLLOW); }},
    {"newfstatat of the current directory",
     [] { return ::syscall(SYS_newfstatat, AT_FDCWD, "", &found, AT_EMPTY_PATH); }},
    {"newfstatat beside AT_EMPTY_PATH", [] { return ::syscall(SYS_newfstatat, 0, secret, &found, AT_EMPTY_PATH); }},
    {"statx", [] { return ::syscall(SYS_statx, AT_FDCWD, secret, 0, STATX_BASIC_STATS, &found_x); }},
    {"access", [] { return ::syscall(SYS_access, secret, F_OK); }},
    {"faccessat", [] { return ::syscall(SYS_faccessat, AT_FDCWD, secret, F_OK); }},
    {"faccessat2", [] { return ::syscall(SYS_faccessat2, AT_FDCWD, secret, F_OK, 0); }},
    {"readlink", [] { return ::syscall(SYS_readlink, "/proc/self/exe", text, sizeof text); }},
    {"readlinkat", [] { return ::syscall(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", text, sizeof text); }},
    {"statfs", [] { return ::syscall(SYS_statfs, "/", text); }},
    {"getcwd", [] { return ::syscall(SYS_getcwd, text, sizeof text); }},
    {"getxattr", [] { return ::syscall(SYS_getxattr, "/", "security.capability", text, sizeof text); }},
    {"listxattr", [] { return ::syscall(SYS_listxattr, "/", text, sizeof text); }},
    {"name_to_handle_at", [] { return ::syscall(SYS_name_to_handle_at, AT_FDCWD, secret, text, text, 0); }},
    {"truncate", [] { return ::syscall(SYS_truncate, "/dev/shm/uext4-hostile-none", 0); }},
    {"inotify_init1", [] { return ::syscall(SYS_inotify_init1, 0); }},
    {"fanotify_init", [] { return ::syscall(SYS_fanotify_init, 0, 0); }},
    {"unlink", [] { return ::syscall(SYS_unlink, "/dev/shm/uext4-hostile-none"); }},
    {"mkdir", [] { return ::syscall(SYS_mkdir, "/dev/shm/uext4-hostile-folder", 0700); }},
    {"rename", [] { return ::syscall(SYS_rename, "/dev/shm/uext4-none", "/dev/shm/uext4-other"); }},
    {"chmod", [] { return ::syscall(SYS_chmod, victim, 04777); }},
    {"fchmodat", [] { return ::syscall(SYS_fchmodat, AT_FDCWD, victim, 04777); }},
    {"fchmodat2", [] { return ::syscall(452, AT_FDCWD, victim, 04777, AT_SYMLINK_NOFOLLOW); }},
    {"fchmod", [] { return ::syscall(SYS_fchmod, opened_before, 04777); }},
    {"chown", [] { return ::syscall(SYS_chown, victim, 1, 1); }},
    {"lchown", [] { return ::syscall(SYS_lchown, victim, 1, 1); }},
    {"fchownat", [] { return ::syscall(SYS_fchownat, AT_FDCWD, victim, 1, 1, AT_SYMLINK_NOFOLLOW); }},
    {"fchownat of a descriptor", [] { return ::syscall(SYS_fchownat, opened_before, "", 1, 1, AT_EMPTY_PATH); }},
    {"fchown", [] { return ::syscall(SYS_fchown, opened_before, 1, 1); }},
    {"utime", [] { return ::syscall(SYS_utime, victim, nullptr); }},
    {"utimes", [] { return ::syscall(SYS_utimes, victim, nullptr); }},
    {"futimesat", [] { return ::syscall(SYS_futimesat, AT_FDCWD, victim, nullptr); }},
    {"utimensat", [] { return ::syscall(SYS_utimensat, AT_FDCWD, victim, nullptr, 0); }},
    {"utimensat of a descriptor", [] { return ::syscall(SYS_utimensat, opened_before, nullptr, nullptr, 0); }},
    {"setxattr", [] { return ::syscall(SYS_setxattr, victim, "user.hostile", "x", 1, 0); }},
    {"lsetxattr", [] { return ::syscall(SYS_lsetxattr, victim, "user.hostile", "x", 1, 0); }},
    {"fsetxattr", [] { return ::syscall(SYS_fsetxattr, opened_before, "user.hostile", "x", 1, 0); }},
    {"setxattrat", [] { return ::syscall(463, AT_FDCWD, victim, 0, "user.hostile", nullptr, 0); }},
    {"removexattr", [] { return ::syscall(SYS_removexattr, victim, "user.there"); }},
    {"lremovexattr", [] { return ::syscall(SYS_lremovexattr, victim, "user.there"); }},
    {"fremovexattr", [] { return ::syscall(SYS_fremovexattr, opened_before, "user.there"); }},
    {"removexattrat", [] { return ::syscall(466, AT_FDCWD, victim, 0, "user.there"); }},
    {"file_setattr", [] { return ::syscall(469, AT_FDCWD, victim, nullptr, 0, 0); }},
    {"execve", [] { return ::syscall(SYS_execve, "/bin/true", no_words, no_words); }},
    {"execveat", [] { return ::syscall(SYS_execveat, AT_FDCWD, "/bin/true", no_words, no_words, 0); }},
    {"socket", [] { return ::syscall(SYS_socket, AF_INET, SOCK_STREAM, 0); }},
    {"socketpair",
     [] {
         int both[2];
         return ::syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, both);
     }},
    {"connect", [] { return ::syscall(SYS_connect, 0, nullptr, 0); }},
    {"io_uring_setup", [] { return ::syscall(SYS_io_uring_setup, 4, ring_parameters); }},
    {"io_uring_enter", [] { return ::syscall(SYS_io_uring_enter, 0, 0, 0, 0, nullptr, 0); }},
    {"io_uring_register", [] { return ::syscall(SYS_io_uring_register, 0, 0, nullptr, 0); }},
    {"ptrace", [] { return ::syscall(SYS_ptrace, PTRACE_ATTACH, ::getppid(), nullptr, nullptr); }},
    {"process_vm_readv", [] { return ::syscall(SYS_process_vm_readv, ::getppid(), nullptr, 0, nullptr, 0, 0); }},
    {"pidfd_open", [] { return ::syscall(SYS_pidfd_open, ::getppid(), 0); }},
    {"kill", [] { return ::syscall(SYS_kill, ::getppid(), 0); }},
    {"kill all", [] { return ::syscall(SYS_kill, -1, 0); }},
    {"tgkill", [] { return ::syscall(SYS_tgkill, ::getppid(), ::getppid(), 0); }},
    {"tkill", [] { return ::syscall(SYS_tkill, ::getppid(), 0); }},
    {"mount", [] { return ::syscall(SYS_mount, "none", "/mnt", "tmpfs", 0, nullptr); }},
    {"umount2", [] { return ::syscall(SYS_umount2, "/mnt", MNT_DETACH); }},
    {"pivot_root", [] { return ::syscall(SYS_pivot_root, "/", "/"); }},
    {"chroot", [] { return ::syscall(SYS_chroot, "/"); }},
    {"setns", [] { return ::syscall(SYS_setns, 0, 0); }},
    {"unshare", [] { return ::syscall(SYS_unshare, CLONE_NEWUSER); }},
    {"fork", [] { return ::syscall(SYS_fork); }},
    {"vfork by clone",
     [] { return ::syscall(SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, nullptr, nullptr, nullptr, 0); }},
    {"clone of a process", [] { return ::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, 0); }},
    {"clone of a thread in a mount name space", [] { return thread_in(CLONE_NEWNS); }},
    {"clone of a thread in a network", [] { return thread_in(CLONE_NEWNET); }},
    {"clone of a thread in a user name space", [] { return thread_in(CLONE_NEWUSER); }},
    {"clone3", [] { return ::syscall(SYS_clone3, nullptr, 88); }},
    {"capset",
     [] {
         __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
         __user_cap_data_struct data[2]{};
         return ::syscall(SYS_capset, &header, data);
     }},
    {"setuid", [] { return ::syscall(SYS_setuid, 0); }},
    {"setrlimit",
     [] {
         const rlimit64 most{RLIM64_INFINITY, RLIM64_INFINITY};
         return ::syscall(SYS_prlimit64, 0, 7, &most, nullptr);
     }},
    {"limits of another process",
     [] {
         rlimit64 limit{};
         return ::syscall(SYS_prlimit64, ::getppid(), RLIMIT_NOFILE, nullptr, &limit);
     }},
    {"bpf", [] { return ::syscall(SYS_bpf, 0, nullptr, 0); }},
    {"userfaultfd", [] { return ::syscall(SYS_userfaultfd, 0); }},
    {"memfd_create", [] { return ::syscall(SYS_memfd_create, "hostile", 0); }},
    {"init_module", [] { return ::syscall(SYS_init_module, nullptr, 0, ""); }},
    {"keyctl", [] { return ::syscall(SYS_keyctl, 0, 0, 0, 0, 0); }},
    {"ioctl TIOCSTI", [] { return ::syscall(SYS_ioctl, 0, 0x5412, "x"); }},
};

// The sanitizer's own thread keeps what it has, and no sandbox is to be had beside it.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UEXT4_HAS_A_THREAD_OF_A_SANITIZER 1
#endif
#endif

class Sandbox : public testing::Test {
protected:
    void SetUp() override {
#ifdef UEXT4_HAS_A_THREAD_OF_A_SANITIZER
        GTEST_SKIP() << "the thread sanitizer has a thread of its own";
#endif
        path = fmt::format("/dev/shm/uext4-sandbox-{}", ::getpid());
        const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        ASSERT_GE(fd, 0);
        ASSERT_EQ(::ftruncate(fd, 1 << 20), 0);
        ::close(fd);
        victims_name = path + "-victim";
        victim = victims_name.c_str();
        opened_before = ::open(victim, O_RDONLY | O_CREAT | O_CLOEXEC, 0644);
        ASSERT_GE(opened_before, 0);
        ::setxattr(victim, "user.there", "x", 1, 0);  // where the file system has such
        ASSERT_EQ(::stat(victim, &victims), 0);
    }
    void TearDown() override {
        if (opened_before < 0) return;
        struct stat now{};
        EXPECT_EQ(::stat(victim, &now), 0);
        EXPECT_EQ(std::tuple(now.st_mode, now.st_uid, now.st_gid, now.st_ctim.tv_sec, now.st_ctim.tv_nsec),
                  std::tuple(victims.st_mode, victims.st_uid, victims.st_gid, victims.st_ctim.tv_sec,
                             victims.st_ctim.tv_nsec));
        ::close(opened_before);
        ::unlink(victim);
        ::unlink(path.c_str());
    }
    // In a child, since nothing brings the rights back.
    static void in_child(const std::function<std::vector<std::string>()>& body) {
        std::fflush(nullptr);  // or what the test's own output holds back is the child's to write as well
        const auto failures =
            hostile::run_in_batches(1, [](std::size_t) { return "sandboxed"; }, [&](std::size_t) { return body(); });
        for (const std::string& failure : failures) ADD_FAILURE() << failure;
    }
    std::string path;
    struct stat victims{};
};

TEST_F(Sandbox, EveryWayOutIsShut) {
    for (const auto& [threads_first, reach] : {std::pair(false, Reach::image), std::pair(true, Reach::image),
                                               std::pair(false, Reach::server), std::pair(true, Reach::server)}) {
        in_child([&]() -> std::vector<std::string> {
            std::vector<std::string> open_ways;
            std::atomic<bool> go{false};
            std::atomic<bool> bare{false};
            auto hostile = [&] {
                if (threads_first && !keep_capabilities({})) open_ways.emplace_back("capabilities cannot be given up");
                bare.store(true);
                while (!go.load()) std::this_thread::yield();
                for (const Way& way : ways) {
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

// Descriptors come to a server only, and from whom it is connected with already.
TEST_F(Sandbox, OnlyAServerIsPassedDescriptors) {
    for (const Reach reach : {Reach::image, Reach::server}) {
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
            if (came != (reach == Reach::server))
                wrong.emplace_back(came ? "recvmsg is allowed" : "recvmsg is refused");
            if (::sendmsg(ends[0], &message, 0) >= 0) wrong.emplace_back("sendmsg is allowed");
            return wrong;
        });
    }
}

// With files of the host within reach everything else is shut as well, and so is what was not named.
class HostFilesTest : public Sandbox {
protected:
    void SetUp() override {
        Sandbox::SetUp();
        folder = path + "-folder";
        ASSERT_EQ(::mkdir(folder.c_str(), 0755), 0);
        ASSERT_EQ(::symlink(folder.c_str(), (folder + "/link").c_str()), 0);
    }
    void TearDown() override {
        std::filesystem::remove_all(folder);
        Sandbox::TearDown();
    }
    static bool has_landlock() {
        return ::syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION) >= 2;
    }
    static std::vector<std::string> others_that_are_open() {
        static const std::set<std::string> of_files{"open",
                                                    "openat",
                                                    "creat",
                                                    "unlink",
                                                    "mkdir",
                                                    "rename",
                                                    "stat",
                                                    "lstat",
                                                    "newfstatat",
                                                    "newfstatat of a link",
                                                    "newfstatat of the current directory",
                                                    "newfstatat beside AT_EMPTY_PATH",
                                                    "statx",
                                                    "access",
                                                    "faccessat",
                                                    "faccessat2",
                                                    "readlink",
                                                    "readlinkat",
                                                    "statfs",
                                                    "getcwd",
                                                    "getxattr",
                                                    "listxattr"};
        std::vector<std::string> wrong;
        for (const Way& way : ways) {
            if (of_files.contains(way.name)) continue;
            const long result = way.go();
            if (result >= 0 || (errno != EPERM && way.name != std::string("clone3")))
                wrong.push_back(fmt::format("{} gave {} ({})", way.name, result, std::strerror(errno)));
        }
        if (::chroot("/") == 0 || ::sethostname("hostile", 7) == 0) wrong.emplace_back("a capability is left");
        return wrong;
    }
    // Opens that have to fail, as far as they have not.
    static void expect_shut(std::vector<std::string>& wrong, const std::string& place, int flags) {
        const int fd = ::open(place.c_str(), flags | O_CLOEXEC, 0600);
        if (fd < 0 && (errno == EACCES || errno == EPERM)) return;
        wrong.push_back(fmt::format("open of {} with {:o}: {}", place, flags, std::strerror(fd < 0 ? errno : 0)));
        if (fd >= 0) ::close(fd);
    }
    std::string folder;
};

TEST_F(HostFilesTest, SourcesAreReadAndNothingElse) {
    in_child([&]() -> std::vector<std::string> {
        HostFiles named;
        named.readable = {path, folder, "/dev/null", path + "-none"};
        if (auto entered = enter_sandbox(Reach::sources, named); !entered) return {entered.error().what};
        std::vector<std::string> wrong = others_that_are_open();
        struct stat info{};
        const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
        if (fd < 0 || ::read(fd, text, sizeof text) != sizeof text) wrong.emplace_back("the source cannot be read");
        if (::stat(path.c_str(), &info) != 0 || info.st_size != 1 << 20) wrong.emplace_back("it has no size");
        std::error_code error;
        if (std::filesystem::directory_iterator(folder, error) == std::filesystem::directory_iterator())
            wrong.emplace_back("a folder cannot be listed");
        for (const int flags : {O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC, O_RDONLY | O_CREAT, O_WRONLY | O_APPEND})
            expect_shut(wrong, path, flags);
        expect_shut(wrong, folder, O_TMPFILE | O_RDWR);
        expect_shut(wrong, folder + "/new", O_CREAT | O_RDWR);
        for (const char* place : {"/proc/sys/kernel/core_pattern", "/proc/self/mem", "/etc/shadow"})
            expect_shut(wrong, place, O_WRONLY);
        if (has_landlock())
            for (const char* place : {"/etc/passwd", "/proc/self/maps", "/dev/zero", "/"})
                expect_shut(wrong, place, O_RDONLY);
        if (::chmod(path.c_str(), 0640) == 0) wrong.emplace_back("chmod");
        if (::unlink((folder + "/link").c_str()) == 0) wrong.emplace_back("unlink");
        if (::mkdir((folder + "/made").c_str(), 0700) == 0) wrong.emplace_back("mkdir");
        return wrong;
    });
}

TEST_F(HostFilesTest, OnlyTheTargetIsWritten) {
    for (const bool give_away : {false, true}) {
        in_child([&]() -> std::vector<std::string> {
            HostFiles named;
            named.writable = {folder};
            named.give_away = named.trees = named.special_modes = give_away;
            if (auto entered = enter_sandbox(Reach::files, named); !entered) return {entered.error().what};
            std::vector<std::string> wrong = others_that_are_open();
            const std::string made = fmt::format("{}/made-{}", folder, give_away), below = made + "/below";
            const int fd = ::mkdir(made.c_str(), 0700) == 0
                               ? ::open(below.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)
                               : -1;
            if (fd < 0 || ::write(fd, "x", 1) != 1 || change_mode(below, 0640) != 0 ||
                ::link(below.c_str(), (made + "-linked").c_str()) != 0 || ::unlink(below.c_str()) != 0)
                wrong.push_back(fmt::format("the target cannot be written: {}", std::strerror(errno)));
            // A program that runs as somebody else, or a folder that keeps others' names, is nothing that a copy of
            // bytes makes.
            const std::string special = made + "-special";
            const int set_id = ::open(special.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 04700);
            if ((set_id >= 0) != give_away) wrong.emplace_back("a file with a set-id bit");
            if (set_id >= 0) ::close(set_id);
            if ((::mkdir((special + "-folder").c_str(), 01700) == 0) != give_away)
                wrong.emplace_back("a sticky folder");
            if ((change_mode(made, 02750) == 0) != give_away) wrong.emplace_back("a set-id bit");
            const std::string device = made + "-device";
            const bool node = ::mknod(device.c_str(), S_IFCHR | 0600, makedev(1, 3)) == 0;
            if (::geteuid() == 0 && node != give_away) wrong.emplace_back(node ? "mknod" : "mknod is refused");
            if (!give_away && change_owner(folder, ::geteuid(), ::getegid()) == 0) wrong.emplace_back("chown");
            if (!has_landlock()) return wrong;
            for (const char* place : {"/proc/sys/kernel/core_pattern", "/proc/self/mem", "/etc/shadow",
                                      "/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/dev/null"})
                expect_shut(wrong, place, O_WRONLY);
            expect_shut(wrong, "/root", O_TMPFILE | O_RDWR);
            expect_shut(wrong, path, O_WRONLY);
            expect_shut(wrong, path + "-new", O_WRONLY | O_CREAT);
            for (const char* place : {"/etc/passwd", "/proc/self/maps", "/"}) expect_shut(wrong, place, O_RDONLY);
            if (::unlink(path.c_str()) == 0 || ::rename(path.c_str(), (folder + "/moved").c_str()) == 0 ||
                ::link(path.c_str(), (folder + "/linked").c_str()) == 0)
                wrong.emplace_back("what is beside the target can be removed, moved or linked");
            return wrong;
        });
    }
}

// With -a, whatever a tree holds gets its owners, permissions, times and attributes; without, its permissions.
TEST_F(HostFilesTest, WhatIsMadeIsGivenItsAttributes) {
    const bool root = ::geteuid() == 0;
    for (const bool give_away : {false, true}) {
        in_child([&]() -> std::vector<std::string> {
            HostFiles named;
            named.readable = {folder};          // keeps the right to read trusted attributes
            named.writable = {folder, victim};  // a file as well: it is there and stays
            named.give_away = named.trees = give_away;
            if (::chdir(folder.c_str()) != 0) return {"chdir"};
            if (auto entered = enter_sandbox(Reach::files, named); !entered) return {entered.error().what};
            std::vector<std::string> wrong;
            const std::string tree = fmt::format("{}/tree-{}", folder, give_away);
            ::mkdir(tree.c_str(), 0700);
            ::close(::open((tree + "/file").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
            ::symlink(victim, (tree + "/symlink").c_str());
            ::mknod((tree + "/fifo").c_str(), S_IFIFO | 0600, 0);
            ::mknod((tree + "/socket").c_str(), S_IFSOCK | 0600, 0);
            std::vector<std::string> names{tree, tree + "/.", tree + "/file", tree + "/fifo", tree + "/socket"};
            names.push_back(fmt::format("tree-{}/../tree-{}/file", give_away, give_away));
            if (root && give_away) {
                ::mknod((tree + "/device").c_str(), S_IFCHR | 0600, makedev(1, 3));
                names.push_back(tree + "/device");
            }
            const timespec times[2] = {{1000, 1}, {2000, 2}};
            const std::uint32_t owner = root ? 12 : ::geteuid(), group = root ? 34 : ::getegid();
            for (const bool link : {false, true})
                for (const std::string& name : link ? std::vector{tree + "/symlink"} : names) {
                    const auto done = [&](int result, bool expected, const char* what) {
                        if ((result == 0) != expected)
                            wrong.push_back(fmt::format("{} of {}, {}: {}", what, name, give_away, result));
                    };
                    done(change_owner(name, owner, group), give_away, "owner");
                    done(change_mode(name, 0740), !link, "permissions");
                    done(change_times(name, times), give_away, "times");
                    if (root)
                        done(change_attribute(name, "trusted.name", std::as_bytes(std::span("value", 5))), give_away,
                             "an attribute");
                    struct stat now{};
                    if (::lstat(name.c_str(), &now) != 0) wrong.push_back(name + " is not there");
                    if (!link && (now.st_mode & 07777) != 0740) wrong.push_back(name + ": other permissions");
                    if (!give_away) continue;
                    if (now.st_uid != owner || now.st_gid != group) wrong.push_back(name + ": other owners");
                    if (now.st_atim.tv_sec != 1000 || now.st_mtim.tv_nsec != 2) wrong.push_back(name + ": other times");
                    char value[8];
                    if (root && !named.readable.empty() &&
                        ::lgetxattr(name.c_str(), "trusted.name", value, sizeof value) != 5)
                        wrong.push_back(name + ": no attribute");
                }
            // A folder that was named is changed itself, and a file that was.
            if (change_mode(folder, 0750) != 0 || change_mode(victim, victims.st_mode & 07777) != 0)
                wrong.push_back(fmt::format("what was named is not changed: {}", std::strerror(errno)));
            return wrong;
        });
        ASSERT_EQ(::stat(victim, &victims), 0);
    }
}

// The one socket that a process in the sandbox has: to the process that makes the changes.
int socket_of_changes() {
    for (int fd = 3; fd < 64; ++fd)
        if (struct stat info{}; ::syscall(SYS_fstat, fd, &info) == 0 && S_ISSOCK(info.st_mode)) return fd;
    return -1;
}

struct Asked {
    const char* what;
    ChangeRequest request;
    std::string folder, name, attribute;
    bool whole = true;
};

// The answer; -1 where there is none.
int answer_to(int socket, Asked asked) {
    asked.request.folder_size += static_cast<std::uint32_t>(asked.folder.size());
    asked.request.name_size += static_cast<std::uint32_t>(asked.name.size());
    asked.request.attribute_size += static_cast<std::uint32_t>(asked.attribute.size());
    std::string message(reinterpret_cast<const char*>(&asked.request), sizeof asked.request);
    message += asked.folder + asked.name + asked.attribute;
    if (!asked.whole) message.pop_back();
    std::int32_t error = 0;
    if (::send(socket, message.data(), message.size(), MSG_NOSIGNAL) < 0) return -1;
    return ::recv(socket, &error, sizeof error, 0) == sizeof error ? error : -1;
}

ChangeRequest request(std::uint32_t kind, std::uint32_t root = 0, std::uint32_t mode = 04777) {
    ChangeRequest out;
    out.kind = kind;
    out.root = root;
    out.permissions = mode;
    out.uid = out.gid = ::geteuid();
    return out;
}

// Whoever has taken the process over asks for what it likes, with the calls or past them.
TEST_F(HostFilesTest, NothingBesideTheTargetIsChanged) {
    const std::string last = victims_name.substr(victims_name.rfind('/') + 1), beside = path + "-beside";
    const std::string link = folder + "/to the victim", way = folder + "/way out";
    ASSERT_EQ(::mkdir(beside.c_str(), 0755), 0);
    ASSERT_EQ(::symlink(victim, link.c_str()), 0);
    ASSERT_EQ(::symlink("/dev/shm", way.c_str()), 0);
    for (const bool give_away : {false, true}) {
        in_child([&]() -> std::vector<std::string> {
            HostFiles named;
            named.writable = {folder, path};
            named.give_away = give_away;
            if (auto entered = enter_sandbox(Reach::files, named); !entered) return {entered.error().what};
            std::vector<std::string> wrong;
            const timespec times[2]{};
            for (const std::string& name : {victims_name, folder + "/../" + last, way + "/" + last, beside,
                                            std::string("/etc/passwd"), std::string("/"), folder + "/.."}) {
                if (change_mode(name, 04777) == 0) wrong.push_back("permissions of " + name);
                if (change_owner(name, ::geteuid(), ::getegid()) == 0) wrong.push_back("owner of " + name);
                if (change_times(name, times) == 0) wrong.push_back("times of " + name);
                if (change_attribute(name, "user.hostile", {}) == 0) wrong.push_back("an attribute of " + name);
            }
            const int socket = socket_of_changes();
            constexpr std::uint32_t mode = ChangeRequest::mode, attribute = ChangeRequest::attribute;
            const std::string nul = std::string("a") + '\0' + "b";
            ChangeRequest long_folder = request(mode), long_value = request(attribute), huge = request(mode);
            long_folder.folder_size = 1u << 31;
            long_value.value_size = 1u << 20;
            huge.folder_size = huge.name_size = 1u << 31;
            const Asked all[] = {
                {"nothing", request(mode), "", "", ""},
                {"upwards", request(mode), "..", last, ""},
                {"upwards by a name", request(mode), "", "..", ""},
                {"down and upwards", request(mode), "x/../..", last, ""},
                {"a path for a name", request(mode), "", "../" + last, ""},
                {"the whole path", request(mode), "/dev/shm", last, ""},
                {"the whole name", request(mode), "", victims_name, ""},
                {"through a link", request(mode), "way out", last, ""},
                {"through a link, with a slash", request(mode), "way out/", last, ""},
                {"what a link leads to", request(mode), "", "to the victim", ""},
                {"through links of /proc", request(mode), "proc/self/root/dev/shm", last, ""},
                {"no such place", request(mode, 2), "", "link", ""},
                {"no place at all", request(mode, ~0u), "", "link", ""},
                {"below a file", request(mode, 1), "", last, ""},
                {"above a file", request(mode, 1), "..", last, ""},
                {"more than permissions", request(mode, 1, S_IFCHR | 0600), "", "", ""},
                {"a kind that there is not", request(17), "", "link", ""},
                {"NUL in a name", request(mode), "", nul, ""},
                {"NUL in a folder", request(mode), nul, "link", ""},
                {"NUL in an attribute", request(attribute), "", "link", "user." + nul},
                {"too long a folder", long_folder, "", "link", ""},
                {"too long a value", long_value, "", "link", "user.x"},
                {"sizes that add up to nothing", huge, "", "link", ""},
                {"less than it says", request(mode), "", "link", "", false},
            };
            for (const Asked& asked : all)
                if (const int error = answer_to(socket, asked); error <= 0)
                    wrong.push_back(fmt::format("{}: {}", asked.what, error));
            if (::send(socket, "x", 1, MSG_NOSIGNAL) != 1 || ::recv(socket, text, sizeof text, 0) != 4)
                wrong.emplace_back("a short message has no answer");
            if (change_mode(path, 0600) != 0) wrong.emplace_back("nothing is changed after all that");
            return wrong;
        });
    }
    std::filesystem::remove(beside);
}

// A name of somebody else's file in the target would be a way to change it.
TEST_F(HostFilesTest, NothingFromBesideGetsANameInTheTarget) {
    if (!has_landlock()) GTEST_SKIP() << "this kernel does not limit links";
    in_child([&]() -> std::vector<std::string> {
        HostFiles named;
        named.writable = {folder};
        named.give_away = true;
        if (auto entered = enter_sandbox(Reach::files, named); !entered) return {entered.error().what};
        std::vector<std::string> wrong;
        const int held = ::open(victim, O_PATH | O_CLOEXEC);
        const std::string made = folder + "/made", by_proc = fmt::format("/proc/self/fd/{}", held);
        if (::linkat(held, "", AT_FDCWD, made.c_str(), AT_EMPTY_PATH) == 0) wrong.emplace_back("a descriptor");
        if (::linkat(opened_before, "", AT_FDCWD, made.c_str(), AT_EMPTY_PATH) == 0) wrong.emplace_back("an open one");
        if (::linkat(AT_FDCWD, by_proc.c_str(), AT_FDCWD, made.c_str(), AT_SYMLINK_FOLLOW) == 0)
            wrong.emplace_back("a descriptor by /proc");
        if (::link(victim, made.c_str()) == 0) wrong.emplace_back("a name");
        return wrong;
    });
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
    for (const bool terminal : {true, false}) {
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
}

TEST_F(Sandbox, WhatAServerNeedsGoesOn) {
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
}  // namespace uext4
