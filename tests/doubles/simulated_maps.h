// Client maps without memory of the kernel: loads and stores are calls, and every one of them, like every fault, is a
// point where the explorer may switch threads. The faults go the way of ClientMaps: to threads of their own, to the
// same FaultHandler, parked when frozen, tried again after room was made. For tests, on any kernel and without
// privilege.
//
//     FileMaps server(volume);                     // who answers: the file layer
//     SimulatedMaps maps(server);
//     auto map = maps.map({.inode = inode, .length = 8192, .protection = PROT_READ | PROT_WRITE, .may_write = true});
//     maps.store(**map, 100, bytes);
//
// Destroyed, with every map unmapped, before the file system is unmounted.
#pragma once

#include "mmap/client_maps.h"

#include <set>

namespace uext4 {

class SimulatedMaps {
public:
    struct Options {
        // As on a kernel that can install a page so that its first store faults; else a load in a writable map counts
        // as a store.
        bool continue_protected = true;
        int workers = 1;
    };
    // What stands behind an access. A fault that may not be retried is delivered once: the access is made while the
    // page is installed, as by a system call of the kernel that cannot fault again.
    enum class Source : bool { program, once };

    explicit SimulatedMaps(FaultHandler& server) : SimulatedMaps(server, Options{}) {}
    SimulatedMaps(FaultHandler& server, Options options);
    ~SimulatedMaps();
    SimulatedMaps(const SimulatedMaps&) = delete;

    class Map;
    using MapRef = std::shared_ptr<Map>;
    // Whole pages. MAP_POPULATE is left to the caller's loads.
    Result<MapRef> map(const MapRequest& request);
    Result<void> unmap(const MapRef& map);  // all of it; the last map of a file gives its memory back

    // [at, at + size) of the map. An error is what the program would meet as SIGBUS: nothing of that page is accessed,
    // the pages before it are. Nobody else's access is touched by it. Accesses to one page are not torn.
    Result<void> load(Map& map, std::uint64_t at, Bytes out, Source source = Source::program,
                      SourceLocation where = SourceLocation::current());
    Result<void> store(Map& map, std::uint64_t at, ConstBytes in, Source source = Source::program,
                       SourceLocation where = SourceLocation::current());

    // The file system is thawed: stores that waited go on.
    void resume();
    std::size_t parked() const;  // faults that wait for a thaw
    std::uint64_t faults() const { return faults_.load(); }

private:
    class File;
    struct Access {
        Map* map = nullptr;
        std::uint64_t page = 0, inside = 0;  // bytes in the map, bytes in the page
        bool store = false;
        Bytes out;
        ConstBytes in;
        SourceLocation where;
        std::size_t size() const { return store ? in.size() : out.size(); }
    };
    struct Job {
        Access access;
        Source source = Source::program;
        bool as_store = false;
        int attempts = 0;   // that ended for want of space
        bool done = false;  // guarded by lock_
        bool accessed = false;
        Result<void> result;
        HeldResource answer() const;
    };

    Result<void> access(Map& map, std::uint64_t at, std::size_t size, bool store, Bytes out, ConstBytes in,
                        Source source, SourceLocation where);
    Result<void> access_page(const Access& access, Source source);
    Result<bool> fault(const Access& access, Source source);  // whether the access is made
    void work();
    void make_room();
    void serve(Job& job);
    Result<std::shared_ptr<File>> attach(const InodeRef& inode);

    FaultHandler& server_;
    const Options options_;
    std::atomic<std::uint64_t> faults_{0};
    mutable Mutex lock_{Rank::Leaf, "SimulatedMaps"};
    CondVar jobs_changed_{"simulated faults"}, room_wanted_{"simulated faults without space"},
        served_{"a simulated fault's answer"};
    bool stop_ UEXT4_GUARDED_BY(lock_) = false;
    std::deque<Job*> jobs_ UEXT4_GUARDED_BY(lock_), no_space_ UEXT4_GUARDED_BY(lock_);
    std::vector<Job*> parked_ UEXT4_GUARDED_BY(lock_);
    std::uint64_t thaws_ UEXT4_GUARDED_BY(lock_) = 0;
    std::unordered_map<Inode*, std::shared_ptr<File>> files_ UEXT4_GUARDED_BY(lock_);
    std::vector<Thread> threads_;
};

}  // namespace uext4
