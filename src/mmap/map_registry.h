// Every client map of the process, by its address. The program's own munmap and mremap move and remove entries.
//
// The kernel tells of them after the addresses are free, so that another thread may have moved its map there before,
// and that be read first. A map that one is moved onto is set aside: it has left, and its own event is still to come.
// Of which of several maps of an address an event is, nothing says but what lies where it has gone to. Where a map was
// taken away, that waits until all events are read; all have left by then but the last that came. A map that was moved
// leaves a trace where it was: after the move the kernel tells, too, that what was there was taken away.
//
// By what the program makes a map longer (mremap), nothing tells. It is found where it is looked for, behind the end of
// what is known, as long as that is there; before an event takes it away, what is left behind it becomes known. What
// has been moved is looked for where it has gone, and what else lies in a place that is asked for is known by the file
// that the kernel says it is of. So an event may be of memory that nobody knew, and another map have its address by
// then: where an event is not just of what is known, all that is mapped is looked at when no event waits any more.
#pragma once

#include "inode/inode_table.h"
#include "sync/mutex.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

namespace uext4 {

class ClientMaps;
class MappedFile;
struct ProcMap;

struct Region {
    std::uint64_t id = 0;  // of the map that it is, or is a part of; no other map of the process has had it
    std::uintptr_t start = 0;
    std::size_t length = 0;    // bytes, whole pages
    std::uint64_t offset = 0;  // of the file's bytes at `start`
    InodeRef inode;
    std::shared_ptr<MappedFile> file;
    ClientMaps* engine = nullptr;
    int protection = 0;      // PROT_*, when it was made
    bool shared = false;     // MAP_SHARED
    bool may_write = false;  // the file was opened for writing
    bool may_use_reserve = false;
    bool is_foreign = false;  // set aside by what is known of another engine's maps

    std::uintptr_t end() const { return start + length; }
    std::uint64_t offset_of(std::uintptr_t address) const { return offset + (address - start); }
};
using RegionRef = std::shared_ptr<const Region>;

class MapRegistry {
public:
    static MapRegistry& instance();

    // Takes the place of what was there. The events of its engine are settled.
    void insert_locked(Region region) UEXT4_REQUIRES(lock_);
    RegionRef find(std::uintptr_t address) const;
    // The parts of [start, end) that are maps, by address, with what they have become longer by.
    std::vector<Region> regions_in(std::uintptr_t start, std::uintptr_t end);
    std::vector<Region> known_parts_locked(std::uintptr_t start, std::uintptr_t end) UEXT4_REQUIRES(lock_);
    bool overlaps(const void* memory, std::size_t length) const;
    bool has_region_below(const void* memory) const;
    bool has_regions() const { return count_.load(std::memory_order_relaxed) != 0; }
    bool uses(const MappedFile* file) const;
    bool uses_locked(const MappedFile* file) const UEXT4_REQUIRES(lock_);
    // `files`: all that are mapped, looked at when no event of the engine's waited, before and afterwards. What there
    // is of the memory of its files becomes known. False where it cannot be said of some of it whether it stays.
    bool learn_all_locked(const ClientMaps* engine, const std::vector<ProcMap>& files) UEXT4_REQUIRES(lock_);
    // What of its maps is not where it is known to be is forgotten.
    std::vector<Region> remove_stale_locked(const ClientMaps* engine, const std::vector<ProcMap>& files)
        UEXT4_REQUIRES(lock_);
    // Of what went, or was moved: whether it is just what is known of it, or of a part of it nothing is known, or what
    // the kernel shows says otherwise. Before remove_locked() and move_locked().
    enum class Knowledge : std::uint8_t { all, part, contrary };
    Knowledge known_to_go_locked(std::uintptr_t start, std::uintptr_t end, std::optional<std::uintptr_t> to,
                                 const ClientMaps* engine) const UEXT4_REQUIRES(lock_);
    // What went before all was known tells nothing more. The references go outside of the lock.
    std::vector<Region> forget_last_locked(const ClientMaps* engine) UEXT4_REQUIRES(lock_);
    // It is not to be found by its memory any more. Nothing: it has maps. The references go outside of the lock.
    std::optional<std::vector<Region>> forget_file(const MappedFile* file);
    std::size_t count_locked(const ClientMaps* engine) const UEXT4_REQUIRES(lock_);

