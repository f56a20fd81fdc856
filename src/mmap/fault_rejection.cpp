// How ClientMaps refuses an access that the file system cannot serve.
#include "base/page.h"
#include "mmap/client_maps.h"
#include "mmap/proc_maps.h"
#include "mmap/rejected_pages.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace uext4 {

namespace {
constexpr std::chrono::milliseconds shortest_meeting{1}, longest_meeting{20}, meeting_is_remembered{100};

const void* page_at(std::uintptr_t page) { return reinterpret_cast<const void*>(page); }
bool is_ours(const ProcMap& placed) { return placed.path.starts_with(fmt::format("/memfd:{}", FolioMemoryFile::name)); }
}  // namespace

// A signal goes to the one thread, and to nobody else. Where none can, the page itself refuses for a moment, by poison
// where that refuses nothing else that could be had, else by the right that is taken from it (adr/0005).
void ClientMaps::reject_fault(const FaultJob& job) {
    bool can_poison = features().poison, is_readable = job.kind == Access::store;
    MapRegistry& registry = MapRegistry::instance();
    // Another map may lie there already, of which is not known yet.
    for (bool settled = false; !settled; ::sched_yield()) {
        MutexLock guard(registry.lock());
        settled = is_quiescent();
    }
    {
        // Held no longer than this: whoever goes on may want the file's space.
        const RegionRef region = find_own(job.page);
        if (region ? region->id != job.life : registry.overlaps(page_at(job.page), page_size)) return finish(job);
        can_poison = can_poison && region && region->shared;
        if (region && region->offset_of(job.page) >= region->inode->size_hint()) is_readable = false;
    }
    std::vector<pid_t> threads;
    {
        MutexLock guard(lock_);
        auto it = waiting_.find({job.page, job.kind});
        if (it != waiting_.end()) threads = it->second;
    }
    bool by_poison = false, by_rights = false;
    for (const pid_t tid : threads) {
        const FaultingThread waiter = faulting_thread_state(tid);
        if (waiter == FaultingThread::gone) continue;
        if (can_poison && (waiter == FaultingThread::deaf || !is_readable)) by_poison = true;
        else if (waiter == FaultingThread::program) send_sigbus(tid, job.page);
        else by_rights = true;
    }
    if (by_poison || by_rights) {
        // Known as forbidden, then asked once more: whoever changes what the access is refused for finds it here, or is
        // found.
        const RejectedPages::Rejection forbidden(job.page, server_);
        if (!is_still_rejected(job)) return finish(job);
        if (by_poison && !reject_by_poison(job)) by_rights = true;
        if (by_rights) reject_by_protection(job);
    }
    finish(job);
}

// Memory of a file that has no maps any more can show nothing, and nobody can say what it would be. Where the kernel
// cannot refuse, and it is not told what lies there, nobody is asked for it again.
void ClientMaps::reject_permanently(const FaultJob& job) {
    bool cannot_be_told = false;
    const auto is_done = [&] {
        MapRegistry& registry = MapRegistry::instance();
        MutexLock guard(registry.lock());
        if (!is_quiescent()) return false;
        // Where a map is being ended, more of another may have come already: that is known when it is over.
        if (registry.is_leaving_locked(job.page)) return false;
        // Before it is looked for, lest it is there but was not yet when it was. No map of ours goes meanwhile.
        const std::optional<ProcMap> placed = find_proc_map(job.page);
        const bool is_told = registry.find_growth_locked(job.page, job.page + page_size);
        if (registry.find_locked(job.page)) return true;
        // What has no rights is a map in the making, or refuses by itself.
        const bool ours = is_told && placed && is_ours(*placed) && placed->protection != PROT_NONE;
        if (!ours && can_query_proc_maps()) {
            cannot_be_told = (!placed || !is_told) && is_mapped(job.page);
            return true;
        }
        if (features().poison)
            if (const Result<bool> poisoned = userfault_.try_poison(job.page)) return *poisoned;
        void* page = reinterpret_cast<void*>(job.page);
        if (ours) ::mprotect(page, page_size, PROT_NONE);
        else userfault_.unregister(page, page_size);
        return true;
    };
    while (!is_done()) ::sched_yield();
    // It is asked again, by the access.
    if (cannot_be_told) this_thread::sleep(shortest_meeting);
    finish(job);
}

