#include "tests/doubles/simulated_maps.h"

#include "base/page.h"
#include "sync/resource_tracking.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace uext4 {

namespace {
constexpr int space_attempts = 3;
constexpr int most_faults = 10'000;  // of one access: more is a fault that its answers do not end
}  // namespace

class SimulatedMaps::Map {
public:
    Map(const MapRequest& request, std::shared_ptr<File> file) : request(request), file(std::move(file)) {}

    const MapRequest request;
    const std::shared_ptr<File> file;
    // Guarded by the file's lock: offsets in the map of pages that are visible, of those that may be stored to, and a
    // private map's own pages.
    std::set<std::uint64_t> visible, writable;
    std::map<std::uint64_t, std::vector<std::byte>> own;
    bool unmapped = false;
};

// The memory of a file's folios, and what stands for page tables.
class SimulatedMaps::File final : public ClientMapsHook {
public:
    File(InodeRef reference, std::uint32_t folio_size, std::uint64_t size)
        : inode(std::move(reference)), folio_size_(folio_size), reach_(round_up(size, page_size)) {}

    const InodeRef inode;

    void add(Map& map) {
        MutexLock guard(lock_);
        maps_.insert(&map);
    }
    bool remove(Map& map) {  // whether it was the last
        MutexLock guard(lock_);
        map.unmapped = true;
        map.visible.clear();
        map.writable.clear();
        map.own.clear();
        maps_.erase(&map);
        return maps_.empty();
    }

    // As the processor does: false when the page tables do not allow the access.
    bool attempt(const Access& access) {
        MutexLock guard(lock_);
        return attempt_locked(access);
    }
    // The file's pages become visible in the map, and the access, if it is given, is made at once.
    bool install(Map& map, std::uint64_t offset, std::uint64_t length, bool writable, const Access* access) {
        MutexLock guard(lock_);
        if (map.unmapped) return false;
        const std::uint64_t start = map.request.offset, end = start + round_up(map.request.length, page_size);
        for (std::uint64_t at = std::max(offset, start); at < std::min(offset + length, end); at += page_size) {
            map.visible.insert(at - start);
            if (writable && map.request.shared) map.writable.insert(at - start);
        }
        return access && attempt_locked(*access);
    }

    void write_protect(std::uint64_t offset, std::uint64_t length) override {
        MutexLock guard(lock_);
        for (Map* map : maps_) forget(*map, map->writable, offset, length);
    }
    Result<std::byte*> folio_memory(std::uint64_t index) override {
        MutexLock guard(lock_);
        std::vector<std::byte>& bytes = memory_[index];
        bytes.assign(folio_size_, std::byte{0xa5});  // a folio's memory is undefined
        reach_ = std::max(reach_, (index + 1) * folio_size_);
        return bytes.data();
    }
    void release_folio_memory(std::uint64_t index) override {
        MutexLock guard(lock_);
        drop_locked(index * folio_size_, folio_size_);
        memory_.erase(index);
    }
    std::uint64_t lost_blocks(std::uint64_t) override { return 0; }
    void extend(std::uint64_t size) override {
        MutexLock guard(lock_);
        reach_ = std::max(reach_, round_up(size, page_size));
    }
    void truncate(std::uint64_t size) override {
        MutexLock guard(lock_);
        const std::uint64_t end = round_up(size, page_size);
        if (end < reach_) drop_locked(end, reach_ - end);
        reach_ = std::min(reach_, end);
    }

private:
    static void forget(const Map& map, std::set<std::uint64_t>& pages, std::uint64_t offset, std::uint64_t length) {
        const std::uint64_t start = map.request.offset, first = round_down(offset, page_size);
        const std::uint64_t end = round_up(offset + length, page_size);
        if (end <= start) return;
        pages.erase(pages.lower_bound(first > start ? first - start : 0), pages.lower_bound(end - start));
    }
    void drop_locked(std::uint64_t offset, std::uint64_t length) UEXT4_REQUIRES(lock_) {
        for (Map* map : maps_) {
            forget(*map, map->visible, offset, length);
            forget(*map, map->writable, offset, length);
        }
    }
    std::byte* at_locked(std::uint64_t offset) UEXT4_REQUIRES(lock_) {
        auto it = memory_.find(offset / folio_size_);
        return it == memory_.end() ? nullptr : it->second.data() + offset % folio_size_;
    }
    bool attempt_locked(const Access& access) UEXT4_REQUIRES(lock_) {
        Map& map = *access.map;
        if (map.unmapped) return false;
        std::byte* bytes = nullptr;
        if (auto own = map.own.find(access.page); own != map.own.end()) {
            bytes = own->second.data();
        } else {
            if (!map.visible.contains(access.page)) return false;
            bytes = at_locked(map.request.offset + access.page);
            if (!bytes) return false;
            if (access.store && !map.request.shared) {
                bytes =
                    map.own.emplace(access.page, std::vector<std::byte>(bytes, bytes + page_size)).first->second.data();
            } else if (access.store && !map.writable.contains(access.page)) {
                return false;
            }
        }
        if (access.store) std::memcpy(bytes + access.inside, access.in.data(), access.in.size());
        else std::memcpy(access.out.data(), bytes + access.inside, access.out.size());
        return true;
    }

