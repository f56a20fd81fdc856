// A scenario's map of a file: simulated, so that every access and every fault is a place to switch threads.
#pragma once

#include "file/file_io.h"
#include "tests/doubles/simulated_maps.h"
#include "tests/explore/scenario.h"

#include <sys/mman.h>

namespace uext4::explore {

class Mapped {
public:
    Mapped(World& w, std::string_view path, std::size_t length) : w_(w), maps_(w.fs().maps()), file_(w.open(path)) {
        MapRequest request;
        request.inode = file_->inode_ref();
        request.length = length;
        request.protection = PROT_READ | PROT_WRITE;
        request.may_write = true;
        map_ = w.expect(maps_.map(request), "map");
    }
    ~Mapped() {
        if (map_) w_.expect(maps_.unmap(map_), "unmap");
    }
    Mapped(const Mapped&) = delete;

    Result<void> try_store(std::uint64_t at, std::size_t length, char fill,
                           SimulatedMaps::Source source = SimulatedMaps::Source::program,
                           SourceLocation where = SourceLocation::current()) {
        const std::string bytes(length, fill);
        return maps_.store(*map_, at, std::as_bytes(std::span(bytes)), source, where);
    }
    void store(std::uint64_t at, std::size_t length, char fill,
               SimulatedMaps::Source source = SimulatedMaps::Source::program,
               SourceLocation where = SourceLocation::current()) {
        w_.expect(try_store(at, length, fill, source, where), "a store through the map");
    }
    std::string load(std::uint64_t at, std::size_t length, SourceLocation where = SourceLocation::current()) {
        std::string bytes(length, '?');
        w_.expect(
            maps_.load(*map_, at, std::as_writable_bytes(std::span(bytes)), SimulatedMaps::Source::program, where),
            "a load through the map");
        return bytes;
    }
    // As write(2) whose memory is this map: the lock of the call is held while the memory is touched.
    void write_from(std::uint64_t at, std::size_t length, std::uint64_t offset,
                    SourceLocation where = SourceLocation::current()) {
        Inode& inode = file_->inode();
        const UniqueWriteLock call(inode.call_lock, where);
        const std::string bytes = load(at, length, where);
        const FreezeGate::Entry pass(w_.fs().volume().gate(), where);
        const Written done =
            w_.expect(write_file(inode, offset, std::as_bytes(std::span(bytes)), {}), "a write from the map");
        w_.require(done.count == length, "a short write");
    }
    // As read(2) with O_DIRECT into this map: the lock of the call is held until what was read is stored. The store's
    // faults are the kernel's, which come once.
    void read_direct_into(std::uint64_t offset, std::size_t length, std::uint64_t at,
                          SourceLocation where = SourceLocation::current()) {
        struct alignas(4096) Page {
            std::byte bytes[4096];
        };
        Inode& inode = file_->inode();
        const UniqueReadLock call(inode.call_lock, where);
        std::vector<Page> pages((length + 4095) / 4096);
        const Bytes bytes(pages.front().bytes, length);
        const std::size_t n = w_.expect(read_direct(inode, offset, bytes), "a direct read");
        w_.expect(maps_.store(*map_, at, bytes.first(n), SimulatedMaps::Source::once, where),
                  "a direct read into the map");
    }
    // Where the device may fail: false when what was stored could not be written back, and is lost with the map.
    bool end() {
        const bool done = w_.done(maps_.unmap(map_), "unmap");
        map_.reset();
        return done;
    }
    void resume() { maps_.resume(); }
    OpenFile& file() { return *file_; }

private:
    World& w_;
    SimulatedMaps maps_;
    std::unique_ptr<OpenFile> file_;
    SimulatedMaps::MapRef map_;
};

// The first folio of a file is gone, as reclaim takes it, when nothing needs it.
inline void reclaim_first(World& w, Inode& inode) {
    LockedFolio folio = w.expect(inode.pages().lock_for_change(0, false), "the folio's lock");
    if (folio && !folio->dirty && !folio->owner && !folio->pins) inode.pages().remove(std::move(folio));
}

}  // namespace uext4::explore
