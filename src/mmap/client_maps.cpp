#include "mmap/client_maps.h"

#include "base/page.h"
#include "mmap/proc_maps.h"

#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace uext4 {

namespace {
constexpr int worker_count = 4;
}  // namespace

ClientMaps::ClientMaps(FaultHandler& server, Userfault userfault) : server_(server), userfault_(std::move(userfault)) {}

Result<std::unique_ptr<ClientMaps>> ClientMaps::start(FaultHandler& server) {
    TRY(keep_proc_maps_open());
    std::unique_ptr<ClientMaps> made(new ClientMaps(server, TRY(Userfault::open())));
    TRY(made->start_threads());
    return made;
}

Result<void> ClientMaps::start_threads() {
    stop_event_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stop_event_ < 0) return fail(errno, "memory maps: no eventfd: {}", std::strerror(errno));
    reader_ = TRY(Thread::start("map faults", [this] { read_events(); }));
    helper_ = TRY(Thread::start("map room", [this] { helper_loop(); }));
    for (int i = 0; i < worker_count; ++i)
        workers_.push_back(TRY(Thread::start("map worker", [this] { worker_loop(); })));
    return {};
}

ClientMaps::~ClientMaps() {
    detach_unmapped_files();
    {
        MutexLock guard(lock_);
        stop_ = true;
        jobs_changed_.notify_all();
        chores_changed_.notify_all();
    }
    const std::uint64_t one = 1;
    if (stop_event_ >= 0) [[maybe_unused]]
        const ssize_t told = ::write(stop_event_, &one, sizeof one);
    reader_.join();
    helper_.join();
    for (Thread& worker : workers_) worker.join();
    if (stop_event_ >= 0) ::close(stop_event_);
    // What could not be written keeps its memory until the inode goes, which is after us: it loses it now.
    std::unordered_map<Inode*, Attached> left;
    {
        MutexLock guard(attach_lock_);
        left.swap(attached_);
    }
    for (auto& [inode, attached] : left) {
        (void)MapRegistry::instance().forget_file(attached.file.get());
        inode->pages().remove(0, ~std::uint64_t{0});
        inode->pages().set_client_maps(nullptr);
    }
}

std::shared_ptr<MappedFile> ClientMaps::attached(Inode& inode) {
    MutexLock guard(attach_lock_);
    const auto it = attached_.find(&inode);
    return it == attached_.end() ? nullptr : it->second.file;
}

// With Inode held exclusively.
Result<std::shared_ptr<MappedFile>> ClientMaps::attach(Inode& inode, const InodeRef& reference) {
    if (std::shared_ptr<MappedFile> there = attached(inode)) return there;
    std::shared_ptr<MappedFile> file;
    const auto take_in = [&]() -> Result<void> {
        std::unique_ptr<FolioMemoryFile> memory =
            TRY(FolioMemoryFile::create(inode.size_hint(), inode.pages().folio_size()));
        file = std::make_shared<MappedFile>(userfault_, std::move(memory), inode.pages().folio_size(),
                                            [this] { return is_quiescent(); });
        inode.pages().set_client_maps(file.get());
        return {};
    };
    TRY(server_.run_with_stores_stopped(inode, take_in));
    MutexLock guard(attach_lock_);
    attached_[&inode] = {reference, file};
    return file;
}

Result<void*> ClientMaps::map_at_new_address(const MapRequest& request, const std::shared_ptr<MappedFile>& file) {
    const Userfault::MapSpec wanted{.length = round_up(request.length, page_size),
                                    .protection = request.protection,
                                    .shared = request.shared,
                                    .file = file->descriptor(),
                                    .offset = request.offset};
    TRY(file->contents().ensure_size(std::min(wanted.offset + wanted.length, request.inode->size_hint())));
    MapRegistry& registry = MapRegistry::instance();
    std::uintptr_t start = 0;
    MapRegistry::LeavingRef leaving;
    {
        // Who looks for what is not known does not find it before it is a map.
        MutexLock guard(registry.lock());
        start = reinterpret_cast<std::uintptr_t>(TRY(userfault_.map_registered(wanted)));
        leaving = registry.set_leaving_locked(start, start + wanted.length, {});
    }
    void* memory = reinterpret_cast<void*>(start);
    // The addresses may be those of a map that the program has just taken away: its event is not to meet this one.
    for (bool placed = false; !placed; ::sched_yield()) {
        MutexLock guard(registry.lock());
        if (!is_quiescent()) continue;
        registry.set_left_locked(leaving);
        registry.insert_locked({.start = start,
                                .length = wanted.length,
                                .offset = request.offset,
                                .inode = request.inode,
                                .file = file,
                                .engine = this,
                                .protection = request.protection,
                                .shared = request.shared,
                                .may_write = request.may_write,
                                .may_use_reserve = request.may_use_reserve});
        placed = true;
    }
    if (Result<void> open = Userfault::allow_access(memory, wanted); !open) {
        TRY(unmap(memory, wanted.length));
        return fail(open.error());
    }
    return memory;
}

