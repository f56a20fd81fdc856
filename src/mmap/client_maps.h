// The memory maps of one file system's files, by userfaultfd over shared memory.
//
// A reader takes faults from the kernel and passes them on; workers serve them through the FaultHandler; a helper makes
// room when there is no space. A fault that cannot be served now is parked by page, never on a worker. Each answer
// installs the folio's pages in the map that faulted, while the folio is locked, and wakes the threads that wait for
// the page.
#pragma once

#include "mmap/fault_handler.h"
#include "mmap/map_registry.h"
#include "mmap/mapped_file.h"
#include "mmap/userfault.h"
#include "sync/condition.h"
#include "sync/thread.h"

#include <sys/types.h>

#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

namespace uext4 {

struct MapRequest {
    InodeRef inode;
    std::uint64_t offset = 0;  // bytes, a multiple of the page size
    std::size_t length = 0;    // bytes
    int protection = 0;        // PROT_*
    bool shared = true;        // else MAP_PRIVATE
    bool populate = false;
    bool may_write = false;  // the file is open for writing
    bool may_use_reserve = false;
};

class ClientMaps {
public:
    // EOPNOTSUPP and EPERM say what is missing and what to do.
    static Result<std::unique_ptr<ClientMaps>> start(FaultHandler& server);
    ~ClientMaps();  // no map is left
    ClientMaps(const ClientMaps&) = delete;

    // Whoever is no thread of an engine's, and found it by an address, keeps it: its maps may go meanwhile, and it with
    // them. It outlives what was found, whose inodes are of the engine's file system.
    class EngineUse {
    public:
        EngineUse() = default;
        ~EngineUse();
        EngineUse(const EngineUse&) = delete;
        EngineUse& operator=(const EngineUse&) = delete;
        void add_locked(ClientMaps& engine);  // the registry is locked

    private:
        std::set<ClientMaps*> engines_;
    };
    // The parts of [start, end) that are maps, by address, with what they have become longer by.
    static std::vector<Region> regions_in(std::uintptr_t start, std::uintptr_t end, EngineUse& use);

    const UserfaultFeatures& features() const { return userfault_.features(); }
    void disable_features() { userfault_.disable_features(); }  // for tests, before a map

    Result<void*> map(const MapRequest& request);
    // Whole pages, which may be part of maps or of several; what is no map of ours in the range stays. EINVAL.
    static Result<void> unmap(void* address, std::size_t length);

    // Gives the page what a load or store of the program's would get, for a system call about to touch it: of an
    // unprivileged process the kernel reports only faults of the program's own code. Waits as the fault would. False
    // where the access is refused. No lock is held.
    static bool make_accessible(const void* address, bool store);

    // Whether memory that is no map as far as is known is one that has become longer. It is where it begins that it has
    // to be looked for: what begins in other memory and reaches into a map meets what is known of it. Touches it, with
    // no lock held: what has grown is known from its first fault on.
    static bool overlaps_growth(const void* memory, std::size_t length);

    Result<void> sync(const InodeRef& inode) { return server_.sync(*inode); }
    // Maps, and uses of them. Not 0 where it cannot be told.
    std::size_t region_count();
    // The file system has become read-only: soon each page's next store is served again, and refused. Waits for
    // nothing.
    void end_stores();
    // The file system is thawed: stores that waited go on.
    void resume();
    // What the helper is about to do for removed files, at once: those without maps are held no longer.
    void detach_files();

private:
    enum class Access : bool { load, store };
    using Key = std::pair<std::uintptr_t, Access>;
    struct FaultJob {
        std::uintptr_t page = 0;
        Access kind = Access::load;
        std::uint64_t life = 0;  // of the map that was there when the access was made; 0: none that is known
        int attempts = 0;        // that ended for want of space
    };
    struct Attached {
        InodeRef inode;
        std::shared_ptr<MappedFile> file;
    };

    ClientMaps(FaultHandler& server, Userfault userfault);
    Result<void> start_threads();
    std::shared_ptr<MappedFile> attached(Inode& inode);  // null: it has no maps
    Result<std::shared_ptr<MappedFile>> attach(Inode& inode, const InodeRef& reference);
    Result<void*> map_at_new_address(const MapRequest& request, const std::shared_ptr<MappedFile>& file);
    void populate(const Region& region);
    // Files without maps go back to ordinary cache memory, as far as their data can be written.
    void detach_unmapped_files(bool removed_only = false);
    void request_detach();
    // With the registry locked: whether all that there is of the files' memory is known, but for what maps have become
    // longer by in their places. False: to be asked again, without the lock.
    bool knows_all_regions();
    bool rescan_regions();  // false: not so soon
    // Where nothing of the file is known any more, what the kernel still has of its memory becomes known first. With
    // the file locked: true where that cannot be told at once.
    bool still_uses(const MappedFile* file);