    const std::uint32_t folio_size_;
    Mutex lock_{Rank::Leaf, "SimulatedMaps::File"};
    std::uint64_t reach_;
    std::set<Map*> maps_ UEXT4_GUARDED_BY(lock_);
    std::map<std::uint64_t, std::vector<std::byte>> memory_ UEXT4_GUARDED_BY(lock_);
};

SimulatedMaps::SimulatedMaps(FaultHandler& server, Options options) : server_(server), options_(options) {
    const SourceLocation here = SourceLocation::current();
    for (int i = 0; i < options.workers; ++i) threads_.emplace_back("sim faults", [this] { work(); }, here);
    threads_.emplace_back("sim room", [this] { make_room(); }, here);
}

SimulatedMaps::~SimulatedMaps() {
    {
        MutexLock guard(lock_);
        stop_ = true;
        jobs_changed_.notify_all();
        room_wanted_.notify_all();
    }
    threads_.clear();
    // Maps that were left, and files whose last unmap could not write back.
    std::unordered_map<Inode*, std::shared_ptr<File>> left;
    {
        MutexLock guard(lock_);
        left.swap(files_);
    }
    for (auto& [inode, file] : left) {
        inode->pages().remove(0, ~std::uint64_t{0});
        inode->pages().set_client_maps(nullptr);
    }
}

// With Inode held exclusively.
Result<std::shared_ptr<SimulatedMaps::File>> SimulatedMaps::attach(const InodeRef& inode) {
    {
        MutexLock guard(lock_);
        if (auto it = files_.find(&*inode); it != files_.end()) return it->second;
    }
    std::shared_ptr<File> file;
    TRY(server_.run_with_stores_stopped(*inode, [&]() -> Result<void> {
        file = std::make_shared<File>(inode, inode->pages().folio_size(), inode->size_hint());
        inode->pages().set_client_maps(file.get());
        return {};
    }));
    MutexLock guard(lock_);
    files_[&*inode] = file;
    return file;
}

Result<SimulatedMaps::MapRef> SimulatedMaps::map(const MapRequest& request) {
    if (request.length == 0 || request.offset % page_size != 0)
        return fail(EINVAL, "memory map of {} bytes at {}", request.length, request.offset);
    MapRef made;
    const Result<void> mapped = server_.with_inode_lock(*request.inode, [&]() -> Result<void> {
        std::shared_ptr<File> file = TRY(attach(request.inode));
        made = std::make_shared<Map>(request, std::move(file));
        made->file->add(*made);
        return {};
    });
    if (!mapped) return fail(mapped.error());
    return made;
}

Result<void> SimulatedMaps::unmap(const MapRef& map) {
    const std::shared_ptr<File> file = map->file;
    Inode& inode = *file->inode;
    return server_.with_inode_lock(inode, [&]() -> Result<void> {
        if (!file->remove(*map)) return {};
        const Result<void> quiet = server_.run_with_stores_stopped(inode, [&]() -> Result<void> {
            inode.pages().set_client_maps(nullptr);
            return {};
        });
        if (!quiet) return fail(quiet.error());
        MutexLock guard(lock_);
        files_.erase(&inode);
        return {};
    });
}

Result<void> SimulatedMaps::load(Map& map, std::uint64_t at, Bytes out, Source source, SourceLocation where) {
    return access(map, at, out.size(), false, out, {}, source, where);
}

Result<void> SimulatedMaps::store(Map& map, std::uint64_t at, ConstBytes in, Source source, SourceLocation where) {
    return access(map, at, in.size(), true, {}, in, source, where);
}

Result<void> SimulatedMaps::access(Map& map, std::uint64_t at, std::size_t size, bool store, Bytes out, ConstBytes in,
                                   Source source, SourceLocation where) {
    if (at > map.request.length || size > map.request.length - at)
        return fail(EFAULT, "an access of {} bytes at {} leaves the map", size, at);
    if (!(map.request.protection & (store ? PROT_WRITE : PROT_READ))) return fail(EACCES, "the map's protection");
    for (std::size_t done = 0; done < size;) {
        Access one{.map = &map,
                   .page = round_down(at + done, page_size),
                   .inside = (at + done) % page_size,
                   .store = store,
                   .where = where};
        const std::size_t n = std::min<std::uint64_t>(size - done, page_size - one.inside);
        if (store) one.in = in.subspan(done, n);
        else one.out = out.subspan(done, n);
        TRY(access_page(one, source));
        done += n;
    }
    return {};
}