    // Events of the program's munmap are read and applied under it: an address that is given out again cannot be met by
    // the event of its former life.
    Mutex& lock() UEXT4_RETURN_CAPABILITY(lock_) { return lock_; }
    // Who acts on the memory of a map by its address does so under it, too: what is found there then is there.
    RegionRef find_locked(std::uintptr_t address) const UEXT4_REQUIRES(lock_);
    // The nearest map that ends at or below the address.
    RegionRef below_locked(std::uintptr_t address) const UEXT4_REQUIRES(lock_);
    // Where the parts of one map show the file's bytes at `offset`.
    std::vector<std::uintptr_t> pages_of_locked(std::uint64_t life, std::uint64_t offset) const UEXT4_REQUIRES(lock_);
    std::vector<Region> parts_locked(std::uintptr_t start, std::uintptr_t end) const UEXT4_REQUIRES(lock_);
    // These parts are no maps any more.
    void forget_locked(const std::vector<Region>& parts) UEXT4_REQUIRES(lock_);
    // Of one engine's maps, whose event it is. What is gone: the last references to inodes go outside of the lock.
    std::vector<Region> remove_locked(std::uintptr_t start, std::uintptr_t end, const ClientMaps* engine)
        UEXT4_REQUIRES(lock_);
    void move_locked(std::uintptr_t from, std::uintptr_t to, std::size_t length, const ClientMaps* engine)
        UEXT4_REQUIRES(lock_);
    // Whether it is still open which maps some events have taken away; every event of the engine's has been read, and
    // it is not.
    bool is_open_locked(const ClientMaps* engine) const UEXT4_REQUIRES(lock_);
    // Whether some of its maps is set aside by what was known of another engine's, which may be older than the map.
    bool is_in_doubt_locked(const ClientMaps* engine) const UEXT4_REQUIRES(lock_);
    std::vector<Region> settle_locked(const ClientMaps* engine) UEXT4_REQUIRES(lock_);
    // What the maps of [start, end), or those that it may be more of, have become longer by is part of them from now
    // on: as far as it reaches, behind `end` as well. With all that is not known there yet. False: what lies there
    // could not be looked at.
    bool find_growth_locked(std::uintptr_t start, std::uintptr_t end) UEXT4_REQUIRES(lock_);
    // Before remove_locked() and move_locked(). Of the map that the range takes the known end of: what has been moved
    // though it was not known, and what is left behind the range.
    void keep_growth_locked(std::uintptr_t start, std::uintptr_t end, const ClientMaps* engine) UEXT4_REQUIRES(lock_);
    void keep_moved_growth_locked(std::uintptr_t from, std::uintptr_t to, std::size_t length, const ClientMaps* engine)
        UEXT4_REQUIRES(lock_);
    // After an unmap of ours: what the parts have become longer by until they went.
    void keep_behind_locked(const std::vector<Region>& parts) UEXT4_REQUIRES(lock_);
    // After move_locked(): with what was not known when it went, and what has stayed (MREMAP_DONTUNMAP).
    void find_moved_locked(std::uintptr_t from, std::uintptr_t to, std::size_t length) UEXT4_REQUIRES(lock_);
    // The program has mapped what lies at `from` a second time.
    void double_locked(std::uintptr_t from, std::uintptr_t to, const ClientMaps* engine) UEXT4_REQUIRES(lock_);
    struct Leaving {
        std::uintptr_t start = 0, end = 0;
        std::vector<const MappedFile*> files;
    };
    using LeavingRef = std::list<Leaving>::const_iterator;
    // What is being mapped or unmapped by us is no growth of what lies below. Until it is a map, or gone. The files of
    // `parts` are in use until then: there may be more of them that is not known.
    LeavingRef set_leaving_locked(std::uintptr_t start, std::uintptr_t end, const std::vector<Region>& parts)
        UEXT4_REQUIRES(lock_);
    void set_left_locked(LeavingRef leaving) UEXT4_REQUIRES(lock_);
    bool is_leaving_locked(std::uintptr_t page) const UEXT4_REQUIRES(lock_);
    // Some of it, of which nothing is known, is: more of another map may have come there already.
    bool is_partly_leaving_locked(std::uintptr_t start, std::uintptr_t end) const UEXT4_REQUIRES(lock_);

private:
    struct Removal {
        std::uintptr_t start = 0, end = 0;
        const ClientMaps* engine = nullptr;
    };
    using Accepts = std::function<bool(const Region&)>;
    using LastKey = std::tuple<const MappedFile*, bool, bool, bool>;
    void set_last_locked(const Region& part) UEXT4_REQUIRES(lock_);
    void put_locked(Region region) UEXT4_REQUIRES(lock_);
    void set_aside_locked(std::uintptr_t start, std::uintptr_t end, const ClientMaps* by) UEXT4_REQUIRES(lock_);
    void set_others_aside_locked(std::uintptr_t start, std::uintptr_t end, const ClientMaps* by) UEXT4_REQUIRES(lock_);
    // All that the engine's maps have at the addresses, those that came first before the others.
    std::vector<Region> layers_locked(std::uintptr_t start, std::uintptr_t end, const ClientMaps* engine) const
        UEXT4_REQUIRES(lock_);
    // One layer of each address: the first that is accepted, or else the first.
    std::vector<Region> take_locked(const std::vector<Region>& layers, const Accepts& accepts) UEXT4_REQUIRES(lock_);
    void forget_layer_locked(const Region& part) UEXT4_REQUIRES(lock_);
    // The last region that begins below the address.
    RegionRef last_below_locked(std::uintptr_t address) const UEXT4_REQUIRES(lock_);
    void grow_locked(const Region& region, std::uintptr_t end) UEXT4_REQUIRES(lock_);
    // Up to where the memory from `start` on, where nothing is known, is more of the region.
    std::uintptr_t more_until_locked(const Region& region, std::uintptr_t start) const UEXT4_REQUIRES(lock_);
    // [start, end), where nothing is known, is a part of the region as well.
    void put_more_locked(const Region& region, std::uintptr_t start, std::uintptr_t end) UEXT4_REQUIRES(lock_);
    using Span = std::pair<std::uintptr_t, std::uintptr_t>;
    std::vector<Span> unknown_locked(std::uintptr_t start, std::uintptr_t end) const UEXT4_REQUIRES(lock_);
    // What of it is mapped of one of the files becomes known, and is returned. `like`: what it is more of, if that is
    // known. None: what lies there could not be looked at.
    std::optional<std::vector<Span>> know_locked(Span unknown, const RegionRef& like = nullptr) UEXT4_REQUIRES(lock_);
    // The same of what is placed alike, of which [start, end) is unknown. An empty span: nothing has become known.
    Span know_placed_locked(const ProcMap& placed, Span unknown, const RegionRef& like) UEXT4_REQUIRES(lock_);
    // Of the maps of a file, the one that what lies at `start` is most likely to be a part of. None: not one of ours.
    std::optional<Region> likely_whole_locked(const ProcMap& placed, std::uintptr_t start, const RegionRef& like) const
        UEXT4_REQUIRES(lock_);

    mutable Mutex lock_{Rank::Device, "MapRegistry", 1};  // inside of a journaled folio's, whose copy protects maps
    std::map<std::uintptr_t, RegionRef> regions_ UEXT4_GUARDED_BY(lock_);
    // Whose address is another's by now, in the order of coming; and traces, which have no file.
    std::vector<Region> aside_ UEXT4_GUARDED_BY(lock_);
    std::vector<Removal> removals_ UEXT4_GUARDED_BY(lock_);  // open
    // Of the maps of each file that had the same rights the part that went last: more of it may be there that is not
    // known.
    std::map<LastKey, Region> last_ UEXT4_GUARDED_BY(lock_);
    std::list<Leaving> leaving_ UEXT4_GUARDED_BY(lock_);
    std::uint64_t lives_ UEXT4_GUARDED_BY(lock_) = 0;
    std::atomic<std::size_t> count_{0};
};

}  // namespace uext4