    void read_events();
    // With the registry locked: whether no event of the program's munmap or mremap waits. What was open is decided
    // then.
    bool is_quiescent();
    bool is_open();  // so that this has to be asked
    bool was_removed_unknown(std::uintptr_t start, std::uintptr_t end) const;
    void handle_removed_regions(std::vector<Region> gone);
    void handle_event(const uffd_msg& message, std::vector<Region>& gone);
    void queue_fault(std::uintptr_t page, Access kind, std::uint64_t life, pid_t tid);
    void worker_loop();
    void handle_fault(FaultJob job);
    // Nothing: the access is refused.
    std::optional<Access> effective_access(const Region& region, Access kind) const;
    Result<void> handle_fault_in(const Region& region, const FaultJob& job, Access kind);
    bool make_page_accessible(const Region& region, std::uintptr_t page, Access kind);
    void finish(const FaultJob& job);
    void reject_fault(const FaultJob& job);
    void reject_permanently(const FaultJob& job);
    bool is_still_rejected(const FaultJob& job);
    bool reject_by_poison(const FaultJob& job);
    void reject_by_protection(const FaultJob& job);
    // Acts on the page of the map that the access was of, and of no other memory: it may be gone, and the address be
    // given out again. `act`: Result<bool> of the region, false to be asked again. False where it was not done.
    template <class Act>
    bool with_region_of(const FaultJob& job, Act act);
    // `undo`: bool of the page, false to be asked again. `offset`: of the page in the file.
    template <class Undo>
    void with_moved_region_of(const FaultJob& job, std::uint64_t offset, Undo undo);
    // How long accesses to the page are refused: a thread that has not run meanwhile comes again, and finds more time.
    std::chrono::milliseconds retry_delay(std::uintptr_t page);
    // The map that a page belongs to, also where no event has told of it: mremap(2) makes maps longer. `engine`: whose
    // map it is, where that is known.
    static RegionRef region_of(std::uintptr_t page, EngineUse& use, ClientMaps* engine = nullptr);
    // Null where it is another engine's, whose inodes may go at any time.
    RegionRef find_own(std::uintptr_t page);
    void helper_loop();  // the helper's thread
    void write_protect_all();

    FaultHandler& server_;
    Userfault userfault_;
    int stop_event_ = -1;

    Mutex lock_{Rank::Leaf, "ClientMaps", 2};
    CondVar jobs_changed_{"faults"}, chores_changed_{"faults without space"}, thawed_{"the thaw"},
        settled_{"files without maps"};
    bool stop_ UEXT4_GUARDED_BY(lock_) = false;
    std::deque<FaultJob> jobs_ UEXT4_GUARDED_BY(lock_);
    std::vector<FaultJob> parked_ UEXT4_GUARDED_BY(lock_);  // frozen
    std::uint64_t thaws_ UEXT4_GUARDED_BY(lock_) = 0;
    std::deque<FaultJob> no_space_ UEXT4_GUARDED_BY(lock_);  // the helper makes room for them
    bool settle_wanted_ UEXT4_GUARDED_BY(lock_) = false;
    bool end_wanted_ UEXT4_GUARDED_BY(lock_) = false;   // of stores
    bool settling_ UEXT4_GUARDED_BY(lock_) = false;     // the helper
    std::vector<Region> gone_ UEXT4_GUARDED_BY(lock_);  // unmapped by the program: their inodes are let go
    std::map<Key, std::vector<pid_t>> waiting_ UEXT4_GUARDED_BY(lock_);  // being served: who waits
    struct Meeting {
        std::chrono::nanoseconds at{0};
        std::chrono::milliseconds lasts{0};
    };
    std::map<std::uintptr_t, Meeting> meetings_ UEXT4_GUARDED_BY(lock_);  // of late

    Mutex attach_lock_{Rank::Leaf, "ClientMaps::attached"};
    std::unordered_map<Inode*, Attached> attached_ UEXT4_GUARDED_BY(attach_lock_);

    // Guarded by the registry's lock.
    std::size_t uses_ = 0;
    // The same. What a map has become longer by is found when the library ends the map. Only an
    // event of the program's can leave memory that nothing leads to.
    bool all_known_ = true;
    // The same. An event was of something else than what was known, or something unknown was moved: some is known where
    // it is not.
    bool doubtful_ = false;
    // The same. What went while nothing was known of it: a map had become longer by that; or it was moved there, by a
    // call of another thread whose event waits still.
    std::vector<std::pair<std::uintptr_t, std::uintptr_t>> unknown_gone_;

    Thread reader_, helper_;
    std::vector<Thread> workers_;
};

// The program's memory [memory, memory + length) contains maps of files, of this or another file system: it must not be
// touched with a lock held, nor is one to be held here.
inline bool touches_client_maps(const void* memory, std::size_t length) {
    const MapRegistry& registry = MapRegistry::instance();
    if (length == 0 || !registry.has_regions()) return false;
    return registry.overlaps(memory, length) ||
           (registry.has_region_below(memory) && ClientMaps::overlaps_growth(memory, length));
}

}  // namespace uext4
