#include "mmap/rejected_pages.h"

#include "base/page.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace uext4 {

namespace {

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

FaultingThread faulting_thread_state(pid_t tid) {
    // proc(5): "running", or the number of the system call, or -1 when the thread is blocked outside of one: in a
    // fault.
    // Asked last: a signal that the thread does not wait for any more would meet it elsewhere.
    const std::string status = contents_of(fmt::format("/proc/self/task/{}/status", tid));
    const std::string call = contents_of(fmt::format("/proc/self/task/{}/syscall", tid));
    if (call.empty() && ::access("/proc/self/task", F_OK) != 0)
        return FaultingThread::system_call;  // it cannot be told
    if (call.empty() || call.starts_with("running")) return FaultingThread::gone;
    if (!call.starts_with("-1 ")) return FaultingThread::system_call;
    return has_sigbus(status, "SigBlk:") || has_sigbus(status, "SigIgn:") ? FaultingThread::deaf
                                                                          : FaultingThread::program;
}

bool send_sigbus(pid_t tid, std::uintptr_t address) {
    siginfo_t info{};
    info.si_signo = SIGBUS;
    info.si_code = SI_QUEUE;  // what a process may send is negative
    info.si_addr = reinterpret_cast<void*>(address);
    return ::syscall(SYS_rt_tgsigqueueinfo, ::getpid(), tid, SIGBUS, &info) == 0;
}

RejectedPages& RejectedPages::instance() {
    // Never destroyed: a signal may ask until the program has ended.
    static RejectedPages& pages = *new RejectedPages;
    return pages;
}

void RejectedPages::add(std::uintptr_t page, const FaultHandler& server) {
    MutexLock guard(lock_);
    while (pages_.contains(page)) changed_.wait(lock_);
    pages_.emplace(page, Forbidden{&server, ++numbers_});
    count_.store(pages_.size());
}

void RejectedPages::remove(std::uintptr_t page) {
    MutexLock guard(lock_);
    pages_.erase(page);
    count_.store(pages_.size());
    changed_.notify_all();
}

bool RejectedPages::any_locked(std::uintptr_t start, std::uintptr_t end) const {
    const auto first = pages_.lower_bound(start / page_size * page_size);
    return first != pages_.end() && first->first < end;
}

void RejectedPages::wait_for_current(const FaultHandler& server) {
    assert_nothing_held_at_or_below(Rank::Freeze);
    if (count_.load() == 0) return;
    MutexLock guard(lock_);
    const std::uint64_t newest = numbers_;
    const auto any_of_those = [&]() UEXT4_REQUIRES(lock_) {
        return std::ranges::any_of(
            pages_, [&](const auto& entry) { return entry.second.server == &server && entry.second.number <= newest; });
    };
    while (any_of_those()) changed_.wait(lock_);
}

bool RejectedPages::wait(std::uintptr_t start, std::uintptr_t end) {
    assert_nothing_held_at_or_below(Rank::Freeze);
    MutexLock guard(lock_);
    if (!any_locked(start, end)) return false;
    if (const auto first = pages_.find(start / page_size * page_size); first != pages_.end()) {
        first->second.met = true;
        changed_.notify_all();
    }
    while (any_locked(start, end)) changed_.wait(lock_);
    return true;
}

void RejectedPages::set_retry_limit(std::uintptr_t page, std::chrono::nanoseconds most) {
    const std::chrono::nanoseconds end = monotonic_now() + most;
    MutexLock guard(lock_);
    for (auto now = monotonic_now(); now < end && !pages_.at(page).met; now = monotonic_now())
        (void)changed_.wait_for(lock_, end - now);
}

}  // namespace uext4
