// The reader, the workers and the helper of ClientMaps.
#include "base/page.h"
#include "mmap/client_maps.h"
#include "mmap/proc_maps.h"
#include "mmap/rejected_pages.h"

#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace uext4 {

namespace {
constexpr int space_attempts = 3;
constexpr std::chrono::milliseconds shortest_meeting{1}, longest_meeting{20}, meeting_is_remembered{100};

const void* page_at(std::uintptr_t page) { return reinterpret_cast<const void*>(page); }
bool is_ours(const ProcMap& placed) { return placed.path.starts_with(fmt::format("/memfd:{}", FolioMemoryFile::name)); }
}  // namespace

// ---- the reader: makes no memory-management call and waits for nobody, since munmap and UFFDIO_* wait for it.

void ClientMaps::read_events() {
    constexpr int soon = 10;  // ms
    for (bool is_open = false;;) {
        pollfd polled[2] = {{userfault_.descriptor(), POLLIN, 0}, {stop_event_, POLLIN, 0}};
        if (::poll(polled, 2, is_open ? soon : -1) < 0 && errno != EINTR) return;
        if (polled[1].revents) return;
        if (!is_open && !(polled[0].revents & POLLIN)) continue;
        std::vector<Region> gone;
        {
            MapRegistry& registry = MapRegistry::instance();
            MutexLock guard(registry.lock());
            uffd_msg messages[32];
            const ssize_t n = ::read(userfault_.descriptor(), messages, sizeof messages);
            for (ssize_t i = 0; i < n / static_cast<ssize_t>(sizeof(uffd_msg)); ++i) handle_event(messages[i], gone);
            is_open = this->is_open() && !is_quiescent();
        }
        if (!gone.empty()) handle_removed_regions(std::move(gone));
    }
}

// The helper lets the files go.
void ClientMaps::handle_removed_regions(std::vector<Region> gone) {
    MutexLock guard(lock_);
    settle_wanted_ = true;
    gone_.insert(gone_.end(), std::make_move_iterator(gone.begin()), std::make_move_iterator(gone.end()));
    chores_changed_.notify_all();
}

bool ClientMaps::is_quiescent() {
    MapRegistry& registry = MapRegistry::instance();
    registry.lock().assert_held();
    if (!userfault_.has_no_pending_events()) return false;
    unknown_gone_.clear();
    if (registry.is_in_doubt_locked(this)) doubtful_ = true;
    if (registry.is_open_locked(this)) handle_removed_regions(registry.settle_locked(this));
    if (!doubtful_) return true;
    // What is moved between two looks is seen neither where it was nor where it goes; its event waits then.
    const std::optional<std::vector<ProcMap>> files = file_maps_in(0, UINTPTR_MAX);
    if (!files || !userfault_.has_no_pending_events()) return false;
    if (std::vector<Region> stale = registry.remove_stale_locked(this, *files); !stale.empty())
        handle_removed_regions(std::move(stale));
    all_known_ = registry.learn_all_locked(this, *files);
    doubtful_ = false;
    return true;
}

bool ClientMaps::was_removed_unknown(std::uintptr_t start, std::uintptr_t end) const {
    MapRegistry::instance().lock().assert_held();
    return std::ranges::any_of(unknown_gone_,
                               [&](const auto& gone) { return gone.first < end && start < gone.second; });
}

bool ClientMaps::is_open() {
    MapRegistry& registry = MapRegistry::instance();
    registry.lock().assert_held();
    return doubtful_ || !unknown_gone_.empty() || registry.is_open_locked(this);
}

void ClientMaps::handle_event(const uffd_msg& message, std::vector<Region>& gone) {
    MapRegistry& registry = MapRegistry::instance();
    registry.lock().assert_held();
    switch (message.event) {
        case UFFD_EVENT_PAGEFAULT: {
            const auto flags = message.arg.pagefault.flags;
            const bool store = (flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP)) != 0;
            const std::uintptr_t page = round_down(message.arg.pagefault.address, page_size);
            const RegionRef region = registry.find_locked(page);
            queue_fault(page, store ? Access::store : Access::load, region ? region->id : 0,
                        static_cast<pid_t>(message.arg.pagefault.feat.ptid));
            return;
        }
        case UFFD_EVENT_UNMAP: {
            all_known_ = false;
            if (!keep_proc_maps_open()) doubtful_ = true;
            const auto [start, end] = std::pair(message.arg.remove.start, message.arg.remove.end);
            registry.keep_growth_locked(start, end, this);
            const auto known = registry.known_to_go_locked(start, end, std::nullopt, this);
            if (known == MapRegistry::Knowledge::contrary) doubtful_ = true;
            if (known == MapRegistry::Knowledge::part) unknown_gone_.emplace_back(start, end);
            std::vector<Region> parts = registry.remove_locked(start, end, this);
            gone.insert(gone.end(), std::make_move_iterator(parts.begin()), std::make_move_iterator(parts.end()));
            return;
        }
        case UFFD_EVENT_REMAP: {
            all_known_ = false;
            if (!keep_proc_maps_open()) doubtful_ = true;
            const auto moved = message.arg.remap;
            if (moved.len == 0) {
                registry.double_locked(moved.from, moved.to, this);
                if (!registry.find_locked(moved.to) || was_removed_unknown(moved.to, moved.to + page_size))
                    doubtful_ = true;
                return;
            }
            registry.keep_moved_growth_locked(moved.from, moved.to, moved.len, this);
            if (registry.known_to_go_locked(moved.from, moved.from + moved.len, moved.to, this) !=
                MapRegistry::Knowledge::all)
                doubtful_ = true;
            if (was_removed_unknown(moved.from, moved.from + moved.len) ||
                was_removed_unknown(moved.to, moved.to + moved.len))
                doubtful_ = true;
            registry.move_locked(moved.from, moved.to, moved.len, this);
            registry.find_moved_locked(moved.from, moved.to, moved.len);
            return;
        }
        default: return;
    }
}