Result<void*> ClientMaps::map(const MapRequest& request) {
    if (request.length > SIZE_MAX - page_size) return fail(ENOMEM, "memory map of {} bytes", request.length);
    if (request.length == 0 || request.offset % page_size != 0)
        return fail(EINVAL, "memory map of {} bytes at {}: the offset is in units of {} bytes, the length above 0",
                    request.length, request.offset, page_size);
    if (request.offset > static_cast<std::uint64_t>(INT64_MAX) - request.length - page_size)
        return fail(EOVERFLOW, "memory map of {} bytes at {}", request.length, request.offset);
    void* memory = nullptr;
    // A file that has maps gets one more while the file system is frozen, too.
    const auto map_again = [&]() -> Result<void> {
        if (const std::shared_ptr<MappedFile> file = attached(*request.inode))
            memory = TRY(map_at_new_address(request, file));
        return {};
    };
    const auto map_first = [&]() -> Result<void> {
        const std::shared_ptr<MappedFile> file = TRY(attach(*request.inode, request.inode));
        memory = TRY(map_at_new_address(request, file));
        return {};
    };
    Result<void> mapped = server_.with_inode_lock_shared(*request.inode, map_again);
    if (mapped && !memory) mapped = server_.with_inode_lock(*request.inode, map_first);
    if (!mapped) {
        request_detach();  // it may have been the file's first
        return fail(mapped.error());
    }
    if (request.populate) {
        const RegionRef region = find_own(reinterpret_cast<std::uintptr_t>(memory));
        if (region) populate(*region);
    }
    return memory;
}

// As far as it goes: what cannot be had now faults later, and says so then.
void ClientMaps::populate(const Region& region) {
    const std::uint64_t size = region.inode->size_hint();
    for (std::uintptr_t page = region.start; page < region.end() && region.offset_of(page) < size; page += page_size)
        if (!handle_fault_in(region, FaultJob{page}, Access::load)) return;
}

Result<void> ClientMaps::unmap(void* address, std::size_t length) {
    const auto start = reinterpret_cast<std::uintptr_t>(address);
    if (start % page_size != 0 || length == 0 || length > SIZE_MAX - page_size)
        return fail(EINVAL, "unmap of {} bytes at {}: not whole pages", length, fmt::ptr(address));
    const std::uintptr_t end = start + round_up(length, page_size);
    MapRegistry& registry = MapRegistry::instance();
    // What has become longer than is known would be left, and nothing lead to it.
    TRY(keep_proc_maps_open());
    EngineUse use;
    std::vector<Region> gone;  // the last references to inodes go outside of the lock, and before the engines may
    MapRegistry::LeavingRef leaving;
    for (;; ::sched_yield()) {
        MutexLock guard(registry.lock());
        if (registry.is_partly_leaving_locked(start, end)) continue;
        // What an event that waits takes away may have given its address to other memory, which is to stay.
        std::set<ClientMaps*> engines;
        for (const Region& part : registry.parts_locked(start, end)) engines.insert(part.engine);
        if (!std::ranges::all_of(engines, [](ClientMaps* engine) { return engine->is_quiescent(); })) continue;
        registry.find_growth_locked(start, end);
        gone = registry.parts_locked(start, end);
        if (gone.empty()) return fail(EINVAL, "unmap of {} bytes at {}: no map of a file", length, fmt::ptr(address));
        // While the page cache still knows them: nothing is stored behind its back.
        for (auto part = gone.begin(); part != gone.end(); ++part) {
            Result<void> kept_out = Userfault::forbid_access(reinterpret_cast<void*>(part->start), part->length);
            if (kept_out) continue;
            while (part != gone.begin()) {
                --part;
                ::mprotect(reinterpret_cast<void*>(part->start), part->length, part->protection);
            }
            return kept_out;
        }
        for (const Region& part : gone) use.add_locked(*part.engine);
        registry.forget_locked(gone);
        leaving = registry.set_leaving_locked(start, end, gone);
        break;
    }
    for (const Region& part : gone) {
        // Not watched any more, so that no event of it is left behind.
        void* memory = reinterpret_cast<void*>(part.start);
        part.engine->userfault_.unregister(memory, part.length);
        ::munmap(memory, part.length);
    }
    {
        MutexLock guard(registry.lock());
        registry.set_left_locked(leaving);
        registry.keep_behind_locked(gone);
    }
    for (const Region& part : gone) part.engine->request_detach();
    return {};
}

ClientMaps::EngineUse::~EngineUse() {
    if (engines_.empty()) return;
    MutexLock guard(MapRegistry::instance().lock());
    for (ClientMaps* engine : engines_) --engine->uses_;
}

void ClientMaps::EngineUse::add_locked(ClientMaps& engine) {
    MapRegistry::instance().lock().assert_held();
    if (engines_.insert(&engine).second) ++engine.uses_;
}

