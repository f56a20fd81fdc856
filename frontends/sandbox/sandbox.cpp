#include "sandbox/sandbox.h"

#include <cap-ng.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <vector>

namespace uext4 {

namespace {

std::atomic<bool> entered{false};

// Only on what is open already, on memory, threads and time of this process.
constexpr int plain_calls[] = {
    // descriptors
    SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(pwrite64),
    SCMP_SYS(preadv), SCMP_SYS(pwritev), SCMP_SYS(preadv2), SCMP_SYS(pwritev2), SCMP_SYS(lseek), SCMP_SYS(fstat),
    SCMP_SYS(newfstatat), SCMP_SYS(fstatfs), SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(sync_file_range),
    SCMP_SYS(ftruncate), SCMP_SYS(fallocate), SCMP_SYS(fadvise64), SCMP_SYS(copy_file_range), SCMP_SYS(splice),
    SCMP_SYS(vmsplice), SCMP_SYS(tee), SCMP_SYS(close), SCMP_SYS(dup), SCMP_SYS(dup2), SCMP_SYS(dup3), SCMP_SYS(flock),
    SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(select), SCMP_SYS(pselect6), SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(eventfd2), SCMP_SYS(pipe2),
    SCMP_SYS(io_uring_enter),  // of a ring made before, restricted by whoever made it
    // memory
    SCMP_SYS(mmap), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(mprotect), SCMP_SYS(madvise), SCMP_SYS(brk),
    // threads
    SCMP_SYS(futex), SCMP_SYS(set_robust_list), SCMP_SYS(get_robust_list), SCMP_SYS(rseq), SCMP_SYS(exit),
    SCMP_SYS(exit_group), SCMP_SYS(gettid), SCMP_SYS(getpid), SCMP_SYS(getppid), SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity), SCMP_SYS(restart_syscall), SCMP_SYS(wait4), SCMP_SYS(set_tid_address),
    // time, signals, facts
    SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep), SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres),
    SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigtimedwait), SCMP_SYS(rt_sigpending), SCMP_SYS(sigaltstack), SCMP_SYS(getrandom), SCMP_SYS(uname),
    SCMP_SYS(sysinfo), SCMP_SYS(getrusage), SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid), SCMP_SYS(getegid)};

// Files of the host by path, for Reach::files.
constexpr int file_calls[] = {
    SCMP_SYS(open),        SCMP_SYS(openat),      SCMP_SYS(stat),       SCMP_SYS(lstat),      SCMP_SYS(statx),
    SCMP_SYS(access),      SCMP_SYS(faccessat),   SCMP_SYS(faccessat2), SCMP_SYS(statfs),     SCMP_SYS(readlink),
    SCMP_SYS(readlinkat),  SCMP_SYS(getdents64),  SCMP_SYS(getcwd),     SCMP_SYS(umask),      SCMP_SYS(mkdir),
    SCMP_SYS(mkdirat),     SCMP_SYS(rmdir),       SCMP_SYS(unlink),     SCMP_SYS(unlinkat),   SCMP_SYS(link),
    SCMP_SYS(linkat),      SCMP_SYS(symlink),     SCMP_SYS(symlinkat),  SCMP_SYS(mknod),      SCMP_SYS(mknodat),
    SCMP_SYS(rename),      SCMP_SYS(renameat),    SCMP_SYS(renameat2),  SCMP_SYS(chmod),      SCMP_SYS(fchmod),
    SCMP_SYS(fchmodat),    SCMP_SYS(chown),       SCMP_SYS(lchown),     SCMP_SYS(fchown),     SCMP_SYS(fchownat),
    SCMP_SYS(utimensat),   SCMP_SYS(getxattr),    SCMP_SYS(lgetxattr),  SCMP_SYS(fgetxattr),  SCMP_SYS(setxattr),
    SCMP_SYS(lsetxattr),   SCMP_SYS(fsetxattr),   SCMP_SYS(listxattr),  SCMP_SYS(llistxattr), SCMP_SYS(flistxattr),
    SCMP_SYS(removexattr), SCMP_SYS(lremovexattr)};
// Those over files. SYS_ADMIN is for their trusted attributes; what else it allows is no call of the list.
constexpr unsigned file_capabilities[] = {CAP_CHOWN, CAP_DAC_OVERRIDE,    CAP_DAC_READ_SEARCH, CAP_FOWNER,   CAP_FSETID,
                                          CAP_MKNOD, CAP_LINUX_IMMUTABLE, CAP_SETFCAP,         CAP_SYS_ADMIN};

constexpr unsigned long fuse_clone = 0x8004e500;  // FUSE_DEV_IOC_CLONE: a second channel of the same mount
constexpr unsigned long wanted_ioctls[] = {BLKDISCARD, BLKZEROOUT, BLKFLSBUF,  BLKGETSIZE64,
                                           BLKSSZGET,  TCGETS,     TCSETS,     TCSETSW,
                                           TIOCGWINSZ, FIONREAD,   fuse_clone, LOOP_GET_STATUS64};
