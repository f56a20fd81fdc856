#include "sandbox/sandbox.h"

#include "sandbox/host_changes.h"
#include "sandbox/host_files.h"

#include <cap-ng.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace uext4 {

namespace {

std::atomic<bool> entered{false};

// Only on what is open already, on memory, threads and time of this process.
constexpr int plain_calls[] = {
    // descriptors
    SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(pwrite64),
    SCMP_SYS(preadv), SCMP_SYS(pwritev), SCMP_SYS(preadv2), SCMP_SYS(pwritev2), SCMP_SYS(lseek), SCMP_SYS(fstat),
    SCMP_SYS(fstatfs), SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(sync_file_range), SCMP_SYS(ftruncate),
    SCMP_SYS(fallocate), SCMP_SYS(fadvise64), SCMP_SYS(copy_file_range), SCMP_SYS(splice), SCMP_SYS(vmsplice),
    SCMP_SYS(tee), SCMP_SYS(close), SCMP_SYS(dup), SCMP_SYS(dup2), SCMP_SYS(dup3), SCMP_SYS(flock), SCMP_SYS(poll),
    SCMP_SYS(ppoll), SCMP_SYS(select), SCMP_SYS(pselect6), SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl),
    SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(eventfd2), SCMP_SYS(pipe2),
    // memory
    SCMP_SYS(mmap), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(mprotect), SCMP_SYS(brk),
    // threads
    SCMP_SYS(futex), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(gettid),
    SCMP_SYS(getpid), SCMP_SYS(getppid), SCMP_SYS(sched_yield), SCMP_SYS(restart_syscall), SCMP_SYS(wait4),
    SCMP_SYS(set_tid_address),
    // time, signals, facts
    SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep), SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres),
    SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigtimedwait), SCMP_SYS(rt_sigpending), SCMP_SYS(sigaltstack), SCMP_SYS(getrandom), SCMP_SYS(uname),
    SCMP_SYS(sysinfo), SCMP_SYS(getrusage), SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid), SCMP_SYS(getegid)};

// To ask after files of the host by path. What opens them to be read is in allow_files().
constexpr int source_calls[] = {SCMP_SYS(stat),       SCMP_SYS(lstat),      SCMP_SYS(statx),      SCMP_SYS(newfstatat),
                                SCMP_SYS(access),     SCMP_SYS(faccessat),  SCMP_SYS(faccessat2), SCMP_SYS(statfs),
                                SCMP_SYS(readlink),   SCMP_SYS(readlinkat), SCMP_SYS(getdents64), SCMP_SYS(getcwd),
                                SCMP_SYS(getxattr),   SCMP_SYS(lgetxattr),  SCMP_SYS(fgetxattr),  SCMP_SYS(listxattr),
                                SCMP_SYS(llistxattr), SCMP_SYS(flistxattr)};
// Files of the host are made, written, changed and removed by another process, host_changes.h.
constexpr int fchmodat2 = 452;  // which libseccomp may not know by its name yet
constexpr int change_calls[] = {SCMP_SYS(openat),   SCMP_SYS(fchdir),     SCMP_SYS(chmod),    SCMP_SYS(fchmodat),
                                fchmodat2,          SCMP_SYS(newfstatat), SCMP_SYS(fchownat), SCMP_SYS(utimensat),
                                SCMP_SYS(setxattr), SCMP_SYS(lsetxattr),  SCMP_SYS(sendmsg),  SCMP_SYS(fchmod),
                                SCMP_SYS(fchown),   SCMP_SYS(fsetxattr)};
// Of trees.
constexpr int tree_calls[] = {SCMP_SYS(mkdir),   SCMP_SYS(symlink), SCMP_SYS(mknod),
                              SCMP_SYS(mknodat), SCMP_SYS(linkat),  SCMP_SYS(unlink)};
// SYS_ADMIN is for trusted attributes; what else it allows is no call of the lists, nor of those allowed in part.
constexpr unsigned source_capabilities[] = {CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN};
constexpr unsigned file_capabilities[] = {CAP_DAC_READ_SEARCH, CAP_FSETID};
// FOWNER also for names in folders and of files that are somebody else's (sticky ones, hard links).
constexpr unsigned change_capabilities[] = {CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER,  CAP_FSETID,
                                            CAP_MKNOD,        CAP_CHOWN,           CAP_SETFCAP, CAP_SYS_ADMIN};

std::vector<unsigned> capabilities_for(SandboxProfile reach, const HostFiles& files) {
    switch (reach) {
        case SandboxProfile::sources: return {std::begin(source_capabilities), std::end(source_capabilities)};
        case SandboxProfile::files: return {std::begin(file_capabilities), std::end(file_capabilities)};
        case SandboxProfile::changes: break;
        default: return {};
    }
    std::vector<unsigned> out;
    for (const unsigned capability : change_capabilities) {
        if (capability == CAP_MKNOD && !files.whole_trees) continue;
        if (capability == CAP_CHOWN && !files.may_chown) continue;
        if ((capability == CAP_SETFCAP || capability == CAP_SYS_ADMIN) && !files.attributes) continue;
        out.push_back(capability);
    }
    return out;
}