bool ClientMaps::is_still_rejected(const FaultJob& job) {
    const RegionRef region = find_own(job.page);
    if (!region) return true;
    const std::optional<Access> kind = effective_access(*region, job.kind);
    if (!kind) return true;
    const Result<void> served = handle_fault_in(*region, job, *kind);
    return !served && served.error().code != EAGAIN;
}

template <class Act>
bool ClientMaps::with_region_of(const FaultJob& job, Act act) {
    MapRegistry& registry = MapRegistry::instance();
    for (;; ::sched_yield()) {
        MutexLock guard(registry.lock());
        if (!is_quiescent()) continue;
        const RegionRef region = registry.find_locked(job.page);
        if (!region || region->id != job.life) return false;
        const Result<bool> done = act(*region);
        if (!done || *done) return done.has_value();
    }
}

std::chrono::milliseconds ClientMaps::retry_delay(std::uintptr_t page) {
    MutexLock guard(lock_);
    const std::chrono::nanoseconds now = monotonic_now();
    std::erase_if(meetings_, [&](const auto& entry) { return entry.second.at + meeting_is_remembered < now; });
    Meeting& meeting = meetings_[page];
    meeting.at = now;
    meeting.lasts = std::clamp(meeting.lasts * 2, shortest_meeting, longest_meeting);
    return meeting.lasts;
}

// The program may have moved the page meanwhile, and what was done to it went along: it is undone where the map shows
// it by now.
template <class Undo>
void ClientMaps::with_moved_region_of(const FaultJob& job, std::uint64_t offset, Undo undo) {
    MapRegistry& registry = MapRegistry::instance();
    const auto all_undone = [&] {
        MutexLock guard(registry.lock());
        if (!is_quiescent() || !std::ranges::all_of(registry.pages_of_locked(job.life, offset), undo)) return false;
        // A move that has begun in between was missed. Its event is read with this lock only.
        return is_quiescent();
    };
    while (!all_undone()) ::sched_yield();
}

// Every access is answered by the kernel, at once, where it is made; the rights of the map are not touched.
bool ClientMaps::reject_by_poison(const FaultJob& job) {
    std::uint64_t offset = 0;
    const bool poisoned = with_region_of(job, [&](const Region& region) {
        offset = region.offset_of(job.page);
        return userfault_.try_poison(job.page);
    });
    if (!poisoned) return false;
    userfault_.wake(job.page, page_size);
    RejectedPages::instance().set_retry_limit(job.page, retry_delay(job.page));
    with_moved_region_of(job, offset, [&](std::uintptr_t page) { return userfault_.try_clear(page); });
    return true;
}

// Loads go on, where it is a store that is refused. Other threads that store to the page meanwhile meet SIGSEGV.
void ClientMaps::reject_by_protection(const FaultJob& job) {
    const auto give = [](std::uintptr_t page, int protection) -> Result<bool> {
        if (::mprotect(reinterpret_cast<void*>(page), page_size, protection) != 0)
            return fail(errno, "mprotect of a page of a map");
        return true;
    };
    std::uint64_t offset = 0;
    int before = 0, left = 0;
    const bool changed = with_region_of(job, [&](const Region& region) {
        // The program may have given the page other rights than the map was made with.
        const std::optional<ProcMap> placed = find_proc_map(job.page);
        // A move that has begun just now may have left the address to other memory.
        if (placed && !is_ours(*placed)) return Result<bool>(fail(EFAULT, "a page of a map has gone"));
        before = placed ? placed->protection : region.protection;
        left = job.kind == Access::store ? before & ~PROT_WRITE : PROT_NONE;
        offset = region.offset_of(job.page);
        return give(job.page, left);
    });
    if (!changed) return;
    userfault_.wake(job.page, page_size);
    RejectedPages::instance().set_retry_limit(job.page, retry_delay(job.page));
    with_moved_region_of(job, offset, [&](std::uintptr_t page) {
        const std::optional<ProcMap> placed = find_proc_map(page);
        // Others than those that it was left with are the program's. What is not there any more has none.
        if (placed && placed->protection == left) (void)give(page, before);
        return true;
    });
}

}  // namespace uext4