constexpr int wanted_fcntls[] = {F_GETFD,      F_SETFD,      F_GETFL,     F_SETFL, F_DUPFD_CLOEXEC,
                                 F_SETPIPE_SZ, F_GETPIPE_SZ, F_OFD_SETLK, F_SETLK, F_SETLEASE};

using Filter = std::unique_ptr<void, decltype([](void* f) { seccomp_release(f); })>;

int allow(const Filter& f, int call) { return seccomp_rule_add(f.get(), SCMP_ACT_ALLOW, call, 0); }
int allow(const Filter& f, int call, scmp_arg_cmp argument) {
    return seccomp_rule_add(f.get(), SCMP_ACT_ALLOW, call, 1, argument);
}

// Calls whose arguments decide.
int allow_in_part(const Filter& f) {
    const auto own = static_cast<scmp_datum_t>(::getpid());
    int bad = 0;
    for (const unsigned long request : wanted_ioctls)
        bad |= allow(f, SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_MASKED_EQ, 0xFFFFFFFF, request));
    for (const int command : wanted_fcntls)
        bad |= allow(f, SCMP_SYS(fcntl), SCMP_A1(SCMP_CMP_EQ, static_cast<scmp_datum_t>(command)));
    // A thread, never a process. clone3 hides its flags in memory: the C library falls back to clone.
    bad |= allow(f, SCMP_SYS(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
    bad |= seccomp_rule_add(f.get(), SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    // Signals to itself only.
    for (const int call : {SCMP_SYS(kill), SCMP_SYS(tgkill)}) bad |= allow(f, call, SCMP_A0(SCMP_CMP_EQ, own));
    // Connected sockets go on; nobody else can be named.
    bad |= allow(f, SCMP_SYS(sendto), SCMP_A4(SCMP_CMP_EQ, 0));
    bad |= allow(f, SCMP_SYS(recvfrom), SCMP_A4(SCMP_CMP_EQ, 0));
    bad |= allow(f, SCMP_SYS(prctl), SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
    // Limits of its own may be read, not set.
    bad |= allow(f, SCMP_SYS(prlimit64), SCMP_A2(SCMP_CMP_EQ, 0));
    return bad;
}

Result<void> filter_calls(Reach reach) {
    const Filter f(seccomp_init(SCMP_ACT_ERRNO(EPERM)));
    if (!f) return fail(ENOMEM, "sandbox: no filter");
    int bad = seccomp_attr_set(f.get(), SCMP_FLTATR_CTL_TSYNC, 1);
    for (const int call : plain_calls) bad |= allow(f, call);
    if (reach == Reach::files)
        for (const int call : file_calls) bad |= allow(f, call);
    bad |= allow_in_part(f);
    if (bad != 0) return fail(ENOTSUP, "sandbox: the filter of system calls cannot be made");
    if (const int error = seccomp_load(f.get()); error != 0)
        return fail(-error, "sandbox: the filter of system calls: {} (-o nosandbox or --no-sandbox goes without)",
                    std::strerror(-error));
    return {};
}

constexpr unsigned last_capability = 63;

Result<void> apply(const char* what) {
    if (capng_apply(CAPNG_SELECT_CAPS) == 0) return {};
    return fail(EPERM, "sandbox: capabilities cannot be {}", what);
}

Result<void> give_up_capabilities(Reach reach) {
    capng_get_caps_process();
    std::vector<unsigned> kept;
    if (reach == Reach::files)
        for (const unsigned c : file_capabilities)
            if (capng_have_capability(CAPNG_EFFECTIVE, c)) kept.push_back(c);
    capng_clear(CAPNG_SELECT_CAPS);
    for (const unsigned c : kept)
        capng_update(CAPNG_ADD, static_cast<capng_type_t>(CAPNG_EFFECTIVE | CAPNG_PERMITTED), c);
    return apply("given up");
}

}  // namespace

Result<void> lower_capabilities() {
    capng_get_caps_process();
    for (unsigned c = 0; c <= last_capability; ++c)
        if (capng_have_capability(CAPNG_EFFECTIVE, c)) capng_update(CAPNG_DROP, CAPNG_EFFECTIVE, c);
    return apply("lowered");
}

Result<void> raise_capabilities() {
    capng_get_caps_process();
    for (unsigned c = 0; c <= last_capability; ++c)
        if (capng_have_capability(CAPNG_PERMITTED, c)) capng_update(CAPNG_ADD, CAPNG_EFFECTIVE, c);
    return apply("raised");
}

Result<void> enter_sandbox(Reach reach) {
    if (entered.load()) return {};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail(errno, "sandbox: {}", std::strerror(errno));
    if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return fail(errno, "sandbox: {}", std::strerror(errno));
    TRY(give_up_capabilities(reach));
    TRY(filter_calls(reach));
    entered.store(true);
    return {};
}

bool in_sandbox() { return entered.load(); }

}  // namespace uext4