std::vector<Region> ClientMaps::regions_in(std::uintptr_t start, std::uintptr_t end, EngineUse& use) {
    MapRegistry& registry = MapRegistry::instance();
    for (;; ::sched_yield()) {
        MutexLock guard(registry.lock());
        if (registry.is_partly_leaving_locked(start, end)) continue;
        std::vector<Region> out = registry.known_parts_locked(start, end);
        for (const Region& part : out) use.add_locked(*part.engine);
        return out;
    }
}

std::size_t ClientMaps::region_count() {
    // Events are read at once. What cannot be looked at is kept.
    constexpr std::chrono::seconds patience{1};
    MapRegistry& registry = MapRegistry::instance();
    const auto until = monotonic_now() + patience;
    for (;; ::sched_yield()) {
        MutexLock guard(registry.lock());
        const bool decided = knows_all_regions();
        if (!decided && monotonic_now() < until) continue;
        const std::size_t n = registry.count_locked(this) + uses_;
        return decided ? n : std::max<std::size_t>(n, 1);
    }
}

bool ClientMaps::knows_all_regions() {
    MapRegistry& registry = MapRegistry::instance();
    registry.lock().assert_held();
    if (!is_quiescent()) return false;
    if (all_known_) return true;
    const std::optional<std::vector<ProcMap>> files = file_maps_in(0, UINTPTR_MAX);
    all_known_ = files && userfault_.has_no_pending_events() && registry.learn_all_locked(this, *files);
    if (all_known_)
        if (std::vector<Region> last = registry.forget_last_locked(this); !last.empty())
            handle_removed_regions(std::move(last));
    return all_known_;
}

bool ClientMaps::rescan_regions() {
    constexpr std::chrono::milliseconds patience{100}, pause{1};
    MapRegistry& registry = MapRegistry::instance();
    for (const auto until = monotonic_now() + patience; monotonic_now() < until; this_thread::sleep(pause)) {
        MutexLock guard(registry.lock());
        if (knows_all_regions()) return true;
    }
    return false;
}

bool ClientMaps::still_uses(const MappedFile* file) {
    MapRegistry& registry = MapRegistry::instance();
    {
        MutexLock guard(registry.lock());
        if (registry.uses_locked(file)) return true;
        if (knows_all_regions()) return registry.uses_locked(file);
    }
    request_detach();
    return true;
}

void ClientMaps::detach_files() {
    std::vector<Region> gone;
    {
        MutexLock guard(lock_);
        gone.swap(gone_);
    }
    gone.clear();
    detach_unmapped_files(true);
    // The helper may hold some of them, on the way, unless it waits for a thaw.
    constexpr std::chrono::milliseconds glance{10};
    while (!server_.is_freezing()) {
        MutexLock guard(lock_);
        if (!settling_ || stop_) return;
        settled_.wait_for(lock_, glance);
    }
}

void ClientMaps::detach_unmapped_files(bool removed_only) {
    std::vector<Attached> all;
    {
        MutexLock guard(attach_lock_);
        for (const auto& [inode, attached] : attached_)
            if (!removed_only || !inode->has_links_hint()) all.push_back(attached);
    }
    for (const Attached& one : all) {
        if (MapRegistry::instance().uses(one.file.get())) continue;
        // Where maps come and go all the time that takes a while, for which nobody shall wait.
        if (!rescan_regions()) return request_detach();
        Inode& inode = *one.inode;
        std::optional<std::vector<Region>> last;
        const auto hold = removed_only ? &FaultHandler::try_with_inode_lock : &FaultHandler::with_inode_lock;
        Result<void> done = (server_.*hold)(inode, [&]() -> Result<void> {
            // Another thread may have done it, and the file have maps again.
            if (attached(inode) != one.file || still_uses(one.file.get())) return {};
            TRY(server_.run_with_stores_stopped(inode, [&]() -> Result<void> {
                last = MapRegistry::instance().forget_file(one.file.get());
                if (!last) return fail(EBUSY, "the file has memory maps");
                inode.pages().set_client_maps(nullptr);
                return {};
            }));
            MutexLock guard(attach_lock_);
            attached_.erase(&inode);
            return {};
        });
        // An error of its writeback is noted for fsync; the data stays in the cache, in this memory.
        (void)done;
    }
}

void ClientMaps::end_stores() {
    MutexLock guard(lock_);
    end_wanted_ = true;
    chores_changed_.notify_all();
}

void ClientMaps::write_protect_all() {
    std::vector<Attached> all;
    {
        MutexLock guard(attach_lock_);
        for (const auto& [inode, attached] : attached_) all.push_back(attached);
    }
    for (const Attached& one : all) server_.write_protect_all(*one.inode);
}

void ClientMaps::request_detach() {
    MutexLock guard(lock_);
    settle_wanted_ = true;
    chores_changed_.notify_all();
}

void ClientMaps::resume() {
    MutexLock guard(lock_);
    ++thaws_;
    for (const FaultJob& job : parked_) jobs_.push_back(job);
    parked_.clear();
    jobs_changed_.notify_all();
    thawed_.notify_all();
}

}  // namespace uext4