// One answer serves all threads that wait for the page in the same way; repeated messages are the kernel's habit for a
// thread with a pending signal.
void ClientMaps::queue_fault(std::uintptr_t page, Access kind, std::uint64_t life, pid_t tid) {
    MutexLock guard(lock_);
    // It waits here, and no longer where a signal handler has made it leave.
    for (auto& [key, threads] : waiting_) std::erase(threads, tid);
    auto [it, fresh] = waiting_.try_emplace({page, kind});
    it->second.push_back(tid);
    if (!fresh) return;
    jobs_.push_back({.page = page, .kind = kind, .life = life});
    jobs_changed_.notify_one();
}

// ---- the workers

void ClientMaps::worker_loop() {
    for (;;) {
        FaultJob job;
        {
            MutexLock guard(lock_);
            while (jobs_.empty() && !stop_) jobs_changed_.wait(lock_);
            if (stop_) return;
            job = jobs_.front();
            jobs_.pop_front();
        }
        handle_fault(job);
    }
}

// A private map takes its own copy of what is loaded. Where the kernel cannot tell the first store, every access to a
// map that may store counts as one.
std::optional<ClientMaps::Access> ClientMaps::effective_access(const Region& region, Access kind) const {
    if (!region.shared) return Access::load;
    if (kind == Access::store && !region.may_write) return std::nullopt;
    const bool writable = (region.protection & PROT_WRITE) != 0;
    return kind == Access::store || (writable && !features().continue_protected) ? Access::store : Access::load;
}

bool ClientMaps::make_accessible(const void* address, bool store) {
    const std::uintptr_t page = round_down(reinterpret_cast<std::uintptr_t>(address), page_size);
    EngineUse use;
    const RegionRef region = region_of(page, use);
    return region && region->engine->make_page_accessible(*region, page, store ? Access::store : Access::load);
}

bool ClientMaps::make_page_accessible(const Region& region, std::uintptr_t page, Access kind) {
    const std::optional<Access> counts = effective_access(region, kind);
    if (!counts) return false;
    for (int attempts = 0; attempts <= space_attempts;) {
        std::uint64_t thaws = 0;
        {
            MutexLock guard(lock_);
            thaws = thaws_;
        }
        const Result<void> served =
            handle_fault_in(region, FaultJob{.page = page, .kind = kind, .life = region.id}, *counts);
        if (served) return true;
        if (served.error().code == ENOSPC) {
            server_.free_space(*region.inode);
            ++attempts;
        } else if (served.error().code == EAGAIN) {
            MutexLock guard(lock_);
            while (thaws_ == thaws && !stop_) thawed_.wait(lock_);
        } else {
            return false;
        }
    }
    return false;
}

void ClientMaps::handle_fault(FaultJob job) {
    EngineUse use;  // outlives the reference
    RegionRef region = region_of(job.page, use, this);
    // Another map lies there now, whose accesses ask for themselves.
    if (region && (region->engine != this || (job.life != 0 && region->id != job.life))) return finish(job);
    if (!region) return reject_permanently(job);
    job.life = region->id;
    const std::optional<Access> kind = effective_access(*region, job.kind);
    if (!kind) return reject_fault(job);
    std::uint64_t thaws = 0;
    {
        MutexLock guard(lock_);
        thaws = thaws_;
    }
    const Result<void> served = handle_fault_in(*region, job, *kind);
    region.reset();  // whoever goes on may unmap and remove the file, and want its space
    if (served) return finish(job);
    MutexLock guard(lock_);
    if (served.error().code == EAGAIN) {
        // A thaw since then has looked for parked faults already.
        if (thaws == thaws_) parked_.push_back(job);
        else jobs_.push_back(job), jobs_changed_.notify_one();
        return;
    }
    if (served.error().code == ENOSPC && job.attempts++ < space_attempts) {
        no_space_.push_back(job);
        chores_changed_.notify_all();
        return;
    }
    guard.unlock();
    reject_fault(job);
}

