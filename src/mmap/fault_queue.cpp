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
