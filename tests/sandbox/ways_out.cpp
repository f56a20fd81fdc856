#include "tests/sandbox/ways_out.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace uext4::sandboxed {
namespace {

const open_how how{O_RDONLY, 0, 0};
char* const no_words[] = {nullptr};
unsigned char ring_parameters[120];
struct stat found;
struct statx found_x;
char text[4096];
constexpr const char* secret = "/etc/shadow";

// Of a stack of its own, which it leaves at once where it is started.
long thread_in(int name_space) {
    alignas(16) static char stack[64 << 10];
    return ::clone([](void*) -> int { return static_cast<int>(::syscall(SYS_exit, 0)); }, stack + sizeof stack,
                   CLONE_THREAD | CLONE_SIGHAND | CLONE_VM | name_space, nullptr);
}

}  // namespace

const char* victim = "";
int opened_before = -1;

std::span<const Way> ways_out() {
    static const Way ways[] = {
        {"open", [] { return ::syscall(SYS_open, "/etc/passwd", O_RDONLY); }},
        {"openat", [] { return ::syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY); }},
        {"openat2", [] { return ::syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", &how, sizeof how); }},
        {"creat", [] { return ::syscall(SYS_creat, "/dev/shm/uext4-hostile", 0600); }},
        {"open_by_handle_at", [] { return ::syscall(SYS_open_by_handle_at, AT_FDCWD, nullptr, O_RDONLY); }},
        {"open_tree", [] { return ::syscall(SYS_open_tree, AT_FDCWD, "/", 0); }},
        {"stat", [] { return ::syscall(SYS_stat, secret, &found); }},
        {"lstat", [] { return ::syscall(SYS_lstat, secret, &found); }},
        {"newfstatat", [] { return ::syscall(SYS_newfstatat, AT_FDCWD, secret, &found, 0); }},
        {"newfstatat of a link",
         [] { return ::syscall(SYS_newfstatat, AT_FDCWD, secret, &found, AT_SYMLINK_NOFOLLOW); }},
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
        {"memory of the host taken out of use",
         [] {
             constexpr int soft_offline = 101;  // of the kernel's headers only
             alignas(4096) static char page[4096];
             return ::syscall(SYS_madvise, page, sizeof page, soft_offline);
         }},
        {"robust list of another process",
         [] {
             void* head = nullptr;
             std::size_t length = 0;
             return ::syscall(SYS_get_robust_list, ::getppid(), &head, &length);
         }},
        {"processors of another process",
         [] {
             cpu_set_t set;
             return ::syscall(SYS_sched_getaffinity, ::getppid(), sizeof set, &set);
         }},
        {"bpf", [] { return ::syscall(SYS_bpf, 0, nullptr, 0); }},
        {"userfaultfd", [] { return ::syscall(SYS_userfaultfd, 0); }},
        {"memfd_create", [] { return ::syscall(SYS_memfd_create, "hostile", 0); }},
        {"init_module", [] { return ::syscall(SYS_init_module, nullptr, 0, ""); }},
        {"keyctl", [] { return ::syscall(SYS_keyctl, 0, 0, 0, 0, 0); }},
        {"ioctl TIOCSTI", [] { return ::syscall(SYS_ioctl, 0, 0x5412, "x"); }},
    };
    return ways;
}

}  // namespace uext4::sandboxed