Result<void> SimulatedMaps::access_page(const Access& access, Source source) {
    for (int i = 0; i < most_faults; ++i) {
        schedule_point(Point::Access, access.store ? "a store to a map" : "a load from a map", access.map->file.get(),
                       access.where);
        if (access.map->file->attempt(access)) return {};
        if (TRY(fault(access, source))) return {};
        if (source == Source::once)
            return fail(EFAULT, "a fault that may not be retried was not served at once: offset {}", access.page);
    }
    return fail(EDEADLK, "an access at {} faults without end", access.page);
}

HeldResource SimulatedMaps::Job::answer() const {
    return {this, "answer to a fault at", access.map->request.offset + access.page,
            access.map->file->inode->number().value};
}

Result<bool> SimulatedMaps::fault(const Access& access, Source source) {
    Job job{.access = access, .source = source};
    faults_.fetch_add(1);
    const MapRequest& request = access.map->request;
    const bool writable = request.shared && (request.protection & PROT_WRITE);
    job.as_store = request.shared && (access.store || (writable && !options_.continue_protected));
    if (job.as_store && access.store && !request.may_write) return fail(EACCES, "the file is open for reading only");
    schedule_point(Point::Fault, "a fault is delivered", access.map->file.get(), access.where);
    MutexLock guard(lock_, access.where);
    jobs_.push_back(&job);
    jobs_changed_.notify_one(access.where);
    while (!job.done) served_.wait(lock_, job.answer(), access.where);
    if (!job.result) return fail(job.result.error());
    return job.accessed;
}

void SimulatedMaps::serve(Job& job) {
    Map& map = *job.access.map;
    schedule_point(Point::Fault, "a fault is served", map.file.get());
    const Fault fault{map.file->inode, map.request.offset + job.access.page, job.as_store, map.request.may_use_reserve};
    std::uint64_t thaws = 0;
    {
        MutexLock guard(lock_);
        thaws = thaws_;
    }
    Result<void> served = server_.handle(fault, [&](std::uint64_t offset, std::uint64_t length, bool writable) {
        const bool its_own = offset <= fault.offset && fault.offset < offset + length;
        const bool at_once = its_own && job.source == Source::once;
        if (map.file->install(map, offset, length, writable, at_once ? &job.access : nullptr)) job.accessed = true;
        return Result<void>{};
    });
    MutexLock guard(lock_);
    note_released(&job);
    if (!served && served.error().code == EAGAIN) {
        // A thaw since then has looked for parked faults already.
        if (thaws == thaws_) {
            parked_.push_back(&job);
        } else {
            jobs_.push_back(&job);
            jobs_changed_.notify_one();
        }
    } else if (!served && served.error().code == ENOSPC && job.attempts++ < space_attempts) {
        no_space_.push_back(&job);
        room_wanted_.notify_all();
    } else {
        job.result = std::move(served);
        job.done = true;
        served_.notify_all();
    }
}

void SimulatedMaps::work() {
    for (;;) {
        Job* job = nullptr;
        {
            MutexLock guard(lock_);
            while (jobs_.empty() && !stop_) jobs_changed_.wait(lock_);
            if (jobs_.empty()) return;
            job = jobs_.front();
            jobs_.pop_front();
            note_held(job->answer(), SourceLocation::current());
        }
        serve(*job);
    }
}

void SimulatedMaps::make_room() {
    for (;;) {
        Job* job = nullptr;
        {
            MutexLock guard(lock_);
            while (no_space_.empty() && !stop_) room_wanted_.wait(lock_);
            if (no_space_.empty()) return;
            job = no_space_.front();
            no_space_.pop_front();
            note_held(job->answer(), SourceLocation::current());
        }
        server_.free_space(*job->access.map->file->inode);
        MutexLock guard(lock_);
        note_released(job);
        jobs_.push_back(job);
        jobs_changed_.notify_one();
    }
}

void SimulatedMaps::resume() {
    MutexLock guard(lock_);
    ++thaws_;
    for (Job* job : parked_) jobs_.push_back(job);
    parked_.clear();
    jobs_changed_.notify_all();
}

std::size_t SimulatedMaps::parked() const {
    MutexLock guard(lock_);
    return parked_.size();
}

}  // namespace uext4