constexpr unsigned long fuse_clone = 0x8004e500;  // FUSE_DEV_IOC_CLONE: a second channel of the same mount
constexpr unsigned long wanted_ioctls[] = {BLKDISCARD, BLKZEROOUT, BLKFLSBUF,  BLKGETSIZE64,
                                           BLKSSZGET,  TCGETS,     TCSETS,     TCSETSW,
                                           TIOCGWINSZ, FIONREAD,   fuse_clone, LOOP_GET_STATUS64};
constexpr int wanted_fcntls[] = {F_GETFD,      F_SETFD,      F_GETFL,     F_SETFL, F_DUPFD_CLOEXEC,
                                 F_SETPIPE_SZ, F_GETPIPE_SZ, F_OFD_SETLK, F_SETLK, F_SETLEASE};

constexpr scmp_datum_t name_spaces =
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;

using Filter = std::unique_ptr<void, decltype([](void* f) { seccomp_release(f); })>;

// Where threads run, for Reach::threads.
constexpr int thread_calls[] = {SCMP_SYS(openat), SCMP_SYS(sched_getaffinity), SCMP_SYS(sched_setaffinity)};

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
    // A thread, never a process, and none in name spaces of its own. clone3 hides its flags in memory: the C library
    // falls back to clone.
    bad |= allow(f, SCMP_SYS(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD | name_spaces, CLONE_THREAD));
    bad |= seccomp_rule_add(f.get(), SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    // Signals to itself only.
    for (const int call : {SCMP_SYS(kill), SCMP_SYS(tgkill)}) bad |= allow(f, call, SCMP_A0(SCMP_CMP_EQ, own));
    // Connected sockets go on; nobody else can be named.
    bad |= allow(f, SCMP_SYS(sendto), SCMP_A4(SCMP_CMP_EQ, 0));
    bad |= allow(f, SCMP_SYS(recvfrom), SCMP_A4(SCMP_CMP_EQ, 0));
    bad |= allow(f, SCMP_SYS(prctl), SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
    // Its own memory; not what takes memory from the host (MADV_HWPOISON and those behind it), which asks for no more
    // than CAP_SYS_ADMIN.
    bad |= allow(f, SCMP_SYS(madvise), SCMP_A2(SCMP_CMP_LT, MADV_HWPOISON));
    // The number of processors, of itself only.
    bad |= allow(f, SCMP_SYS(sched_getaffinity), SCMP_A0(SCMP_CMP_EQ, 0));
    // Limits of its own may be read, not set.
    bad |= seccomp_rule_add(f.get(), SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 2, SCMP_A0(SCMP_CMP_EQ, 0),
                            SCMP_A2(SCMP_CMP_EQ, 0));
    return bad;
}

int allow_files(const Filter& f, SandboxProfile reach) {
    int bad = 0;
    for (const int call : source_calls) bad |= allow(f, call);
    if (reach == SandboxProfile::files) return bad | allow(f, SCMP_SYS(recvmsg));
    constexpr scmp_datum_t writing = O_ACCMODE | O_CREAT | O_TRUNC | O_APPEND | O_TMPFILE;
    constexpr scmp_datum_t changing = writing & ~static_cast<scmp_datum_t>(O_DIRECTORY);  // a part of O_TMPFILE
    bad |= allow(f, SCMP_SYS(open), SCMP_A1(SCMP_CMP_MASKED_EQ, changing, O_RDONLY));
    bad |= allow(f, SCMP_SYS(openat), SCMP_A2(SCMP_CMP_MASKED_EQ, changing, O_RDONLY));
    return bad;
}

Result<void> filter_calls(SandboxProfile reach, const HostFiles& files) {
    const Filter f(seccomp_init(SCMP_ACT_ERRNO(EPERM)));
    if (!f) return fail(ENOMEM, "sandbox: no filter");
    int bad = seccomp_attr_set(f.get(), SCMP_FLTATR_CTL_TSYNC, 1);
    // Calls of another table (of 32 bits) are nothing that goes wrong by mistake. And a server that has lost a thread
    // would hang.
    bad |= seccomp_attr_set(f.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    for (const int call : plain_calls) bad |= allow(f, call);
    if (reach == SandboxProfile::files || reach == SandboxProfile::sources) bad |= allow_files(f, reach);
    if (reach == SandboxProfile::changes)
        for (const int call : change_calls) bad |= allow(f, call);
    if (reach == SandboxProfile::changes && files.whole_trees)
        for (const int call : tree_calls) bad |= allow(f, call);
    if (reach == SandboxProfile::server) bad |= allow(f, SCMP_SYS(recvmsg));
    if (reach == SandboxProfile::table) bad |= allow(f, SCMP_SYS(newfstatat), SCMP_A3(SCMP_CMP_EQ, AT_EMPTY_PATH));
    if (reach == SandboxProfile::threads) {
        for (const int call : thread_calls) bad |= allow(f, call);
        bad |= allow(f, SCMP_SYS(sched_setscheduler), SCMP_A1(SCMP_CMP_EQ, SCHED_IDLE));
        bad |= allow(f, SCMP_SYS(tgkill), SCMP_A2(SCMP_CMP_EQ, 0));  // asks whether a thread is there
    }
    bad |= allow_in_part(f);
    if (bad != 0) return fail(ENOTSUP, "sandbox: the filter of system calls cannot be made");
    if (const int error = seccomp_load(f.get()); error != 0)
        return fail(-error, "sandbox: the filter of system calls: {} (-o nosandbox or --no-sandbox goes without)",
                    std::strerror(-error));
    return {};
}

// Of the calling thread, which is left with those of `wanted` that it has.
Result<void> limit_capabilities(std::span<const unsigned> wanted) {
    capng_get_caps_process();
    std::vector<unsigned> kept;
    for (const unsigned c : wanted)
        if (capng_have_capability(CAPNG_EFFECTIVE, c)) kept.push_back(c);
    // What a program could ever gain by exec is given up where that is allowed.
    const bool bounds = capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP) != 0;
    capng_clear(CAPNG_SELECT_BOTH);
    for (const unsigned c : kept)
        capng_update(CAPNG_ADD, static_cast<capng_type_t>(CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_BOUNDING_SET), c);
    if (capng_apply(bounds ? CAPNG_SELECT_BOTH : CAPNG_SELECT_CAPS) == 0) return {};
    return fail(EPERM, "sandbox: capabilities cannot be given up");
}

std::uint64_t mask_of(std::span<const unsigned> capabilities) {
    std::uint64_t mask = 0;
    for (const unsigned c : capabilities) mask |= std::uint64_t{1} << c;
    return mask;
}

// Nobody can take capabilities from another thread, so that one which has some is no mistake to go on with; nor can
// anybody limit its files (`none`: there may not be another).
Result<void> check_other_threads(std::span<const unsigned> allowed, bool none) {
    std::error_code error;
    const std::filesystem::directory_iterator threads("/proc/self/task", error), end;
    if (error == std::errc::no_such_file_or_directory) return {};  // no /proc here, and no threads to be listed
    if (error) return fail(error.value(), "sandbox: /proc/self/task: {}", error.message());
    for (std::filesystem::directory_iterator at = threads; at != end; at.increment(error)) {
        const int thread = std::stoi(at->path().filename().string());
        if (none && thread != ::gettid()) return fail(EPERM, "sandbox: there is another thread, {}", thread);
        __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, thread};
        __user_cap_data_struct data[2]{};
        if (::syscall(SYS_capget, &header, data) != 0) {
            if (errno == ESRCH) continue;
            return fail(errno, "sandbox: thread {}: {}", thread, std::strerror(errno));
        }
        const auto both = [&](auto set) { return std::uint64_t{data[1].*set} << 32 | data[0].*set; };
        const std::uint64_t has = both(&__user_cap_data_struct::permitted) | both(&__user_cap_data_struct::inheritable);
        if (has & ~mask_of(allowed)) return fail(EPERM, "sandbox: thread {} has capabilities", thread);
    }
    if (error) return fail(error.value(), "sandbox: /proc/self/task: {}", error.message());
    return {};
}

// The stream's buffer and mode are chosen now, as its first output would: by what it leads to, which fstat(3) tells.
void settle_output() { std::setvbuf(stdout, nullptr, ::isatty(STDOUT_FILENO) == 1 ? _IOLBF : _IOFBF, 0); }

}  // namespace

Result<void> drop_capabilities_except(std::span<const unsigned> wanted) { return limit_capabilities(wanted); }

Result<void> enter_sandbox(SandboxProfile reach, const HostFiles& files) {
    if (entered.load()) return {};
    const std::vector<unsigned> kept = capabilities_for(reach, files);
    if (reach != SandboxProfile::threads && reach != SandboxProfile::changes) settle_output();
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail(errno, "sandbox: {}", std::strerror(errno));
    if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return fail(errno, "sandbox: {}", std::strerror(errno));
    if (reach == SandboxProfile::files) TRY(start_host_changes(files));
    const bool with_files = reach == SandboxProfile::files || reach == SandboxProfile::sources;
    TRY(limit_capabilities(kept));
    TRY(check_other_threads(kept, with_files));
    if (with_files) TRY(limit_files(files));
    TRY(filter_calls(reach, files));
    entered.store(true);
    return {};
}

bool in_sandbox() { return entered.load(); }

}  // namespace uext4