// What is shown is shown to the map of which the access was: where another lies there by now, or none, to nobody.
Result<void> ClientMaps::handle_fault_in(const Region& region, const FaultJob& job, Access kind) {
    const Fault fault{region.inode, region.offset_of(job.page), kind == Access::store, region.may_use_reserve};
    return server_.handle(fault, [&](std::uint64_t offset, std::uint64_t length, bool writable) -> Result<void> {
        const auto try_it = [&]() -> Result<bool> {
            MapRegistry& registry = MapRegistry::instance();
            MutexLock guard(registry.lock());
            if (is_open() && !is_quiescent()) return false;
            const RegionRef now = registry.find_locked(job.page);
            if (!now || now->id != region.id || now->inode.get() != region.inode.get()) return true;
            const std::uint64_t first = std::max(offset, now->offset);
            const std::uint64_t end = std::min(offset + length, now->offset + now->length);
            if (first >= end) return true;
            const std::uintptr_t at = now->start + (first - now->offset);
            const bool watched = now->shared;
            if (!TRY(userfault_.try_install(at, end - first, watched && !writable && features().continue_protected)))
                return false;
            if (!watched) return true;
            if (writable) return userfault_.try_protect(at, end - first, false);
            return features().continue_protected || userfault_.try_protect(at, end - first, true);
        };
        while (!TRY(try_it())) ::sched_yield();
        return {};
    });
}

RegionRef ClientMaps::region_of(std::uintptr_t page, EngineUse& use, ClientMaps* engine) {
    MapRegistry& registry = MapRegistry::instance();
    for (;; ::sched_yield()) {
        MutexLock guard(registry.lock());
        RegionRef there = registry.find_locked(page);
        if (!there) {
            if (engine && !engine->is_quiescent()) continue;
            const RegionRef below = registry.below_locked(page);
            if (!below && !engine) return nullptr;
            if (below && !below->engine->is_quiescent()) continue;
            registry.find_growth_locked(page, page + page_size);
            there = registry.find_locked(page);
        }
        // A thread of the engine's ends before the engine.
        if (there && there->engine != engine) use.add_locked(*there->engine);
        return there;
    }
}

RegionRef ClientMaps::find_own(std::uintptr_t page) {
    MapRegistry& registry = MapRegistry::instance();
    MutexLock guard(registry.lock());
    RegionRef there = registry.find_locked(page);
    return there && there->engine == this ? there : nullptr;
}

// By a system call that does nothing else, so that what cannot be read is no signal.
bool ClientMaps::overlaps_growth(const void* memory, std::size_t length) {
    const std::uintptr_t page = round_down(reinterpret_cast<std::uintptr_t>(memory), page_size);
    const RankGuard touches(Rank::UserMemory);
    constexpr int no_such_change = -1;
    constexpr std::size_t kernel_set_size = 8;
    const long read = ::syscall(SYS_rt_sigprocmask, no_such_change, page, nullptr, kernel_set_size);
    // Where only the program's own code faults, what has grown cannot be read in this way.
    if (read != 0 && errno == EFAULT) {
        EngineUse use;
        (void)region_of(page, use);
    }
    return MapRegistry::instance().overlaps(memory, length);
}

// Off the list before the wake: who faults again afterwards sends a message that is not taken for a repeated one.
void ClientMaps::finish(const FaultJob& job) {
    {
        MutexLock guard(lock_);
        waiting_.erase({job.page, job.kind});
    }
    userfault_.wake(job.page, page_size);
}

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

// ---- the helper

void ClientMaps::helper_loop() {
    for (;;) {
        std::deque<FaultJob> hungry;
        std::vector<Region> gone;
        bool settling = false, ending = false;
        {
            MutexLock guard(lock_);
            while (no_space_.empty() && !settle_wanted_ && !end_wanted_ && !stop_) chores_changed_.wait(lock_);
            if (stop_) return;
            hungry.swap(no_space_);
            gone.swap(gone_);
            settling = settling_ = std::exchange(settle_wanted_, false);
            ending = std::exchange(end_wanted_, false);
        }
        if (ending) write_protect_all();
        if (settling) {
            gone.clear();
            detach_unmapped_files();
            MutexLock guard(lock_);
            settling_ = false;
            settled_.notify_all();
        }
        for (const FaultJob& job : hungry) {
            if (const RegionRef region = find_own(job.page)) server_.free_space(*region->inode);
            MutexLock guard(lock_);
            jobs_.push_back(job);
            jobs_changed_.notify_one();
        }
    }
}

}  // namespace uext4
