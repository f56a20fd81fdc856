#include "mmap/refusal.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace uext4 {

namespace {

constexpr std::uintptr_t page_size = 4096;

std::string contents_of(const std::string& path) {
    std::string out;
    if (std::FILE* file = std::fopen(path.c_str(), "re")) {
        char buffer[4096];
        const std::size_t n = std::fread(buffer, 1, sizeof buffer, file);
        out.assign(buffer, n);
        std::fclose(file);
    }
    return out;
}

bool has_sigbus(const std::string& status, const char* field) {
    const std::size_t at = status.find(field);
    if (at == std::string::npos) return false;
    const unsigned long long mask = std::strtoull(status.c_str() + at + std::strlen(field), nullptr, 16);
    return mask >> (SIGBUS - 1) & 1;
}

}  // namespace

Waiter waiter_of(pid_t tid) {
    // proc(5): "running", or the number of the system call, or -1 when the thread is blocked outside of one: in a
    // fault.
    const std::string call = contents_of(fmt::format("/proc/self/task/{}/syscall", tid));
    if (call.empty() || call.starts_with("running")) return Waiter::gone;
    if (!call.starts_with("-1 ")) return Waiter::elsewhere;
    const std::string status = contents_of(fmt::format("/proc/self/task/{}/status", tid));
    return has_sigbus(status, "SigBlk:") || has_sigbus(status, "SigIgn:") ? Waiter::elsewhere : Waiter::program;
}

bool send_sigbus(pid_t tid, std::uintptr_t address) {
    siginfo_t info{};
    info.si_signo = SIGBUS;
    info.si_code = SI_QUEUE;  // what a process may send is negative
    info.si_addr = reinterpret_cast<void*>(address);
    return ::syscall(SYS_rt_tgsigqueueinfo, ::getpid(), tid, SIGBUS, &info) == 0;
}

ForbiddenPages& ForbiddenPages::instance() {
    static ForbiddenPages pages;
    return pages;
}

void ForbiddenPages::add(std::uintptr_t page) {
    MutexLock guard(lock_);
    pages_.insert(page);
}

void ForbiddenPages::remove(std::uintptr_t page) {
    MutexLock guard(lock_);
    pages_.extract(page);
    changed_.notify_all();
}

bool ForbiddenPages::any_locked(std::uintptr_t start, std::uintptr_t end) const {
    const auto first = pages_.lower_bound(start / page_size * page_size);
    return first != pages_.end() && *first < end;
}

bool ForbiddenPages::wait(std::uintptr_t start, std::uintptr_t end) {
    MutexLock guard(lock_);
    if (!any_locked(start, end)) return false;
    while (any_locked(start, end)) changed_.wait(lock_);
    return true;
}

}  // namespace uext4
